#!/bin/sh
# The few things that a node's user may do as root. Everything that comes in is
# held against what it must be; the names of the nodes are known beforehand.
# Above stands: nodes (their names, main first, blanks between).
#
#   skyport-node join NAME          this node is NAME; stdin: "ADDRESS NODE" lines, main first.
#                                   Hosts file; main exports its shared directory by NFS where the
#                                   kernel can. Prints "nfs" if this node can export or mount.
#   skyport-node mount              mounts the shared directory of main by NFS
#   skyport-node registry-ca HOST   stdin: certificates that the engine trusts HOST by
#   skyport-node mount-storage NAME    stdin: "account X", "container X", "endpoint URL", "sas X", a line
#                                   each; mounts that container of blobs read-only for everybody on the node
#   skyport-node unmount-storage NAME
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022
user=skyport dir=/var/lib/skyport run=/run/skyport export=/srv/skyport/shared storages=/srv/skyport/storage

fail() {
	echo "skyport-node: $*" >&2
	exit 1
}

known() {
	case " $nodes " in *" $1 "*) ;; *) return 1 ;; esac
}

# All of stdin, if it is not too long, in a file of root's.
take() {
	taken=$(mktemp "$run/in.XXXXXX") || exit 1
	trap 'rm -f "$taken" "$taken.new"' EXIT
	head -c 65537 >"$taken"
	[ "$(wc -c <"$taken")" -le 65536 ] || fail "more than 64 KiB on stdin"
}

# mktemp's directory is root's own; it is made by cloud-init and after each boot.
install -d -m 0755 -o root -g root "$run"

hosts() {
	{
		sed -e '/^# skyport: nodes$/,/^# skyport: end$/d' -e "/^127\.0\.1\.1[[:space:]]\{1,\}$1\$/d" /etc/hosts
		echo '# skyport: nodes'
		cat "$run/nodes"
		echo '# skyport: end'
	} >"$taken.new"
	cmp -s "$taken.new" /etc/hosts && return 0
	if mountpoint -q /etc/hosts; then
		cat "$taken.new" >/etc/hosts # a container's cannot be replaced
	else
		install -m 0644 "$taken.new" /etc/hosts.skyport && mv /etc/hosts.skyport /etc/hosts
	fi
}

# Stands in the shared directory itself, not in what a link there leads to.
enter() {
	cd -P "$dir/shared" 2>/dev/null && [ "$(pwd -P)" = "$dir/shared" ] && [ "$(stat -c %U .)" = "$user" ]
}

speaks() {
	grep -qw "$1" /proc/filesystems || { modprobe -q "$1" && grep -qw "$1" /proc/filesystems; } 2>/dev/null
}

export_shared() {
	speaks nfsd && [ -x /usr/sbin/exportfs ] || return 1
	mountpoint -q "$export" || {
		mkdir -p "$export" && (enter && mount --bind . "$export") || return 1
	}
	options="rw,async,no_subtree_check,fsid=1,all_squash,anonuid=$(id -u $user),anongid=$(id -g $user)"
	line=$export
	while read -r address node; do
		[ "$node" = "$1" ] || line="$line $address($options)"
	done <"$run/nodes"
	read -r address _ <"$run/nodes"
	mkdir -p /etc/exports.d /etc/nfs.conf.d
	echo "$line" >/etc/exports.d/skyport.exports
	printf '[nfsd]\nhost=%s\nvers3=n\n' "$address" >/etc/nfs.conf.d/skyport.conf
	if [ -d /run/systemd/system ]; then
		systemctl restart nfs-server 9>&- || return 1
	elif ! pidof rpc.mountd >/dev/null; then
		mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd || return 1
		rpc.nfsd 8 9>&- && rpc.mountd 9>&- || return 1
	fi
	exportfs -ra
}

