#!/bin/sh
# STAND-IN for Docker's package repository, for a lab host (run there as root, on Debian 13).
#
#   sh docker_repository.sh FOLDER
#
# makes in FOLDER/linux/debian a signed apt repository of the layout of download.docker.com, and prints its key's fingerprint.
# In its packages is what Debian's own docker.io, docker-cli, containerd and runc hold, under Docker's names and at the
# versions below: a real engine, whose own version number is Debian's. What is real: the layout, the signature, names,
# versions, the packages' units and scripts. The real thing replaces all this by not running it.
set -eu
folder=$1/linux/debian
. /etc/os-release
arch=$(dpkg --print-architecture)
suffix="1~debian.$VERSION_ID~$VERSION_CODENAME"
export DEBIAN_FRONTEND=noninteractive GNUPGHOME=/root/.devnode-docker-gpg

apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends apt-utils gpg gpg-agent >/dev/null
work=$(mktemp -d)
chmod 0755 "$work"
cd "$work"
apt-get download -q docker.io docker-cli containerd runc >/dev/null 2>&1

# made NAME VERSION DEPENDS CONFLICTS DEBIAN'S_PACKAGE...: the first one's scripts, the files of all
made() {
  name=$1 version=$2 depends=$3 conflicts=$4
  shift 4
  rm -rf tree
  mkdir tree
  if [ $# -gt 0 ]; then
    dpkg-deb --control "$(ls "$1"_*.deb)" tree/DEBIAN
    for one; do dpkg-deb --extract "$(ls "${one}"_*.deb)" tree; done
  else
    mkdir tree/DEBIAN
  fi
  rm -f tree/DEBIAN/md5sums
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$name" "$version" "$arch"
    printf 'Maintainer: devnode.gpu lab <lab@example.invalid>\nDescription: STAND-IN for %s\n' "$name"
    [ -z "$depends" ] || printf 'Depends: %s\n' "$depends"
    [ -z "$conflicts" ] || printf 'Conflicts: %s\nReplaces: %s\n' "$conflicts" "$conflicts"
  } >tree/DEBIAN/control
  dpkg-deb --root-owner-group -Znone --build tree "$pool/${name}_${version#*:}_$arch.deb" >/dev/null
}
pool=$folder/dists/$VERSION_CODENAME/pool/stable/$arch
mkdir -p "$pool"
made docker-ce "5:28.5.2-$suffix" 'containerd.io, docker-ce-cli, iptables, libc6, libsystemd0' docker.io docker.io
made docker-ce-cli "5:28.5.2-$suffix" libc6 'docker-cli, docker.io' docker-cli
made containerd.io "1.7.24-$suffix" 'libc6, libseccomp2' 'containerd, runc' containerd runc
made docker-buildx-plugin "0.30.0-$suffix" '' ''
# Newer ones, which nobody asks for.
made docker-ce "5:29.0.0-$suffix" 'containerd.io, docker-ce-cli' docker.io
made docker-ce-cli "5:29.0.0-$suffix" '' docker-cli

cd "$folder"
index=dists/$VERSION_CODENAME/stable/binary-$arch
mkdir -p "$index"
apt-ftparchive packages "dists/$VERSION_CODENAME/pool" >"$index/Packages"
mkdir -p "$GNUPGHOME" && chmod 0700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key "devnode.gpu lab, stand-in for Docker's repository" rsa3072 sign never
gpg --batch --quiet --armor --export >./gpg
apt-ftparchive -o APT::FTPArchive::Release::Suite="$VERSION_CODENAME" -o APT::FTPArchive::Release::Components=stable \
  -o APT::FTPArchive::Release::Codename="$VERSION_CODENAME" -o APT::FTPArchive::Release::Architectures="$arch" \
  release "dists/$VERSION_CODENAME" >/tmp/devnode-release
gpg --batch --quiet --digest-algo SHA512 --clearsign --output "dists/$VERSION_CODENAME/InRelease" /tmp/devnode-release
gpg --batch --with-colons --list-keys | sed -n 's/^fpr:*\([0-9A-F]*\):*/\1/p' | head -1
gpgconf --kill all
rm -rf "$work" "$GNUPGHOME" /tmp/devnode-release
