#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A playbook, run by a job, with a key that nothing on this machine knows when the run has ended, however it ends.
#   FLEET_KEY=KEY bash fleet.sh LOG PLAYBOOK [options of ansible-playbook]
# KEY is a private key, or the path of a file with one; a certificate for it may lie beside it (PATH-cert.pub).
# Everything the run prints, with its diff, goes to LOG: the job's own log may have other readers.
set -euo pipefail
umask 077
log=$1
shift
place=$(mktemp -d -p "${RUNNER_TEMP:-/tmp}")

# Called by the trap below.
# shellcheck disable=SC2329
end() {
  # Shared connections would outlive the agent for a minute, and be root on the hosts for whoever comes next on this machine.
  for socket in "$place"/cp/*; do
    if [ -S "$socket" ]; then ssh -F none -O exit -o ControlPath="$socket" fleet >/dev/null 2>&1 || true; fi
  done
  if [ -n "${SSH_AGENT_PID:-}" ]; then ssh-agent -k >/dev/null; fi
  rm -rf "$place"
}
trap end EXIT

# An agent of this run alone: the machine may have another one, which is nobody's business here.
unset SSH_AUTH_SOCK SSH_AGENT_PID
eval "$(ssh-agent -s -a "$place/agent")" >/dev/null
if [ -f "$FLEET_KEY" ]; then
  tr -d '\r' <"$FLEET_KEY" >"$place/key"
  if [ -f "$FLEET_KEY-cert.pub" ]; then cp "$FLEET_KEY-cert.pub" "$place/key-cert.pub"; fi
  ssh-add -q -t 3h "$place/key"
  rm "$place/key"
else
  tr -d '\r' <<<"$FLEET_KEY" | ssh-add -q -t 3h -
fi
unset FLEET_KEY
# The inventory allows ssh one identity, by the name of a file. With the public half there, ssh asks the agent for the other.
ssh-add -L >"$place/listed"
grep -v -e '-cert-v01@' "$place/listed" >"$place/automation.pub"
grep -e '-cert-v01@' "$place/listed" >"$place/automation.pub-cert.pub" || rm "$place/automation.pub-cert.pub"

# The password of vaults, if there are any: the text, or the path of a file.
if [ -f "${FLEET_VAULT:-}" ]; then cp "$FLEET_VAULT" "$place/vault"; elif [ -n "${FLEET_VAULT:-}" ]; then echo "$FLEET_VAULT" >"$place/vault"; fi
if [ -e "$place/vault" ]; then set -- "$@" --vault-password-file "$place/vault"; fi
unset FLEET_VAULT

export ANSIBLE_SSH_CONTROL_PATH_DIR="$place/cp" ANSIBLE_NOCOLOR=1
status=0
ansible-playbook -i "${INVENTORY:-inventory/hosts.yml}" -e "ansible_ssh_private_key_file=$place/automation.pub" \
  --diff "$@" >"$log" 2>&1 || status=$?
sed -n '/^PLAY RECAP/,$p' "$log"
if [ "$status" != 0 ]; then echo "The run failed (exit status $status). What it said is in $log." >&2; fi
exit "$status"
