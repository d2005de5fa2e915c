# What runs on a host: POSIX sh, as the login user, without root. Package ssh puts
# assignments before it (BASE, ID, ...) and the name of one operation after it.
# Operations may be repeated, and be cut off at any point. Their answer is lines on
# standard output that end with "end", or one line "error ...".
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin; export PATH
umask 077
cd / || exit 1
BASE=${BASE:-${HOME:?}/.skyport}
trouble=

die() { printf 'error %s\n' "$(printf %s "$*" | tr '\n' ' ')"; exit 0; }

# limit SECONDS COMMAND...: bounded where the host has the tool for it.
limit() {
  if command -v timeout >/dev/null 2>&1; then timeout "$@"; else shift; "$@"; fi
}

nap() { sleep 0.1 2>/dev/null || sleep 1; }

# The claim is one line of JSON whose first keys stand in a fixed order.
claimed() { sed -n '1s/^{"partition":"\([0-9a-f-]\{36\}\)",.*/\1/p' "$BASE/claim" 2>/dev/null; }
tag_of() { sed -n '1s/^{"partition":"[0-9a-f-]*","lease":[0-9]*,"node":"\([A-Za-z0-9._-]*\)",.*/\1/p' "$BASE/claim" 2>/dev/null; }

lease() {
  end=$(head -n 1 "$BASE/$1/lease" 2>/dev/null | tr -cd 0-9)
  [ -n "$end" ] || end=$(sed -n '1s/^{"partition":"[0-9a-f-]*","lease":\([0-9]*\),.*/\1/p' "$BASE/claim" 2>/dev/null)
  printf %s "${end:-0}"
}

set_lease() { printf '%s\n' "$2" >"$1/lease.$$" && mv "$1/lease.$$" "$1/lease"; }

look() {
  printf 'home %s\nbase %s\nnow %s\n' "$HOME" "$BASE" "$(date +%s)"
  if [ -f "$BASE/claim" ]; then
    printf 'claim '; head -c 100000 "$BASE/claim" | head -n 1
    current=$(claimed)
    if [ -n "$current" ]; then
      printf 'lease %s\n' "$(lease "$current")"
      if [ -e "$BASE/$current/deleting" ]; then echo deleting
      elif [ -e "$BASE/$current/ready" ]; then echo ready; start_watch "$BASE/$current"; fi
    fi
  fi
  if [ -n "${ID-}" ] && [ -e "$BASE/$ID" ]; then echo left; fi
  echo end
}

# --- authorized_keys -------------------------------------------------------

# lines keep|drop TAG: of standard input the lines that end with the tag, or all
# but those, byte by byte; a last line without an end stays without.
lines() {
  while IFS= read -r line; do
    case $line in
    *" skyport:$2") [ "$1" = drop ] || printf '%s\n' "$line" || return 1 ;;
    *) [ "$1" = keep ] || printf '%s\n' "$line" || return 1 ;;
    esac
  done
  case $line in
  *" skyport:$2") [ "$1" = drop ] || printf %s "$line" ;;
  *) [ "$1" = keep ] || printf %s "$line" ;;
  esac
}

# edit_keys TAG FILE: takes the tag's lines out of authorized_keys and puts those
# of FILE (may be empty) before all others, which stay as they are.
edit_keys() {
  keys=$HOME/.ssh/authorized_keys
  if [ -h "$keys" ]; then keys=$(readlink -f "$keys") || { trouble="$HOME/.ssh/authorized_keys leads nowhere"; return 1; }; fi
  if [ ! -e "$keys" ]; then
    [ -s "$2" ] || return 0
    mkdir -p "$HOME/.ssh" && : >>"$keys" && : >"$BASE/made-keys" || { trouble="cannot make $keys"; return 1; }
  fi
  if [ ! -s "$2" ] && ! grep -qF " skyport:$1" "$keys"; then forget_keys; return 0; fi
  tries=0
  until mkdir "$keys.skyport-lock" 2>/dev/null; do # several hosts may share one home
    tries=$((tries + 1))
    if [ $tries -gt 50 ]; then rmdir "$keys.skyport-lock" 2>/dev/null || break; fi
    nap
  done
  done=1
  for tries in 1 2 3 4 5; do
    new=$keys.skyport-new
    old=$keys.skyport-old
    cp -p "$keys" "$new" && cp -p "$keys" "$old" || break
    cat "$2" >"$new" && lines drop "$1" <"$old" >>"$new" || break
    want=$(($(wc -c <"$old") - $(lines keep "$1" <"$old" | wc -c) + $(wc -c <"$2")))
    [ "$(wc -c <"$new")" -eq "$want" ] || break # a full disk
    if [ "$(cksum <"$keys")" = "$(cksum <"$old")" ]; then # nobody else wrote meanwhile
      mv "$new" "$keys" && done=0
      break
    fi
  done
  rm -f "$keys.skyport-new" "$keys.skyport-old"
  rmdir "$keys.skyport-lock" 2>/dev/null
  [ $done = 0 ] || { trouble="cannot write $keys"; return 1; }
  forget_keys
}

