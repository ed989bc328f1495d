#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a container a workspace: accounts, environment, sshd and JupyterLab, from one read-only file.

  devnode-workspace run      the container's main process: apply, then keep sshd, cron and JupyterLab running
  devnode-workspace apply    bring accounts and sshd to what the file says now; prints what changed as JSON
  devnode-workspace close    end every ssh session; jobs that do not hang on one stay

The file is /etc/devnode/workspace/workspace.json, mounted from the node. It holds no secrets. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any

import devnode_cron
import devnode_farewell
import devnode_sessions

WORKSPACE = Path("/etc/devnode/workspace")
HOST_KEYS = Path("/etc/devnode/host_keys")
RUN = Path("/run/devnode")
SSHD_CONFIG = RUN / "sshd_config"
SSHD = "/usr/sbin/sshd"
JUPYTER = "/usr/local/bin/devnode-jupyter"
MARK = "devnode workspace"  # the comment of the accounts that are ours to remove
PORT = 2222


class WorkspaceError(Exception):
    """What is wrong with the workspace, in words."""


def main(argv: list[str]) -> int:
    """Run one of the commands."""
    try:
        if argv == ["apply"]:
            print(json.dumps({"changed": apply()}))
        elif argv == ["close"]:
            devnode_sessions.end_lost(_uids(), {}, RUN / "logins", RUN / "keys", everything=True)
        elif argv == ["run"]:
            apply()
            return Supervisor().run()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except WorkspaceError as exc:
        print(f"devnode-workspace: {exc}", file=sys.stderr)
        return 1
    return 0


def read_config() -> dict[str, Any]:
    """The workspace as the node describes it."""
    path = WORKSPACE / "workspace.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise WorkspaceError(f"{path} cannot be read ({exc}); the node's role pytorch_sshd writes it") from exc
    return config


