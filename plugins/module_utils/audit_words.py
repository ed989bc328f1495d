# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd says in its log, as patterns: logins and their ends, onward connections, refusals.

Installed on the bastion beside audit_join.py: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import re

ACCEPTED = re.compile(
    r"(?P<how>Accepted|Partial) (?P<method>\S+) for (?P<user>\S+) from (?P<source>\S+) port (?P<port>\d+) ssh2"
    r"(?:: (?P<type>\S+) (?P<key>SHA256:\S+)(?: ID (?P<id>.*) \(serial (?P<serial>\d+)\) CA \S+ (?P<ca>SHA256:\S+))?)?"
)
# Names come from strangers: the last "from" of the line is sshd's own.
FAILED = re.compile(
    r"Failed (?P<method>\S+) for (?:invalid user )?(?P<user>.*) from (?P<source>\S+) port (?P<port>\d+) ssh2"
    r"(?:: (?P<type>\S+) (?P<key>SHA256:\S+).*)?"
)
INVALID = re.compile(r"Invalid user (?P<user>.*) from (?P<source>\S+) port (?P<port>\d+)")
OPENED = re.compile(r"pam_unix\(sshd:session\): session opened for user \S+\(uid=(\d+)\)")
CLOSED = re.compile(r"pam_unix\(sshd:session\): session closed for user ")
CHILD = re.compile(r"User child is on pid (\d+)")
# Where in its source sshd says it: LogVerbose puts this in front. Anchored, since targets come from the client.
_PLACE = r"(?:debug[123]: )?[a-z]+\.c:{}\(\):\d+ \([^)]*\): "
# The originator is whatever the client says: nothing, where it forwards a socket, or words with spaces.
_TARGET = r"originator .*? port \d+, target (?P<host>.+) port (?P<port>\d+)"
ASKED = re.compile(_PLACE.format("server_request_direct_tcpip") + _TARGET)
REFUSED = re.compile(f"(?:{_PLACE.format('server_request_direct_tcpip')})?refused local port forward: {_TARGET}")
DENIED = re.compile(
    r"Received request from \S+ port \d+ to connect to host (?P<host>.+) port (?P<port>\d+), but the request was denied"
)
NEW = re.compile(_PLACE.format("channel_new") + r"channel (\d+): new direct-tcpip ")
FREE = re.compile(_PLACE.format("channel_free") + r"channel (\d+): free: direct-tcpip,")
UNREACHED = re.compile(r"(?:error: )?connect_to (?P<host>.+) port (?P<port>\d+): failed")
UNKNOWN_HOST = re.compile(r"(?:error: )?connect_to (?P<host>.+): unknown host")
SOCKET = re.compile(
    f"(?:{_PLACE.format('server_request_direct_streamlocal')})?refused streamlocal port forward: "
    r"originator .*? port -?\d+, target (?P<path>.*)",
    re.DOTALL,
)
# What sshd tells the client, in its own words, and says to the log only when it is asked to.
TOLD = re.compile(_PLACE.format("ssh_packet_send_debug") + r"sending debug message: (?P<words>.*)", re.DOTALL)
REFUSALS = {
    "Server has disabled port forwarding.": "remote forwarding",
    "Server has disabled streamlocal forwarding.": "remote forwarding to a socket",
    "Server has rejected tunnel device forwarding": "tunnel",
}
NO_SESSIONS = re.compile(r"(?:error: )?no more sessions")
TRANSFERRED = re.compile(r"Transferred: sent (\d+), received (\d+) bytes")
