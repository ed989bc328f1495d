#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What somebody runs on a host before we come: a service in a container, reached by a published port; and, where there are
# GPUs, a CDI specification of their own.
set -eu
tar -c -T /dev/null | docker import - theirs:1 >/dev/null
docker run -d --name theirs -p 8088:8088 -v /usr:/usr:ro -v /etc/hostname:/srv/hostname:ro \
  -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro -w /srv \
  theirs:1 /usr/bin/python3 -m http.server 8088 >/dev/null
[ -e /dev/nvidia0 ] || exit 0
mkdir -p /etc/cdi
cat >/etc/cdi/theirs.json <<'END'
{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [
  {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
  {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}]}}]}
END