def people(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everybody with a login, the owner first."""
    return [config["owner"], *config["members"]]


def apply() -> list[str]:
    """Bring the container to what the file says; say what changed. Once at a time."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = read_config()
        variables = environment(container_environment(), config["environment"])
        changed = put_environment(variables)
        changed += put_session(config)
        changed += put_accounts(people(config))
        if put_sshd(config, variables):
            changed.append("sshd")
        changed += end_lost_sessions(config)
        if put(RUN / "jupyter", f"{int(config['jupyter'])}\n"):
            changed.append("jupyter")
    if changed:
        poke_supervisor()
    return changed


def end_lost_sessions(config: Mapping[str, Any]) -> list[str]:
    """Who lost a key is not kept in by a connection that it opened."""
    logins = {person["name"]: int(person["uid"]) for person in people(config)}
    keys = {**config["keys"], devnode_sessions.REVOKED: config.get("revoked", [])}
    ended = devnode_sessions.end_lost(logins, keys, RUN / "logins", RUN / "keys")
    return [f"ended sessions of {login} whose key is gone" for login in ended]


def poke_supervisor() -> None:
    """Tell the main process, if there is one, to look again."""
    try:
        os.kill(int((RUN / "supervisor.pid").read_text()), signal.SIGHUP)
    except (OSError, ValueError):
        return


def put(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file in one step, if its content or its mode differs."""
    if path.exists() and path.read_text() == text and path.stat().st_mode & 0o7777 == mode:
        return False
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)
    return True


# --- environment -----------------------------------------------------------------------------------------------------
# A session over ssh starts with a fresh environment, so what the image and the workspace set would be missing there.


def container_environment() -> dict[str, str]:
    """What the engine gave the container's first process: the image's ENV and the workspace's own variables."""
    pairs = Path("/proc/1/environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def environment(given: Mapping[str, str], allow: Iterable[str]) -> dict[str, str]:
    """The variables that every session gets: those on the allow-list, printable ones only."""
    patterns = list(allow)
    return {
        name: given[name]
        for name in sorted(given)
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        and any(fnmatchcase(name, pattern) for pattern in patterns)
        and given[name].isprintable()
    }


def sshd_setenv(variables: Mapping[str, str]) -> str:
    """All pairs on one line: sshd takes the first SetEnv only."""
    words = [f'"{name}={_backslashed(value)}"' for name, value in variables.items()]
    return f"SetEnv {' '.join(words)}\n" if words else ""


def _backslashed(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def profile(variables: Mapping[str, str]) -> str:
    """For login shells, whose /etc/profile sets PATH anew."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "# Written at the container's start from its environment.\n" + "\n".join([*lines, ""])


def pam_environment(variables: Mapping[str, str]) -> str:
    """/etc/environment, for what starts neither a login shell nor an sshd session: cron, su, sudo.

    Its format has no escapes, so a value with quotes, a backslash or # stays out; sshd and shells still have it.
    """
    plain = {name: value for name, value in variables.items() if not set(value) & set("\"'\\#")}
    return "".join(f'{name}="{value}"\n' for name, value in plain.items())


def sudoers(variables: Mapping[str, str]) -> str:
    """The same environment under sudo. It gives nobody a right."""
    lines = ["Defaults env_file=/etc/environment"]
    if "PATH" in variables:
        lines.append(f'Defaults secure_path="{_backslashed(variables["PATH"])}"')
    return "\n".join([*lines, ""])


def put_environment(variables: Mapping[str, str]) -> list[str]:
    """Every place that a kind of session takes its environment from."""
    places = (
        (Path("/etc/environment"), pam_environment(variables), 0o644),
        (Path("/etc/profile.d/zz-devnode.sh"), profile(variables), 0o644),
        (Path("/etc/sudoers.d/devnode"), sudoers(variables), 0o440),
    )
    return [str(path) for path, text, mode in places if put(path, text, mode)]


def put_session(config: Mapping[str, Any]) -> list[str]:
    """Who may become root, and whether a login begins in tmux."""
    people_sudo = [f"{person['name']} ALL=(ALL:ALL) NOPASSWD: ALL" for person in people(config) if config.get("sudo")]
    places = (
        (Path("/etc/sudoers.d/devnode-people"), "\n".join([*people_sudo, ""]).lstrip("\n"), 0o440),
        (RUN / "tmux", f"{int(bool(config.get('tmux')))}\n", 0o644),
    )
    return [str(path) for path, text, mode in places if put(path, text, mode)]


# --- accounts --------------------------------------------------------------------------------------------------------


def put_accounts(wanted: list[dict[str, Any]]) -> list[str]:
    """Accounts with the uids that the inventory fixes; those of people who left go, their files stay."""
    names = {person["name"] for person in wanted}
    changed = [f"removed {gone}" for gone in _ours() if gone not in names and _remove(gone)]
    return changed + [f"added {person['name']}" for person in wanted if _ensure(person["name"], int(person["uid"]))]


def _ours() -> list[str]:
    return [entry.pw_name for entry in pwd.getpwall() if entry.pw_gecos.split(",")[0] == MARK]


def _uids() -> dict[str, int]:
    return {name: pwd.getpwnam(name).pw_uid for name in _ours()}


def _ensure(name: str, uid: int) -> bool:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        found = None
    if found and found.pw_uid != uid:
        raise WorkspaceError(
            f"{name} has uid {found.pw_uid} here, and the inventory says {uid}; a running container keeps its uids: "
            "recreate the workspace"
        )
    if not found:
        _command(["groupadd", "--gid", str(uid), name])
        words = ["--uid", str(uid), "--gid", str(uid), "--no-create-home", "--home-dir", f"/home/{name}"]
        _command(["useradd", *words, "--shell", "/bin/bash", "--comment", MARK, "--password", "*", name])
    return make_home(Path("/home") / name, uid) or not found


def make_home(home: Path, uid: int, skeleton: Path = Path("/etc/skel")) -> bool:
    """A new home gets its first files and its owner once. One that exists is never walked through."""
    if home.exists():
        return False
    new = home.with_name(f".{home.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    if skeleton.is_dir():
        shutil.copytree(skeleton, new, symlinks=True)
    else:
        new.mkdir()
    for folder, folders, files in os.walk(new):
        for entry in (*folders, *files):
            os.chown(os.path.join(folder, entry), uid, uid, follow_symlinks=False)
    new.chmod(0o700)
    os.chown(new, uid, uid)
    new.rename(home)
    return True


def _remove(name: str) -> bool:
    entry = pwd.getpwnam(name)
    # The account goes first, so that nothing new can start; then what still runs under its number.
    subprocess.run(["userdel", "--force", name], capture_output=True, check=False)
    devnode_cron.Crontabs().drop(name)
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if re.search(rf"^Uid:\t\d+\t{entry.pw_uid}\t", status.read_text(), re.MULTILINE):
                os.kill(int(status.parent.name), signal.SIGKILL)
        except OSError:
            continue
    return True


def _command(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorkspaceError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# --- sshd ------------------------------------------------------------------------------------------------------------


def put_sshd(config: Mapping[str, Any], variables: Mapping[str, str]) -> bool:
    """Write sshd's configuration once sshd itself has read it and found it good."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    new = RUN / "sshd_config.check"
    put(new, sshd_config(config, variables, ssh_version(), algorithms(config["algorithms"])), 0o600)
    _command([SSHD, "-t", "-f", str(new)])
    return put(SSHD_CONFIG, new.read_text(), 0o600)


def ssh_version() -> tuple[int, int]:
    """The version of the image's OpenSSH."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    if not found:
        raise WorkspaceError(f"the image's ssh does not say its version: {said.strip()!r}")
    return int(found.group(1)), int(found.group(2))


def algorithms(wanted: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Of each list what this sshd knows, in the order wanted: an unknown name would keep sshd from starting."""
    query = {"KexAlgorithms": "kex", "Ciphers": "cipher", "MACs": "mac"}
    known = {option: set(_command(["ssh", "-Q", query[option]]).split()) for option in wanted}
    return {option: [name for name in names if name in known[option]] for option, names in wanted.items()}


def sshd_config(
    config: Mapping[str, Any], variables: Mapping[str, str], version: tuple[int, int], chosen: Mapping[str, list[str]]
) -> str:
    """The whole configuration; the image's /etc/ssh/sshd_config is not read."""
    yes_no = {True: "yes", False: "no"}
    lines = [
        "# Written by devnode-workspace from /etc/devnode/workspace/workspace.json.",
        f"Port {PORT}",
        *host_keys(HOST_KEYS),
        "PidFile none",
        "LogLevel VERBOSE",
        "# Keys only, and they lie where only root writes.",
        f"AuthorizedKeysFile {WORKSPACE}/keys/%u",
        *([f"RevokedKeys {WORKSPACE}/revoked_keys"] if config.get("revoked") else []),
        f"AllowUsers {' '.join(person['name'] for person in people(config))}",
        "AuthenticationMethods publickey",
        "PermitRootLogin no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "HostbasedAuthentication no",
        "UsePAM yes",
        "LoginGraceTime 30",
        "MaxSessions 64",
        "# Everybody comes from the bastion's address: one person's mistakes must not lock out the others.",
        "MaxStartups 100:30:200",
        *_penalties(config["exempt_networks"], version),
        "# Forwarding: to this container's own loopback only (VS Code, Jupyter); an agent where the project allows it.",
        "AllowTcpForwarding local",
        "PermitOpen 127.0.0.1:* localhost:* [::1]:*",
        "PermitListen none",
        f"AllowAgentForwarding {yes_no[bool(config['agent_forwarding'])]}",
        "AllowStreamLocalForwarding no",
        "GatewayPorts no",
        "PermitTunnel no",
        "X11Forwarding no",
        "PermitUserEnvironment no",
        "PermitUserRC no",
        "PrintMotd no",
        "ClientAliveInterval 30",
        "ClientAliveCountMax 6",
        *(f"{option} {','.join(names)}" for option, names in sorted(chosen.items()) if names),
        "Subsystem sftp /usr/lib/openssh/sftp-server",
    ]
    return "\n".join([*lines, sshd_setenv(variables)])


def host_keys(folder: Path) -> list[str]:
    """The keys, and all certificates: sshd serves the one that fits its key, also when a rotation has changed that.

    What they are stands behind each, so that another key or certificate is another configuration, which sshd reads.
    """
    lines = []
    for option, pattern, suffix in (
        ("HostKey", "ssh_host_*_key", ".pub"),
        ("HostCertificate", "ssh_host_*-cert.pub", ""),
    ):
        for path in sorted(folder.glob(pattern)):
            public = path.with_name(f"{path.name}{suffix}")
            data = public.read_bytes() if public.exists() else b""
            lines += [f"{option} {path}", f"# sha256 {hashlib.sha256(data).hexdigest()}"]
    return lines


def _penalties(exempt: list[str], version: tuple[int, int]) -> list[str]:
    if version < (9, 8):
        return []
    return [f"PerSourcePenaltyExemptList {','.join(exempt)}"] if exempt else ["PerSourcePenalties no"]


# --- main process ----------------------------------------------------------------------------------------------------


class Supervisor:
    """Keeps sshd, cron and, if the workspace has one, JupyterLab running; ends everybody gently when told to stop."""

    TICK = 5.0
    GRACE = 1.0
    STEADY = 60.0

    def __init__(self) -> None:
        self.event = threading.Event()
        self.stopping = False
        self.reload = False
        self.sshd: subprocess.Popen[bytes] | None = None
        self.jupyter: subprocess.Popen[bytes] | None = None
        self.jupyter_after = 0.0  # when JupyterLab may be started again
        self.jupyter_pause = 2.0
        self.crontabs = devnode_cron.Crontabs()

    def run(self) -> int:
        """Until SIGTERM, or until sshd ends by itself."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        put(RUN / "supervisor.pid", f"{os.getpid()}\n")
        self.sshd = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(SSHD_CONFIG)], start_new_session=True, stderr=subprocess.PIPE
        )
        if self.sshd.stderr:
            devnode_sessions.start(self.sshd.stderr, RUN / "logins")
        while not self.stopping:
            if self.sshd.poll() is not None:
                print(f"devnode-workspace: sshd ended with {self.sshd.returncode}", file=sys.stderr)
                break
            if self.reload:
                self.reload = False
                self.sshd.send_signal(signal.SIGHUP)
            self._tend_or_wait()
            self.event.wait(self.TICK)
            self.event.clear()
        self._end_everybody()
        return 0 if self.stopping else 1

    def _signalled(self, number: int, _dummy: FrameType | None) -> None:
        self.stopping = self.stopping or number in (signal.SIGTERM, signal.SIGINT)
        self.reload = self.reload or number == signal.SIGHUP
        self.event.set()

    def _tend_or_wait(self) -> None:
        """The container ends with this process, and everybody's jobs with it. So where somebody has taken all processes
        or all memory, what cannot be started now waits for the next tick."""
        try:
            self._tend()
        except (OSError, subprocess.SubprocessError, RuntimeError, MemoryError) as exc:
            print(f"devnode-workspace: not now: {exc}", file=sys.stderr)

    def _tend(self) -> None:
        try:
            config = read_config()
        except WorkspaceError:
            # No longer declared, but somebody's job runs: the node removes this container when it has ended.
            self.crontabs.stop()
            return
        self._tend_jupyter(config)
        logins = {person["name"]: int(person["uid"]) for person in people(config)}
        self.crontabs.tend(logins, environment(container_environment(), config["environment"]))

    def _tend_jupyter(self, config: Mapping[str, Any]) -> None:
        running = self.jupyter is not None and self.jupyter.poll() is None
        if not config["jupyter"] or not Path(JUPYTER).exists():
            if running and self.jupyter:
                self.jupyter.terminate()
            return
        if running or time.monotonic() < self.jupyter_after:
            return
        self.jupyter_pause = min(self.jupyter_pause * 2, self.STEADY)
        self.jupyter_after = time.monotonic() + self.jupyter_pause
        self.jupyter = subprocess.Popen(
            [JUPYTER, "serve"],
            env=session_environment(config["owner"]["name"]),
            cwd="/",
            user=config["owner"]["uid"],
            group=config["owner"]["uid"],
            extra_groups=[],
            umask=0o022,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end_everybody(self) -> None:
        try:
            grace = float(read_config().get("stop_grace", self.GRACE))
        except WorkspaceError:
            grace = self.GRACE
        devnode_farewell.end_everybody(grace)


def session_environment(login: str) -> dict[str, str]:
    """What a session of this person would have."""
    allowed = environment(container_environment(), read_config()["environment"])
    return {**allowed, "HOME": f"/home/{login}", "USER": login, "LOGNAME": login, "SHELL": "/bin/bash"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
