#!/bin/sh
# STAND-IN for the Miniconda installer, made by tests/lab/conda/build.py. This is not Miniconda.
# It has the real installer's flags, checks, messages and exit codes, and lays down a real Python and a `conda` that
# wraps py-rattler. The real installer takes its place with one variable of the role `miniconda`.
#
# NAME:  Miniconda3
# VER:   @VERSION@
# PLAT:  @PLATFORM@
set -eu

unset LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT CONDARC PYTHONHOME || true

if ! echo "$0" | grep '\.sh$' > /dev/null; then
    printf 'Please run using "bash"/"dash"/"sh"/"zsh", but not "." or "source".\n' >&2
    exit 1
fi

PREFIX="${HOME:-/opt}/miniconda3"
BATCH=0
FORCE=0
KEEP_PKGS=0
SKIP_SCRIPTS=0
USAGE="
usage: $0 [options]

Installs Miniconda3 @VERSION@ (STAND-IN)

-b           run install in batch mode (without manual intervention),
             it is expected the license terms (if any) are agreed upon
-f           no error if install prefix already exists
-h           print this help message and exit
-k           do not clear the package cache after installation
-p PREFIX    install prefix, defaults to $PREFIX, must not contain spaces.
-s           skip running pre/post-link/install scripts
-m           disable the creation of menu items / shortcuts
-u           update an existing installation
-t           run package tests after installation (may install conda-build)
-c           run 'conda init' after installation (only applies to batch mode)
"
while getopts "bifhkp:smutc" x; do
    case "$x" in
        h) printf "%s\n" "$USAGE"; exit 2 ;;
        b) BATCH=1 ;;
        i) BATCH=0 ;;
        f|u) FORCE=1 ;;
        k) KEEP_PKGS=1 ;;
        p) PREFIX="$OPTARG" ;;
        s) SKIP_SCRIPTS=1 ;;
        m|t|c) ;;
        ?) printf "ERROR: did not recognize option '%s', please try -h\n" "$x"; exit 1 ;;
    esac
done

if [ "$BATCH" = "0" ]; then
    printf "\nWelcome to Miniconda3 @VERSION@\n\nDo you accept the license terms? [yes|no]\n>>> "
    read -r ans || ans=no
    if [ "$ans" != "yes" ]; then
        printf "The license agreement wasn't approved, aborting installation.\n"
        exit 2
    fi
fi

case "$PREFIX" in
    *\ * ) printf "ERROR: Cannot install into directories with spaces\n" >&2; exit 1 ;;
esac
if [ "$FORCE" = "0" ] && [ -e "$PREFIX" ]; then
    printf "ERROR: File or directory already exists: '%s'\n" "$PREFIX" >&2
    printf "If you want to update an existing installation, use the -u option.\n" >&2
    exit 1
fi
if ! mkdir -p "$PREFIX"; then
    printf "ERROR: Could not create directory: '%s'.\n" "$PREFIX" >&2
    exit 1
fi
total_kb=@TOTAL_KB@
free_kb="$(df -Pk "$PREFIX" | tail -n 1 | awk '{print $4}')"
if [ "$((free_kb - 50 * 1024))" -lt "$total_kb" ]; then
    printf "ERROR: Not enough free disk space. Only %s MB are available, but %s MB are required (leaving a 50 MB buffer).\n" \
        "$(((free_kb - 50 * 1024) / 1024))" "$((total_kb / 1024))" >&2
    exit 1
fi

THIS_PATH="$(cd "$(dirname "$0")"; pwd)/$(basename "$0")"
PREFIX="$(cd "$PREFIX"; pwd)"
printf "PREFIX=%s\n" "$PREFIX"
boundary=@HEADER_SIZE@

printf "Unpacking bootstrapper...\n"
tail -c "+$((boundary + 1))" "$THIS_PATH" | head -c "@PAYLOAD_SIZE@" | sha256sum | grep -q "^@PAYLOAD_SHA256@" || \
    printf "WARNING: sha256sum mismatch of tar archive\n" >&2
mkdir -p "$PREFIX/install_tmp" "$PREFIX/conda-meta"
touch "$PREFIX/_conda"
# What the new base replaces: the files of older versions of the same packages.
for old in "$PREFIX"/conda-meta/*.json; do
    [ -e "$old" ] && mv "$old" "$PREFIX/install_tmp/"
done

printf "Unpacking payload...\n"
tail -c "+$((boundary + 1))" "$THIS_PATH" | tar -C "$PREFIX" --no-same-owner -xzf -

printf "\nInstalling base environment...\n\n"
for file in bin/conda bin/activate condabin/conda bin/pip etc/profile.d/conda.sh etc/fish/conf.d/conda.fish; do
    sed -i "s|@PREFIX[@]|$PREFIX|g" "$PREFIX/$file"
done
[ "$(id -u)" -eq 0 ] || touch "$PREFIX/.nonadmin"
mkdir -p "$PREFIX/envs"
date "+==> %Y-%m-%d %H:%M:%S <==" >> "$PREFIX/conda-meta/history"
[ "$SKIP_SCRIPTS" = "0" ] || printf "WARNING: skipping post_install.sh by user request\n" >&2
rm -rf "$PREFIX/install_tmp"
[ "$KEEP_PKGS" = "1" ] || rm -rf "$PREFIX/pkgs"
printf "installation finished.\n"
exit 0
# shellcheck disable=SC2317  # the mark behind which the payload begins, and never a command
@@END_HEADER@@
