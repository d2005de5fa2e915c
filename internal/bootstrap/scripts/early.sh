# Run by cloud-init at each boot before sshd starts: the user, the directories,
# the disk. Above stand: life (seconds), name (of this node).
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
user=skyport dir=/var/lib/skyport blocks=/sys/block

# A container sees the disks of its machine; they are not its own.
contained() {
	[ -n "${container:-}" ] || [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ -e /run/systemd/container ] ||
		systemd-detect-virt --container --quiet 2>/dev/null
}

# The first disk with nothing at all on it: no partition, no signature of anything,
# no first bytes, in use by nobody. In doubt it is not taken.
empty_disk() {
	for block in "$blocks"/*; do
		device=/dev/${block##*/}
		case ${block##*/} in
			nvme*c*) continue ;;
			sd* | vd* | xvd* | nvme*n*) ;;
			*) continue ;;
		esac
		[ -b "$device" ] && [ "$(cat "$block/ro")" = 0 ] && [ "$(cat "$block/removable")" = 0 ] || continue
		[ "$(cat "$block/size")" -ge 8388608 ] || continue # 4 GiB
		[ -z "$(ls "$block/holders")" ] || continue
		for part in "$block"/*/partition; do [ -e "$part" ] && continue 2; done
		grep -q "^$device" /proc/mounts /proc/swaps && continue
		blkid -p "$device" >/dev/null 2>&1
		[ $? = 2 ] || continue
		cmp -s -n 4194304 "$device" /dev/zero || continue
		echo "$device"
		return 0
	done
	return 1
}

# A directory moves to the disk while it is empty; what lies in one stays seen.
settle() {
	mkdir -p "$2" "$1"
	mountpoint -q "$2" || [ -n "$(ls -A "$2")" ] || mount --bind "$1" "$2"
}

scratch() {
	at=/mnt/skyport
	if ! mountpoint -q $at; then
		if ! device=$(blkid -L skyport-scratch); then
			device=$(empty_disk) || return 0
			mkfs.ext4 -q -F -m 0 -L skyport-scratch "$device" </dev/null || return 0
		fi
		mkdir -p $at
		mount -o noatime "$device" $at || return 0
	fi
	settle $at/node $dir
	settle $at/docker /var/lib/docker
	settle $at/containers /var/lib/containers
}

getent group docker >/dev/null || groupadd --system docker
id $user >/dev/null 2>&1 || useradd --create-home --user-group --groups docker --shell /bin/bash $user
contained || scratch
install -d -m 0700 -o $user -g $user $dir
install -d -m 0755 /run/skyport

# As the user, whose directory it is: root follows no link that lies there.
setpriv --reuid=$user --regid=$user --clear-groups sh -c 'umask 077; [ -e "$1" ] || echo "$2" >"$1"' sh \
	$dir/lease $(($(date +%s) + life))

grep -qw "$name" /etc/hosts || echo "127.0.1.1 $name" >>/etc/hosts
grep -qx user_allow_other /etc/fuse.conf 2>/dev/null || echo user_allow_other >>/etc/fuse.conf

# Containers outlive their engine. An image that has settings keeps them.
engine=/etc/docker/daemon.json
mkdir -p /etc/docker
if [ ! -s $engine ]; then
	echo '{"live-restore": true}' >$engine
elif ! grep -q live-restore $engine; then
	python3 -c 'import json, sys
path = sys.argv[1]
settings = json.load(open(path))
settings["live-restore"] = True
json.dump(settings, open(path, "w"), indent=2)' $engine
fi
exit 0
