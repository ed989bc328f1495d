# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's name and version, for the headers of what it writes. A unit test compares it with galaxy.yml."""

from __future__ import annotations

GENERATOR = "devnode.gpu 0.2.0"