# forget_keys removes the file if it was not there before us and is empty again.
forget_keys() {
  if [ -e "$BASE/made-keys" ] && [ ! -s "$keys" ]; then rm -f "$keys" "$BASE/made-keys"; fi
}

# --- the end of a partition ------------------------------------------------

# found DIR: the processes of the partition that live now. They give themselves
# away by their environment, by working or lying in the directory (with a terminal
# it is a person who looks around there), or by their parents.
found() {
  watchdog=$(cat "$1/watchdog.pid" 2>/dev/null)
  runs=
  for run in "$1"/runs/*; do
    case ${run##*/} in '' | '*' | *[!A-Za-z0-9._-]*) ;; *) runs="$runs -e SWM_RUN=${run##*/}" ;; esac
  done
  {
    for file in $(grep -lzF -e "$1/" -e "=$1" /proc/[0-9]*/environ 2>/dev/null); do
      if tr '\0' '\n' <"$file" 2>/dev/null | grep -v -e '^PWD=' -e '^OLDPWD=' -e '^_=' | grep -qF -e "$1/" -e "=$1"; then
        echo "$file" | sed 's|/proc/\([0-9]*\)/.*|mark \1|'
      fi
    done
    # shellcheck disable=SC2086 # a list of options
    [ -z "$runs" ] || grep -lzxF $runs /proc/[0-9]*/environ 2>/dev/null | sed 's|/proc/\([0-9]*\)/.*|mark \1|'
    # shellcheck disable=SC2012 # there is no other way to read many links at once
    ls -l /proc/[0-9]*/cwd /proc/[0-9]*/exe 2>/dev/null |
      sed -n -e "s|^.* /proc/\([0-9]*\)/[a-z]* -> $1/.*|place \1|p" -e "s|^.* /proc/\([0-9]*\)/[a-z]* -> $1\( (deleted)\)*\$|place \1|p"
    if [ -n "$watchdog" ] && [ "$watchdog" != $$ ] && is_watch "$watchdog" "$1"; then echo "mark $watchdog"; fi
    cat /proc/[0-9]*/stat 2>/dev/null |
      sed -n 's/^\([0-9]*\) (.*) \([A-Za-z]\) \([0-9]*\) [-0-9]* [-0-9]* \([-0-9]*\) .*/stat \1 \3 \4 \2/p'
  } | awk -v self=$$ '
    $1 == "mark" { want[$2] }
    $1 == "place" { maybe[$2] }
    $1 == "stat" { parent[$2] = $3; terminal[$2] = $4; state[$2] = $5 }
    END {
      for (p in maybe) if (terminal[p] == "0") want[p]
      do {
        more = 0
        for (p in parent) if (!(p in want) && p != self && parent[p] in want) { want[p]; more = 1 }
      } while (more)
      for (p in want) if (p in parent && p != self && p > 1 && state[p] != "Z") print p
    }'
}

# end_processes DIR: all are stopped before any is killed: what does not run makes
# no children, and a child keeps its parent to be found by.
end_processes() {
  rounds=0
  while :; do
    stopped=
    while :; do
      new=
      for pid in $(found "$1"); do
        case " $stopped " in *" $pid "*) ;; *) new="$new $pid" ;; esac
      done
      [ -n "$new" ] || break
      # shellcheck disable=SC2086 # a list of pids
      kill -STOP $new 2>/dev/null
      stopped="$stopped $new"
    done
    [ -n "$stopped" ] || return 0
    # shellcheck disable=SC2086 # a list of pids
    kill -KILL $stopped 2>/dev/null
    rounds=$((rounds + 1))
    if [ $rounds -gt 20 ]; then trouble="processes do not end:$stopped"; return 1; fi
    [ $rounds -eq 1 ] || nap
  done
}

