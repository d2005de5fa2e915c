# Above stand: dir, name (this node), main (its name), count (of nodes), and the
# functions key, known_hosts, config, addresses that print what is written here.
root=/usr/local/sbin/skyport-node
shared=$dir/shared

note() {
	echo "$*" >&2
}

# The whole file or the old one, also when two write at once.
put() {
	cat >"$dir/ssh/.$1.$$" && mv -f "$dir/ssh/.$1.$$" "$dir/ssh/$1"
}

mounted() {
	grep -qF " $shared " /proc/self/mountinfo
}

# On a machine with our user data: installs of cloud-init that are still to come.
ready() {
	command -v sshfs >/dev/null && [ -x /usr/sbin/exportfs ] && return 0
	tries=0
	while [ ! -e /run/skyport/ready ] && [ $tries -lt 1500 ]; do
		sleep 0.2
		tries=$((tries + 1))
	done
}

# How main shares, once it knows.
asked() {
	ssh -F "$dir/ssh/config" "$main" "cat '$dir/ssh/export'" 2>"$dir/ssh/shared.log"
}

# By SSH, again until main's directory is there: main may boot, or have its hands full.
by_sshfs() {
	command -v sshfs >/dev/null || { note "shared directory: $name has no sshfs: install the package sshfs"; return 1; }
	[ -w /dev/fuse ] || { note "shared directory: $name has no FUSE that its user may use (/dev/fuse)"; return 1; }
	options=reconnect,idmap=user,dir_cache=no,attr_timeout=0,entry_timeout=0,negative_timeout=0,ac_attr_timeout=0
	grep -q '^user_allow_other' /etc/fuse.conf 2>/dev/null && options=$options,allow_other
	until sshfs -F "$dir/ssh/config" "$main:$shared" "$shared" -o "$options" >/dev/null 2>"$dir/ssh/shared.log" 9>&-; do
		mounted && return 0
		late && { note "shared directory: $name cannot mount that of $main: $(tail -n 3 "$dir/ssh/shared.log")"; return 1; }
		sleep "0.$((2 + $$ % 7))"
	done
}

late() {
	[ "$(date +%s)" -ge "$deadline" ]
}

share() {
	deadline=$(($(date +%s) + 45))
	nfs=
	if [ -x $root ]; then
		ready
		[ "$name" != "$main" ] || mkdir -p "$shared"
		nfs=$(addresses | sudo -n $root join "$name" 9>&-) || { note "hosts file: sudo $root join failed on $name"; return 1; }
	fi
	if [ "$name" = "$main" ]; then
		mkdir -p "$shared" && echo "${nfs:-sshfs}" | put export
		return
	fi
	if mounted; then
		timeout 10 ls -d "$shared/." >/dev/null 2>&1 && return 0
		fusermount3 -uz "$shared" 2>/dev/null || fusermount -uz "$shared" 2>/dev/null || :
	fi
	mounted || mkdir -p "$shared" || return 1
	if [ "$nfs" = nfs ]; then
		until nfs=$(asked); do
			late && { note "shared directory: $main does not say how it shares: $(tail -n 3 "$dir/ssh/shared.log")"; return 3; }
			sleep "0.$((2 + $$ % 7))"
		done
		if [ "$nfs" = nfs ]; then
			until sudo -n $root mount >/dev/null 2>"$dir/ssh/shared.log" 9>&-; do
				late && { note "shared directory: $name cannot mount that of $main: $(tail -n 3 "$dir/ssh/shared.log")"; return 3; }
				sleep 0.5
			done
			return 0
		fi
	fi
	by_sshfs || return 3
}

join() {
	umask 077
	mkdir -p "$dir/ssh" || return 1
	key | put id_ed25519 && known_hosts | put known_hosts && config | put config || { note "ssh: $dir/ssh cannot be written on $name"; return 1; }
	[ "$count" -gt 1 ] || [ -x $root ] || return 0
	exec 9>"$dir/ssh/lock"
	if command -v flock >/dev/null; then
		flock -w 120 9 || { note "another join of $name does not end"; return 1; }
	fi
	if [ "$count" = 1 ]; then
		addresses | sudo -n $root join "$name" 9>&- >/dev/null
		return
	fi
	share
}
join </dev/null
