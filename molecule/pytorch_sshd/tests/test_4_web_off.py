# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab over HTTPS, switched off again."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from pytorch_sshd_lab import converge, node_address


def test_off_again_nothing_of_it_is_left(host: Any) -> None:
    """Last, after everything that needs it."""
    only_nlp = ("--extra-vars", json.dumps({"pytorch_sshd_workspaces": ["{{ nlp }}"], "nlp_shm_size": "128m"}))
    code, out, changed = converge(*only_nlp, nlp_web=None)
    assert (code, changed > 0) == (0, True), out
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((node_address(), 8443), timeout=5)
    places = "/etc/devnode /etc/systemd /run /usr/local/libexec /var/lib/devnode/web"
    left = host.run(f"find {places} -name 'devnode-web*' -o -name '*devnode[_-]door*' -o -name web 2>/dev/null")
    assert left.stdout.split() in ([], ["/run/devnode-door"])
    assert host.run("pgrep -x nginx; pgrep -f [d]evnode_door; getent passwd devnode-web").stdout == ""
    # The distribution's own service never ran, and does not start at boot.
    assert host.check_output("systemctl is-enabled nginx.service || true") == "disabled"
    assert "Started nginx" not in host.check_output("journalctl -o cat -u nginx.service || true")
    code, out, changed = converge(*only_nlp, nlp_web=None)
    assert (code, changed) == (0, 0), out
