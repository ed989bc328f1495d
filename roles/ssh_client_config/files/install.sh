#!/bin/sh
# Installs this kit into the home of the person who runs it:  sh install.sh
# and takes it away again:                                    sh install.sh --remove
# The only thing that is touched outside of the kit's directory is one line at the top of ~/.ssh/config.
set -eu
umask 077

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ -r "$kit/config" ] || fail "$kit/config is missing: run this in the kit's directory"
# Where things go is what the kit's own config says.
target=$(sed -n 's|^ *UserKnownHostsFile \(~/.*\)/known_hosts$|\1|p' "$kit/config" | head -n 1)
sockets=$(sed -n 's|^ *ControlPath \(~/.*\)/[^/]*$|\1|p' "$kit/config" | head -n 1)
[ -n "$target" ] || fail "$kit/config is not a kit for a home: use it with ssh -F"
directory=$HOME/${target#??}
include="Include $target/config"
config=$HOME/.ssh/config
below="# Your own settings go below this line."

# The person's config without our line, to the byte.
without() {
    awk -v path="$target/config" -v below="$below" -v ended="$(tail -c 1 -- "$config" | wc -l)" '
        {
            line = $0
            sub(/\r$/, "", line)
            if (ours && line == below) { ours = 0; next }
            n = split(line, word, /[ \t="]+/)
            first = (word[1] == "") ? 2 : 1
            ours = (tolower(word[first]) == "include" && word[first + 1] == path && word[first + 2] == "")
            if (ours) next
            printf "%s%s", separator, $0
            separator = "\n"
        }
        END { if (separator != "" && ended) printf "\n" }' "$config"
}

# Whether the first line of standard input that says anything is ours.
is_first() {
    first=$(sed -e 's/\r$//' -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' | head -n 1)
    [ "$first" = "$include" ]
}

# Replaces the person's config by standard input, or says what to do where that is not ours to do.
put() {
    if [ -L "$config" ] || { [ -e "$config" ] && [ ! -w "$config" ]; }; then
        cat >/dev/null
        fail "$config is a link or read-only, so it is left alone: it seems to be managed elsewhere. $1"
    fi
    new=$config.devnode-new
    if [ -e "$config" ]; then cp -p -- "$config" "$new"; fi
    cat >"$new"
    mv -f -- "$new" "$config"
}

add_include() {
    if [ -e "$config" ] && is_first <"$config"; then return; fi
    advice="Put this line at its very top yourself: $include"
    if [ ! -e "$config" ]; then
        printf '%s\n%s\n' "$include" "$below" | put "$advice"
        return
    fi
    if [ -r "$config" ]; then cp -p -- "$config" "$directory/config.backup"; fi
    end=
    if head -n 1 "$config" | grep -q "$(printf '\r')\$"; then end=$(printf '\r'); fi
    text=$(without && echo .)
    { printf '%s%s\n' "$include" "$end" && printf '%s' "${text%.}"; } | put "$advice"
}

remove_include() {
    [ -e "$config" ] || return 0
    text=$(without && echo .)
    before=$(cat -- "$config" && echo .)
    if [ "$text" = "$before" ]; then return; fi
    printf '%s' "${text%.}" | put "Take this line out yourself: $include"
    if [ ! -s "$config" ]; then rm -f -- "$config"; fi
}

install_kit() {
    # What is made above these gets the same mode from the umask.
    # shellcheck disable=SC2174
    mkdir -p -m 0700 -- "$HOME/.ssh" "$directory"
    # shellcheck disable=SC2174
    if [ -n "$sockets" ]; then mkdir -p -m 0700 -- "$HOME/${sockets#??}"; fi
    if [ "$kit" != "$directory" ]; then
        for file in config known_hosts README.md devnode-ssh agents mosh install.sh; do
            if [ -e "$kit/$file" ]; then
                cp -- "$kit/$file" "$directory/$file.new"
                mv -f -- "$directory/$file.new" "$directory/$file"
            else
                rm -f -- "$directory/$file"
            fi
        done
    fi
    chmod 0700 "$directory" "$directory/devnode-ssh" "$directory/install.sh"
    add_include
    echo "Installed in $directory. Your names: $(awk '$1 == "Host" { n = $2 } $1 == "Match" { n = "" } $1 == "HostName" { printf "%s ", n }' "$directory/config")"
}

remove_kit() {
    remove_include
    if [ -x "$directory/devnode-ssh" ]; then
        if [ -e "$HOME/.config/systemd/user/devnode-prewarm.service" ] ||
            [ -e "$HOME/Library/LaunchAgents/devnode.prewarm.plist" ]; then "$directory/devnode-ssh" prewarm off || :; fi
        "$directory/devnode-ssh" close --all || :
    fi
    for file in config known_hosts README.md devnode-ssh agents mosh install.sh config.backup; do rm -f -- "$directory/$file"; done
    rmdir -- "$directory" 2>/dev/null || echo "$directory is kept: there is something in it that is not the kit's"
    if [ -n "$sockets" ]; then rmdir -- "$HOME/${sockets#??}" 2>/dev/null || :; fi
    echo "Taken away. Your keys and the rest of ~/.ssh are as they were."
}

case "${1:-}" in
"") install_kit ;;
--remove) remove_kit ;;
*) fail "sh install.sh [--remove]" ;;
esac
