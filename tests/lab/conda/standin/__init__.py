# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN for conda in the tests and the demo. This is not conda.

It answers to the documented commands and flags of conda that the role `miniconda` uses, with their documented
effects, error names and exit codes. Solving, downloading, linking and unlinking are real: py-rattler does them, on
real conda packages. What conda does beyond that (plugins, notices, several solvers, Windows, ...) is left out.
The real conda takes its place with one variable of the role: the installer's URL.
"""
