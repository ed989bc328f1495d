# A login with a terminal begins in the person's tmux, if the workspace says so. Commands, copies and editors do not
# come here: they have no terminal, or no login shell. `ssh -t HOST bash` gets a shell without it.
# shellcheck shell=sh
if [ -n "$SSH_TTY" ] && [ -z "$TMUX" ] && [ -t 0 ] && [ "$(cat /run/devnode/tmux 2>/dev/null)" = 1 ]; then
  case $- in
    *i*) tmux new-session -A -s main && exit ;;
  esac
fi
