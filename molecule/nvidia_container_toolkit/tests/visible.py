# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab host that lets its people make containers, as a machine does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def visible(host: Any) -> Iterator[None]:
    """Who is not root may mount /proc and /sys anew only where all of both is to be seen already.

    A machine's are; parts of a container's are covered by the engine that runs it. So they are mounted once more.
    """
    host.check_output(
        "mkdir -p /srv/visible/proc /srv/visible/sys; "
        "mount -t proc proc /srv/visible/proc; mount -t sysfs sysfs /srv/visible/sys"
    )
    yield
    host.check_output("umount --lazy /srv/visible/proc /srv/visible/sys; rmdir /srv/visible/*")