end_containers() {
  engine=$(cat "$1/engine" 2>/dev/null)
  for cli in docker podman; do
    command -v $cli >/dev/null 2>&1 || continue
    # Only asked where it was usable: podman makes files of its own when asked.
    [ "$engine" = $cli ] || continue
    if ! ids=$(limit 20 $cli ps -aq --filter "label=skyport.dir=$1" 2>/dev/null </dev/null); then
      trouble="$cli does not answer, its containers cannot be removed"; return 1
    fi
    # shellcheck disable=SC2086 # a list of ids
    if [ -n "$ids" ] && ! limit 60 $cli rm -f -v $ids >/dev/null 2>&1 </dev/null; then
      trouble="$cli does not remove the containers" $ids; return 1
    fi
  done
}

# unmount DIR: what is mounted below it goes first; nothing is removed through a mount.
unmount() {
  rounds=0
  while mount=$(sed -n "s|^[^ ]* \($1/[^ ]*\) .*|\1|p" /proc/self/mounts | tail -n 1) && [ -n "$mount" ]; do
    limit 10 fusermount3 -u "$mount" 2>/dev/null || limit 10 fusermount -u "$mount" 2>/dev/null ||
      limit 10 fusermount3 -uz "$mount" 2>/dev/null || limit 10 fusermount -uz "$mount" 2>/dev/null
    rounds=$((rounds + 1))
    if [ $rounds -gt 10 ]; then trouble="$mount cannot be unmounted"; return 1; fi
  done
}

# clear ID TAG: the claim goes last, so that what was cut off is found and goes on.
clear() {
  place=$BASE/$1
  [ ! -d "$place" ] || : >"$place/deleting"
  edit_keys "$1/$2" /dev/null || return 1
  if [ -d "$place" ]; then
    end_processes "$place" && end_containers "$place" && end_processes "$place" && unmount "$place" || return 1
    if ! rm -rf "$place" 2>/dev/null; then
      chmod -R u+rwX "$place" 2>/dev/null
      why=$(rm -rf "$place" 2>&1) || { trouble="cannot remove the directory: $(printf %s "$why" | head -n 1)"; return 1; }
    fi
  fi
  if [ "$(claimed)" = "$1" ] && mv "$BASE/claim" "$BASE/gone.$$" 2>/dev/null; then
    # Another could have come in between: then it was not ours to take.
    grep -q "^{\"partition\":\"$1\"," "$BASE/gone.$$" || ln "$BASE/gone.$$" "$BASE/claim" 2>/dev/null
    rm -f "$BASE/gone.$$"
  fi
  rmdir "$BASE" 2>/dev/null
  return 0
}

# --- the watchdog ----------------------------------------------------------

is_watch() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$2/watchdog"; }

start_watch() {
  pid=$(cat "$1/watchdog.pid" 2>/dev/null)
  if [ -n "$pid" ] && is_watch "$pid" "$1"; then return 0; fi
  [ -f "$1/watchdog" ] || return 0
  if command -v setsid >/dev/null 2>&1; then
    setsid /bin/sh "$1/watchdog" </dev/null >/dev/null 2>&1 &
  else
    /bin/sh "$1/watchdog" </dev/null >/dev/null 2>&1 &
  fi
}

# watch ends the partition by itself when its lease has passed.
watch() {
  trap '' HUP
  dir=$BASE/$ID
  echo $$ >"$dir/watchdog.pid" || exit 1
  while [ "$(claimed)" = "$ID" ]; do
    left=$(($(lease "$ID") - $(date +%s)))
    if [ $left -le 0 ]; then
      clear "$ID" "$NODE" && exit 0
      left=30
    fi
    [ $left -lt 30 ] || left=30
    sleep $left
  done
}

# --- what the gate asks for ------------------------------------------------

