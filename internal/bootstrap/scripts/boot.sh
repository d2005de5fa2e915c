#!/bin/sh
# Run by cloud-init at each boot, last. Above stands: many ("yes" with several nodes).
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DEBIAN_FRONTEND=noninteractive

# First of all: this node ends, whatever comes.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl enable --now skyport-lease.service
else
	setsid /usr/local/lib/skyport/lease </dev/null >/dev/null 2>&1 &
fi

want=
command -v docker >/dev/null || command -v podman >/dev/null || want="docker.io"
if [ "$many" = yes ]; then
	command -v sshfs >/dev/null || want="$want sshfs"
	[ -x /usr/sbin/exportfs ] || want="$want nfs-kernel-server"
fi
if [ -n "$want" ] && command -v apt-get >/dev/null; then
	apt="apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold"
	$apt update
	$apt --no-install-recommends install $want
fi

# Podman stands in for Docker, for the same group; its command may be called docker.
# It stays: each new start of it would cost the jobs a second.
engine() {
	for unit in socket service; do
		mkdir -p /etc/systemd/system/podman.$unit.d
	done
	printf '[Socket]\nSocketGroup=docker\nSocketMode=0660\n' >/etc/systemd/system/podman.socket.d/skyport.conf
	printf '[Service]\nExecStart=\nExecStart=%s system service --time=0\n' "$(command -v podman)" >/etc/systemd/system/podman.service.d/skyport.conf
	systemctl daemon-reload
	systemctl stop podman.service podman.socket
	install -d -m 0750 -g docker /run/podman
	systemctl start podman.socket podman.service
}

if [ -d /run/systemd/system ]; then
	if systemctl cat docker.service >/dev/null 2>&1; then
		systemctl start docker
	elif command -v podman >/dev/null; then
		engine
	fi
fi
mkdir -p /run/skyport
: >/run/skyport/ready
