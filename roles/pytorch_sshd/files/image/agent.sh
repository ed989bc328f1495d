# Shells use the link that /etc/ssh/sshrc keeps up to date (see there).
# shellcheck shell=sh
if [ -L "$HOME/.ssh/agent.sock" ]; then
  SSH_AUTH_SOCK="$HOME/.ssh/agent.sock"
  export SSH_AUTH_SOCK
fi
