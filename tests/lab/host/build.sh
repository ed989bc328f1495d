#!/bin/sh
# Runs inside the image's build: SUITE MIRROR SECURITY_MIRROR.
set -eu
suite=$1 mirror=$2 security=$3
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
export DEBIAN_FRONTEND=noninteractive

# Container images refuse service starts and throw packages away; a host does neither.
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-* /etc/dpkg/dpkg.cfg.d/docker-* /etc/apt/sources.list
cat >/etc/apt/sources.list.d/debian.sources <<EOF
Types: deb
URIs: $mirror
Suites: $suite $suite-updates
Components: main
Signed-By: $keyring

Types: deb
URIs: $security
Suites: $suite-security
Components: main
Signed-By: $keyring
EOF

apt-get update -q
apt-get install -q -y --no-install-recommends \
  systemd systemd-sysv dbus libpam-systemd openssh-server openssh-sftp-server sudo python3 python3-apt \
  ca-certificates curl iproute2 iputils-ping procps less netbase kmod
apt-get clean
rm -rf /var/lib/apt/lists/*

# What cloud-init does: the account of the automation, and passwords allowed by a drop-in.
useradd --create-home --shell /bin/bash --uid 1000 automation
usermod --password '*' automation
install -d -m 0755 /etc/ssh/sshd_config.d
printf 'PasswordAuthentication yes\n' >/etc/ssh/sshd_config.d/50-cloud-init.conf
chmod 0600 /etc/ssh/sshd_config.d/50-cloud-init.conf
printf 'automation ALL=(ALL) NOPASSWD:ALL\n' >/etc/sudoers.d/90-cloud-init-users
chmod 0440 /etc/sudoers.d/90-cloud-init-users

printf 'LANG=C.UTF-8\n' >/etc/default/locale

# Every host makes its own identity at its first boot.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
cp /tmp/units/*.service /etc/systemd/system/
systemctl enable lab-first-boot.service lab-network-settings.service lab-nested-engine.service lab-resolver.service
# The console belongs to the container engine.
systemctl mask console-getty.service getty@tty1.service
rm -rf /tmp/build.sh /tmp/units
