# SPDX-License-Identifier: GPL-3.0-or-later
"""One person's bad client behind a bastion is nobody else's trouble."""

from __future__ import annotations

import pytest
from scenario_hosts import FOLDER, address, root

STRANGER = "10.203.255.76"


@pytest.fixture
def kit():
    """debian12 is the bastion of debian13: everybody comes from its address."""
    root("debian12", f"ip address replace {STRANGER}/32 dev eth0; install -d -m 700 /root/kit")
    root("debian13", f"ip route replace {STRANGER}/32 via {address('debian12')}")
    for name in ("ops", "other"):
        root("debian12", f"umask 077; cat > /root/kit/{name} <<'END'\n{(FOLDER / name).read_text()}END")
    known = next(line for line in (FOLDER / "known_hosts").read_text().splitlines() if line.startswith("debian13"))
    root("debian12", f"echo '{known}' > /root/kit/known_hosts")
    yield
    root("debian12", "rm -r /root/kit")


def tries(key, times=1, source=""):
    """What becomes of logins at debian13 from debian12, one word or line each."""
    options = "-F none -o BatchMode=yes -o IdentitiesOnly=yes -o HostKeyAlias=debian13 -o ConnectTimeout=5"
    options += f" -o UserKnownHostsFile=/root/kit/known_hosts -i /root/kit/{key} {source}"
    one = f"ssh {options} ops@{address('debian13')} true 2>&1 </dev/null && echo in || :"
    return root("debian12", f"for n in $(seq {times}); do {one}; done").splitlines()


@pytest.mark.usefixtures("kit")
def test_one_persons_failures_behind_the_bastion_are_nobody_elses():
    failures = tries("other", 20)
    assert len(failures) == 20
    assert all("Permission denied" in line for line in failures), failures
    assert tries("ops") == ["in"]
    # The same from an address that is not exempt: after a few, nothing of it gets in for a while.
    assert not all("Permission denied" in line for line in tries("other", 20, f"-b {STRANGER}"))
    assert tries("ops", 1, f"-b {STRANGER}") != ["in"]
    assert tries("ops") == ["in"]
