# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: hosts in containers that behave like fresh machines. Standard library and the docker command only."""