claim() {
  case $BASE in *[!A-Za-z0-9/._@+-]*) die "the directory $BASE has a character that an endpoint cannot have; set dir" ;; esac
  dir=$BASE/$ID
  current=$(claimed)
  if [ -n "$current" ] && [ "$current" != "$ID" ] && [ "$(lease "$current")" -le "$(date +%s)" ]; then
    clear "$current" "$(tag_of)" || die "what is left of partition $current, whose lease has passed, cannot be removed: $trouble"
  fi
  mkdir -p "$BASE" || die "cannot make $BASE"
  if [ ! -e "$BASE/claim" ]; then
    printf '%s\n' "$CLAIM" >"$BASE/claim.$$" || die "cannot write to $BASE"
    ln "$BASE/claim.$$" "$BASE/claim" 2>/dev/null # of several only one can
    rm -f "$BASE/claim.$$"
  fi
  current=$(claimed)
  if [ "$current" != "$ID" ]; then echo taken; look; return; fi
  [ ! -e "$dir/deleting" ] || die "the partition is being removed"
  if [ -e "$dir/ready" ]; then look; return; fi
  mkdir -p "$dir" && chmod 700 "$dir" || die "cannot make $dir"
  [ -e "$dir/claim.json" ] || ln "$BASE/claim" "$dir/claim.json" || die "cannot write to $dir"
  [ -e "$dir/lease" ] || set_lease "$dir" "$LEASE" || die "cannot write to $dir"
  printf '%s\n' "$ENGINE" >"$dir/engine" || die "cannot write to $dir"
  write_watchdog >"$dir/watchdog" && [ -s "$dir/watchdog" ] || die "cannot write to $dir"
  start_watch "$dir"
  cat >"$dir/login" <<END || die "cannot write to $dir"
#!/bin/sh
# Who comes in by the partition's keys carries its mark and is found at its end.
SKYPORT_DIR=$dir; export SKYPORT_DIR
case \${SSH_ORIGINAL_COMMAND-} in
'') exec "\${SHELL:-/bin/sh}" -l ;;
internal-sftp*)
  for server in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server; do
    [ ! -x "\$server" ] || exec "\$server"
  done ;;
esac
exec "\${SHELL:-/bin/sh}" -c "\$SSH_ORIGINAL_COMMAND"
END
  {
    printf '# Sky Port: these lines go with their partition skyport:%s\n' "$ID/$NODE"
    printf '%s\n' "$KEYS" | while IFS= read -r key; do
      [ -z "$key" ] || printf 'command="/bin/sh %s/login",no-agent-forwarding,no-X11-forwarding %s skyport:%s\n' "$dir" "$key" "$ID/$NODE"
    done
    printf '# Sky Port: end skyport:%s\n' "$ID/$NODE"
  } >"$dir/keys" || die "cannot write to $dir"
  edit_keys "$ID/$NODE" "$dir/keys" || die "$trouble"
  : >"$dir/ready" || die "cannot write to $dir"
  look
}

release() {
  clear "$ID" "$NODE" || die "$trouble"
  look
}

extend() {
  dir=$BASE/$ID
  if [ "$(claimed)" = "$ID" ] && [ -d "$dir" ] && [ ! -e "$dir/deleting" ]; then
    set_lease "$dir" "$LEASE" || die "cannot write to $dir"
  fi
  look
}

probe() {
  printf 'cpus %s\n' "$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c '^processor' /proc/cpuinfo)"
  printf 'memory %s\n' "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
  printf 'gpus %s\n' "$(limit 10 nvidia-smi -L 2>/dev/null </dev/null | grep -c '^GPU ')"
  printf 'arch %s\n' "$(uname -m)"
  printf 'storage %s\n' "$(df -Pk "$HOME" 2>/dev/null | awk 'NR == 2 { print $2 }')"
  printf 'system %s\n' "$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' /etc/os-release 2>/dev/null | head -n 1)"
  run=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
  for socket in docker:/var/run/docker.sock "docker:$run/docker.sock" "podman:$run/podman/podman.sock" podman:/run/podman/podman.sock; do
    if [ -S "${socket#*:}" ] && [ -w "${socket#*:}" ]; then printf 'engine %s\n' "${socket%%:*}"; break; fi
  done
  echo end
}