join() {
	known "$1" || fail "join: this partition has no node $1"
	take
	ok=0
	: >"$taken.new"
	while read -r address node rest; do
		case $address in
			'' | *[!0-9a-fA-F.:]*) fail "join: not an IP address: $address" ;;
			127.* | ::1 | 0.* | ::) fail "join: not an address in a network: $address" ;;
			*.*:* | *:*.*) fail "join: not an IP address: $address" ;;
			*.*.*.* | *:*) ;;
			*) fail "join: not an IP address: $address" ;;
		esac
		[ -z "$rest" ] && known "$node" || fail "join: this partition has no node $node"
		[ "$node" != "$1" ] || ok=1
		echo "$address $node" >>"$taken.new"
	done <"$taken"
	[ $ok = 1 ] || fail "join: no address for $1"
	mv "$taken.new" "$run/nodes"
	chmod 0644 "$run/nodes"
	hosts "$1" || fail "join: the hosts file cannot be written"
	read -r _ main <"$run/nodes"
	if [ "$main" = "$1" ]; then
		[ "$(wc -l <"$run/nodes")" -gt 1 ] && export_shared "$1" >&2 && echo nfs
	else
		[ -x /sbin/mount.nfs4 ] && speaks nfs4 && echo nfs
	fi
	return 0
}

mount_shared() {
	[ -r "$run/nodes" ] || fail "mount: this node has not joined"
	read -r address _ <"$run/nodes"
	case $address in *:*) address="[$address]" ;; esac
	if mountpoint -q "$dir/shared"; then
		timeout 10 stat -f "$dir/shared" >/dev/null && return 0
		umount -l "$dir/shared"
	fi
	enter || fail "mount: $dir/shared is no directory of $user"
	timeout 60 mount -t nfs4 -o vers=4.2,hard,noatime,nosuid,nodev,lookupcache=none,actimeo=0 "$address:$export" "$dir/shared"
}

