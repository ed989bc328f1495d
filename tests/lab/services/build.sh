#!/bin/sh
# Runs inside the image's build.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends docker-registry dnsmasq git openssl skopeo
apt-get clean
rm -rf /var/lib/apt/lists/*

# The git account can do git and nothing else; which keys open it is said when the lab comes up.
useradd --create-home --home-dir /srv/git --shell /usr/bin/git-shell --uid 1001 git
usermod --password '*' git
git config --system init.defaultBranch main

cp /tmp/registry.yml /etc/docker/registry/config.yml
cp /tmp/dnsmasq.conf /etc/dnsmasq.d/lab.conf
cp /tmp/units/*.service /etc/systemd/system/
chmod 0755 /usr/local/sbin/lab-services
systemctl enable lab-packages.service dnsmasq.service
# It needs its certificate first: lab-services starts it.
systemctl disable docker-registry.service
rm -rf /tmp/build.sh /tmp/units /tmp/registry.yml /tmp/dnsmasq.conf
