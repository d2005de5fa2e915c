# Sky Port sets a node up. The shell reads all of this before anything runs, so
# that standard input is free for what core answers.

say() { printf 'skyport: %s\n' "$*"; }
fail() { say "fail $*"; exit 1; }
last() { tail -n 3 "$1" 2>/dev/null | tr '\n' ' ' | tail -c 600; }

# lives PID: whether that is a worker of this directory.
lives() {
	case $1 in '' | *[!0-9]*) return 1 ;; esac
	comm=
	{ read -r comm <"/proc/$1/comm"; } 2>/dev/null
	[ "$comm" = skyport-worker- ] || return 1 # the kernel cuts names
	# read leaves out the NULs between the words, and takes no process.
	cmdline=
	{ IFS= read -r cmdline <"/proc/$1/cmdline"; } 2>/dev/null
	case $cmdline in
	"$dir/bin/skyport-worker-"*"serve--dir$dir--node"*) return 0 ;;
	esac
	return 1
}

# find: pid is that of the worker, or empty.
find() {
	pid=
	{ read -r pid <"$dir/worker.pid"; } 2>/dev/null
	lives "$pid" && return
	pid=
	for p in /proc/[0-9]*; do
		lives "${p#/proc/}" && pid=${p#/proc/} && return
	done
}

is_right() {
	[ "$(sha256sum 2>/dev/null <"$1" | cut -c 1-64)" = "$hash" ]
}

# place FILE: FILE becomes the worker's binary.
place() {
	is_right "$1" || return 1
	chmod 700 "$1" && mv -f "$1" "$bin"
}

# unpack FORM: from standard input to standard output.
unpack() {
	case $1 in
	zst) zstd -dcq ;;
	gz) gzip -dc ;;
	*) cat ;;
	esac
}

# obtain: the worker's binary, from the main node or from core.
obtain() {
	pack=gz
	command -v zstd >/dev/null 2>&1 && pack=zst
	temp=$bin.$$
	trap 'rm -f "$temp" "$temp.pack"' EXIT
	say "need $arch $pack"
	read -r answer form || exit 1
	if [ "$answer" = fetch ]; then
		from=$main_bin-$short # quoted for the other shell already
		[ "$form" = plain ] || from=$from.$form
		for try in 1 2; do
			# No secret is sent, and many nodes do this at once: the cheapest algorithms first.
			ssh -F "$dir/ssh/config" -o BatchMode=yes -o ConnectTimeout=10 -o KexAlgorithms=^curve25519-sha256 \
				-o Ciphers=^aes128-gcm@openssh.com "$main" "cat $from" \
				2>"$temp.pack" </dev/null | unpack "$form" 2>/dev/null >"$temp"
			place "$temp" && say "got fetched" && return
		done
		say "unfetched $(last "$temp.pack")"
		read -r answer form || exit 1
	fi
	# Unpacked while it arrives; whether all is well shows in the sum of the file.
	said=$({ tee "$temp.pack" | unpack "$form" >"$temp"; } 2>&1)
	place "$temp" || fail "the worker did not arrive whole in $dir/bin: $(printf %.200s "$said")"
	[ "$keep" = yes ] && mv -f "$temp.pack" "$bin.$form"
	say "got uploaded"
}

stop() {
	kill "$pid" 2>/dev/null
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		lives "$pid" || return
		sleep 0.1
	done
	for i in 1 2 3 4 5 6 7 8; do
		lives "$pid" || return
		sleep 1
	done
	kill -9 "$pid" 2>/dev/null
}

start() {
	[ "$(wc -c 2>/dev/null <"$dir/worker.log")" -gt 10000000 ] 2>/dev/null && mv -f "$dir/worker.log" "$dir/worker.log.1"
	rm -f "$dir/worker.sock"
	{
		umask "$mask"
		exec setsid "$bin" serve --dir "$dir" --node "$node"
	} </dev/null >>"$dir/worker.log" 2>&1 &
	pid=$!
	echo "$pid" >"$dir/worker.pid"
	i=0
	until [ -S "$dir/worker.sock" ]; do
		kill -0 "$pid" 2>/dev/null || fail "the worker does not start: $(last "$dir/worker.log")"
		i=$((i + 1))
		case $i in
		[1-4]) sleep 0.01 ;;
		?) sleep 0.04 ;;
		?? | 1??) sleep 0.1 ;;
		*) fail "the worker started, but does not answer: $(last "$dir/worker.log")" ;;
		esac
	done
}

# joined CODE: what came of joining.
joined() {
	case $1 in
	0) printf '%s\n' "$mark" >"$dir/joined" ;;
	3) printf '%s\n' "$mark" >"$dir/joined" && say "unshared $(last "$dir/join.log")" ;;
	*) fail "join the other nodes: $(last "$dir/join.log")" ;;
	esac
}

setup() {
	mask=$(umask)
	umask 077
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 hash=$hash_amd64 ;;
	aarch64 | arm64) arch=arm64 hash=$hash_arm64 ;;
	*) say "arch $(uname -m)" && exit 1 ;;
	esac
	short=$(printf %.16s "$hash")
	[ -n "$short" ] || { say "arch $arch" && exit 1; }
	bin=$dir/bin/skyport-worker-$short
	if ! [ -d "$dir/bin" ]; then
		said=$(mkdir -p "$dir/bin" 2>&1) || fail "$said"
	fi
	[ -w "$dir" ] && [ -w "$dir/bin" ] || fail "$dir is not writable by $(id -un)"

	# A boot of the node, be it a machine or a container.
	boot= stat=
	{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
	{ read -r stat </proc/1/stat; } 2>/dev/null
	set -- ${stat##*) }
	[ $# -ge 20 ] && shift 19 && boot=$boot-$1

	mark=$boot.$join.$main_boot was= joining=
	{ read -r was <"$dir/joined"; } 2>/dev/null
	if [ -n "$join" ]; then
		if [ "$was" = "$mark" ] && [ "$several" = yes ] && [ -e "$dir/shared" -o -L "$dir/shared" ]; then
			timeout -s KILL 5 ls "$dir/shared" >/dev/null 2>&1 || was=
		fi
		if [ "$was" != "$mark" ]; then
			say "joining"
			join_node </dev/null >"$dir/join.log" 2>&1 &
			joining=$!
			if [ -n "$main" ]; then # the worker may come from there
				wait "$joining"
				joined $?
				joining=
			fi
		fi
	fi

	how=running
	find
	if [ -z "$pid" ] || ! [ "/proc/$pid/exe" -ef "$bin" ] || ! [ -S "$dir/worker.sock" ] || [ "$restart" = yes ]; then
		how=started
		is_right "$bin" || obtain
		[ -n "$pid" ] && how=replaced && stop
		start
	fi
	if [ -n "$joining" ]; then
		wait "$joining"
		joined $?
	fi
	form=plain
	[ -f "$bin.gz" ] && form=gz
	[ -f "$bin.zst" ] && form=zst
	say "ok $how $form $boot"
}