registry_ca() {
	[ ${#1} -le 255 ] || fail "registry-ca: a name too long"
	echo "$1" | grep -Eqx '[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:[0-9]{1,5})?' ||
		fail "registry-ca: not the name of a registry: HOST or HOST:PORT"
	[ "$(echo "$1" | wc -l)" = 1 ] || fail "registry-ca: not the name of a registry"
	take
	grep -Evqx -e '-----(BEGIN|END) CERTIFICATE-----|[A-Za-z0-9+/=]{1,76}|' "$taken" &&
		fail "registry-ca: something else than certificates in PEM on stdin"
	grep -qx -e '-----BEGIN CERTIFICATE-----' "$taken" && grep -qx -e '-----END CERTIFICATE-----' "$taken" ||
		fail "registry-ca: no certificate in PEM on stdin"
	for engine in docker containers; do
		[ $engine = docker ] || [ -d /etc/$engine ] || continue
		install -d -m 0755 "/etc/$engine/certs.d/$1" &&
			install -m 0644 "$taken" "/etc/$engine/certs.d/$1/.ca" &&
			mv "/etc/$engine/certs.d/$1/.ca" "/etc/$engine/certs.d/$1/ca.crt" ||
			fail "registry-ca: /etc/$engine/certs.d/$1/ca.crt cannot be written"
	done
}

# Names of directories, and nothing that leads out of one.
named() {
	case $1 in '' | -* | *- | *[!a-z0-9-]*) fail "not the name of a storage: small letters, digits and dashes" ;; esac
	[ ${#1} -le 63 ] || fail "the name of a storage is too long"
	at=$storages/$1 config=$run/storage/$1.yaml cache=/var/cache/skyport/$1
	! mountpoint -q /mnt/skyport || cache=/mnt/skyport/cache/$1
}

# The value of a line of stdin, if it is what it must be, whole.
value() {
	text=$(sed -n "s/^$1 //p" "$taken")
	# The length apart: grep takes long over a repetition that is bounded by thousands.
	[ "$(echo "$text" | wc -l)" = 1 ] && [ ${#text} -le 4000 ] && echo "$text" | grep -Eqx -e "$2" ||
		fail "mount-storage: no $1, or not one"
	echo "$text"
}

# From Microsoft's repository, as
# https://learn.microsoft.com/azure/storage/blobs/blobfuse2-how-to-deploy has it.
blobfuse() {
	command -v blobfuse2 >/dev/null && return 0
	advice="use an image that has blobfuse2"
	command -v apt-get >/dev/null || fail "this node has no blobfuse2, and no apt-get to install it: $advice"
	url=$(. /etc/os-release && echo "https://packages.microsoft.com/config/$ID/$VERSION_ID/packages-microsoft-prod.deb")
	export DEBIAN_FRONTEND=noninteractive
	apt="apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold"
	{
		command -v curl >/dev/null || { $apt update && $apt --no-install-recommends install ca-certificates curl; }
		curl -fsSL --proto =https --retry 3 --max-time 120 -o "$run/storage/repository.deb" "$url" && dpkg -i "$run/storage/repository.deb" &&
			$apt update && $apt --no-install-recommends install blobfuse2
	} </dev/null >"$run/storage/install.log" 2>&1 9>&- || fail "blobfuse2 cannot be installed from $url ($advice): $(tail -n 2 "$run/storage/install.log")"
}

mount_storage() {
	named "$1"
	take
	account=$(value account '[a-z0-9]{3,24}') || exit 1
	container=$(value container '[a-z0-9-]{3,63}') || exit 1
	endpoint=$(value endpoint 'https://[a-z0-9.-]{1,253}') || exit 1
	sas=$(value sas '[A-Za-z0-9%&=._~+/:-]+') || exit 1
	install -d -m 0700 "$run/storage" || fail "$run/storage cannot be made"
	blobfuse
	mkdir -p "$at" && install -d -m 0700 "${cache%/*}" "$cache" || fail "$at or $cache cannot be made"
	size=$(($(df -Pm "$cache" | awk 'NR == 2 { print $4 }') / 2))
	(
		umask 077
		cat >"$taken.new" <<END
# storage: $account/$container at $endpoint
read-only: true
allow-other: true
logging:
  type: syslog
  level: log_warning
components: [libfuse, file_cache, attr_cache, azstorage]
file_cache:
  path: '$cache'
  timeout-sec: 600
  max-size-mb: $size
attr_cache:
  timeout-sec: 600
azstorage:
  type: block
  mode: sas
  account-name: '$account'
  container: '$container'
  endpoint: '$endpoint'
  sas: '$sas'
END
	) || fail "the configuration of $1 cannot be written"
	if mountpoint -q "$at"; then
		# Who is there takes the new signature from its file by itself.
		[ "$(head -n 1 "$config" 2>/dev/null)" = "$(head -n 1 "$taken.new")" ] && timeout 20 stat -f "$at" >/dev/null 2>&1 &&
			mv "$taken.new" "$config" && return 0
		timeout 30 umount -l "$at" || fail "$at holds another storage that does not go"
	fi
	mv "$taken.new" "$config" || fail "$config cannot be written"
	said=$(HOME=/root timeout 90 blobfuse2 mount "$at" --config-file="$config" --read-only --allow-other --disable-version-check \
		2>&1 </dev/null 9>&-) && mountpoint -q "$at" && timeout 30 ls "$at" >/dev/null 2>&1 &&
		mount -i -o remount,bind,ro,nosuid,nodev "$at" && return 0
	unmount_storage "$1"
	fail "container $container of the storage account $account cannot be mounted: $(echo "$said" | tail -n 2 | sed 's/sig=[^& ]*/sig=.../g')"
}

unmount_storage() {
	named "$1"
	if mountpoint -q "$at"; then
		timeout 30 umount "$at" 2>/dev/null || timeout 30 umount -l "$at" || fail "$at cannot be unmounted"
	fi
	rm -f "$config"
	rm -rf "$cache"
	[ ! -d "$at" ] || rmdir "$at"
}

# Installing takes its time; who joins does not wait for it.
case ${1:-} in
	*-storage) exec 9>"$run/storage.lock" ;;
	*) exec 9>"$run/lock" ;;
esac
flock -w 120 9 || fail "another skyport-node does not end"
case $#:${1:-} in
	2:join) join "$2" ;;
	1:mount) mount_shared ;;
	2:registry-ca) registry_ca "$2" ;;
	2:mount-storage) mount_storage "$2" ;;
	2:unmount-storage) unmount_storage "$2" ;;
	*) fail "usage: skyport-node join NAME | mount | registry-ca HOST | mount-storage NAME | unmount-storage NAME" ;;
esac
