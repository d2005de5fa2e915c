# Runs inside the new root, with the names of the packages to install.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# Nothing starts while it is built.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
apt-get -q -o Acquire::Retries=3 update
apt-get -q -y --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Options::=--force-unsafe-io install "$@"
rm /usr/sbin/policy-rc.d

# Docker's rules need one kind of iptables; the older works on every kernel.
update-alternatives --set iptables /usr/sbin/iptables-legacy
update-alternatives --set ip6tables /usr/sbin/ip6tables-legacy

# Every node has its own keys and names.
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id
: >/etc/machine-id
mkdir -p /run/sshd

# cloud-init looks for nothing but the seed that the gate lays down.
rm -f /etc/cloud/cloud.cfg.d/*
mkdir -p /var/lib/cloud/seed/nocloud

# What nobody reads on a node.
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*.log /var/log/apt \
	/var/cache/ldconfig/aux-cache /usr/share/doc /usr/share/man /usr/share/info /usr/share/lintian /usr/share/locale /usr/share/i18n
rm -rf /tmp/* /var/tmp/*

# Python that need not be compiled at each boot.
find / -xdev -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.11 || true
