#!/usr/bin/env bash
# make demo-remote: a job over three real nodes. Each has an SSH server, an address
# and a container engine of its own; they are made by the docker gate, and nothing
# but port 22 of them is used. The job's image comes from a registry that asks for a
# login and has a certificate authority of its own. All of it happens in a throw-away
# directory with its own HOME and spool, and is removed at the end, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=$root/examples/remote

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m'; plain=$'\e[0m'; else bold=; plain=; fi
say() { printf '\n%s▸ %s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

docker info >/dev/null 2>&1 || die "there is no Docker engine that answers here: install docker.io, start dockerd, or set DOCKER_HOST"

say "What is made once and kept: the nodes' image, and the job's"
make --no-print-directory node-image
rootfs=$("$here/image.sh")
echo "the job's image: $(du -h "$rootfs" | cut -f1) of Debian packages, with Open MPI and Python"

place=$(mktemp -d "${TMPDIR:-/tmp}/skyport-demo.XXXXXX")
export HOME=$place/home SWM_SPOOL=$place/spool SWM_KEEP_ALIVE=0s SWM_LOCAL_ENABLED=false SWM_DOCKER_ENABLED=true
unset SWM_CORE
mkdir -p "$HOME" "$place/work" "$place/registry"
up= registry=
PATH=$root/bin:$PATH

# left names what the gate has at the engine.
left() { docker ps -aq --filter "label=io.openworkload.skyport.owner=$(cat "$SWM_SPOOL/owner" 2>/dev/null || echo none)"; }

cleanup() {
  code=$?
  trap '' INT TERM
  if [ -n "$up" ] && kill -0 "$up" 2>/dev/null; then
    [ "$code" = 0 ] || { echo; echo "demo: cleaning up"; skyport purge --all --yes >/dev/null 2>&1 || true; }
    for _ in $(seq 300); do
      gone=$(skyport partitions --json 2>/dev/null) || break
      [ "$gone" != "[]" ] || break
      sleep 0.1
    done
    kill "$up" 2>/dev/null || true
    wait "$up" 2>/dev/null || true
  fi
  [ -z "$registry" ] || { kill "$registry" 2>/dev/null && wait "$registry" 2>/dev/null || true; }
  [ "$code" = 0 ] || { [ -s "$place/up.log" ] && grep -E 'level=(WARN|ERROR)|^skyport' "$place/up.log" | tail -n 8 >&2 || true; }
  rm -rf "$place"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "A private registry: TLS by an authority of its own, a login"
# Nodes reach any address of this machine but loopback; those of bridges come and go.
address=$(ip -4 -o addr show scope global | awk '$2 !~ /^(br-|veth)/ {split($4, a, "/"); print a[1]; exit}')
[ -n "$address" ] || die "this machine has no address that nodes could reach"
password=$(head -c 18 /dev/urandom | base64)
printf '%s\n' "$password" >"$place/password"
setsid "$root/bin/example-registry" -listen "$address:0" -dir "$place/registry" -image pi:1 -rootfs "$rootfs" <"$place/password" >"$place/registry.log" 2>&1 &
registry=$!
for _ in $(seq 600); do
  [ ! -s "$place/registry/image" ] || break
  kill -0 "$registry" 2>/dev/null || { cat "$place/registry.log" >&2; die "the registry ended"; }
  sleep 0.1
done
image=$(cat "$place/registry/image")
echo "  $image"

say "A throw-away spool; core, gate and the docker site"
skyport setup --yes --listen 127.0.0.1:0 --gate-listen 127.0.0.1:0 | sed 's/^/  /'
# A session of its own: Ctrl-C must reach this script first, which cleans up.
setsid skyport up >"$place/up.log" 2>&1 &
up=$!
for _ in $(seq 200); do
  skyport sites >/dev/null 2>&1 && break
  kill -0 "$up" 2>/dev/null || { cat "$place/up.log" >&2; die "skyport up ended"; }
  sleep 0.05
done
skyport flavors
skyport secret set registry "${image%%/*}" --username reader --password-stdin --ca "$place/registry/ca.pem" <"$place/password"

say "Submit: pi on three nodes"
cp "$here"/*.py "$place/work/"
cd "$place/work"
sed -n 's/^#SWM/  #SWM/p' "$here/job.sh"
# Meanwhile somebody looks into the job, and reads its port, which ends it.
(
  for _ in $(seq 6000); do
    address=$(skyport ports --json @last 2>/dev/null | sed -n 's/^ *"address": *"\(127[^"]*\)".*/\1/p' | head -n 1) || address=
    if [ -n "$address" ] && [ ! -s "$place/inside" ]; then
      # Once it runs: from then on there is a container to look into.
      skyport exec @last -- sh -c 'echo "in its container: user $(id -u), $(python3 --version), $(nproc) processors"' >"$place/inside" 2>/dev/null || : >"$place/inside"
      [ ! -s "$place/inside" ] || skyport top --once @last >"$place/top" 2>&1 || true
    fi
    answer=$(exec 3<>"/dev/tcp/${address%:*}/8087" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n 1 <&3) || answer=
    [ -z "$answer" ] || { echo "http://$address says: $answer" >"$place/port"; exit 0; }
    sleep 0.05
  done
) 2>/dev/null &
reader=$!
skyport submit --container-image "$image" --follow "$here/job.sh"
wait "$reader" || true
job=@last

say "Looked into while it ran"
[ -s "$place/inside" ] || die "nobody could look into the job's container"
sed 's/^/  /' "$place/inside"
sed 's/^/  /' "$place/top"
say "Its forwarded port, read while it ran"
[ -s "$place/port" ] || die "the port never answered"
sed 's/^/  /' "$place/port"

say "What happened"
skyport events "$job" | sed 's/^/  /'
say "The results"
skyport results "$job" --to "$place/results"
sed 's/^/  /' "$place/results/pi.txt" "$place/results/met.txt"
grep -q '^pi = 3.1415926[0-9]* by 3 ranks' "$place/results/pi.txt" || die "that is not pi by three ranks"
[ "$(grep -c 'sum of the others' "$place/results/met.txt")" = 3 ] || die "not all three tasks have met"

say "Nothing is left"
for _ in $(seq 600); do
  [ "$(skyport partitions --json)" != "[]" ] || break
  sleep 0.1
done
[ "$(skyport partitions --json)" = "[]" ] || die "a partition is left"
[ -z "$(left)" ] || die "containers are left: $(left)"
skyport partitions

say "Its timeline"
skyport show "$job"

say "That was a job on three nodes. docs/multi-node.md and docs/containers.md tell more."
