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

if [ -d /run/systemd/system ]; then
	if command -v docker >/dev/null; then
		systemctl start docker
	elif command -v podman >/dev/null; then
		loginctl enable-linger skyport
		systemctl --user --machine=skyport@ enable --now podman.socket
	fi
fi
mkdir -p /run/skyport
: >/run/skyport/ready
