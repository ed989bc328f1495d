#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# While the image is built: Miniconda, verified, and the declared environment. Reads what lies in conda/ beside it.
set -eu
here="$(dirname "$0")/conda"
. "$here/settings"
curl -fsSL --retry 3 -o /tmp/installer.sh "$URL"
printf '%s  /tmp/installer.sh\n' "$SHA256" | sha256sum --check --quiet - || {
    echo "conda.sh: the installer from $URL does not have the sha256 that pytorch_sshd_conda says; it was not run." >&2
    exit 1
}
bash /tmp/installer.sh -b -p /opt/conda
rm /tmp/installer.sh
install -m 0644 "$here/condarc" /opt/conda/.condarc
# A build sees no driver; what was asked for stands in for it.
if [ -n "$CUDA" ]; then export CONDA_OVERRIDE_CUDA="$CUDA"; fi
if [ -n "${PIP_INDEX_URL:-}" ]; then export PIP_INDEX_URL; fi
target="--prefix /opt/conda/envs/workspace --quiet --yes"
# shellcheck disable=SC2086  # words without blanks of their own
if [ -e "$here/lock.txt" ]; then
    /opt/conda/bin/conda create $target --file "$here/lock.txt"
    if [ -e "$here/requirements.txt" ]; then
        /opt/conda/bin/python -m pip --python /opt/conda/envs/workspace/bin/python install --quiet --no-cache-dir \
            --no-deps --require-hashes --requirement "$here/requirements.txt"
    fi
else
    /opt/conda/bin/conda env create $target --file "$here/environment.yml"
fi
# What was downloaded is unpacked now.
rm -rf /opt/conda/pkgs/* /root/.cache
