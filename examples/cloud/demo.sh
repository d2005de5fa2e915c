#!/usr/bin/env bash
# make demo-cloud: a job on two spot machines of Azure, as its provider makes them by
# Microsoft's SDK. Azure is an emulator here, which evaluates the deployment and boots
# the machines as containers with real cloud-init and a real SSH server. All of it
# happens in a throw-away directory, and is removed at the end, however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=$root/examples/cloud

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m'; plain=$'\e[0m'; else bold=; plain=; fi
say() { printf '\n%s▸ %s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

command -v curl >/dev/null || die "install curl: the cloud is asked by it whether anything is left"
docker info >/dev/null 2>&1 || die "there is no Docker engine that answers here: install docker.io, start dockerd, or set DOCKER_HOST"

say "What is made once and kept: the image of the cloud's machines"
make --no-print-directory node-image

place=$(mktemp -d "${TMPDIR:-/tmp}/skyport-demo.XXXXXX")
export HOME=$place/home SWM_SPOOL=$place/spool SWM_KEEP_ALIVE=0s SWM_LOCAL_ENABLED=false
unset SWM_CORE SWM_GATE_CONFIG
mkdir -p "$HOME" "$place/work"
up= emulator=
PATH=$root/bin:$PATH

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
  # It removes what its machines were, whatever became of them.
  [ -z "$emulator" ] || { kill "$emulator" 2>/dev/null && wait "$emulator" 2>/dev/null || true; }
  [ "$code" = 0 ] || { [ -s "$place/up.log" ] && grep -E 'level=(WARN|ERROR)|^skyport' "$place/up.log" | tail -n 8 >&2 || true; }
  rm -rf "$place"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "A throw-away spool, and a cloud"
skyport setup --yes --listen 127.0.0.1:0 --gate-listen 127.0.0.1:0 | sed 's/^/  /'
# Sessions of their own: Ctrl-C must reach this script first, which cleans up.
setsid "$root/bin/example-azure" -machines docker -boot 2s -gate-file "$SWM_SPOOL/gate.yaml" -out "$place/about.json" >"$place/emulator.log" 2>&1 &
emulator=$!
for _ in $(seq 300); do
  [ ! -s "$place/about.json" ] || break
  kill -0 "$emulator" 2>/dev/null || { cat "$place/emulator.log" >&2; die "the emulator ended"; }
  sleep 0.1
done
echo "  gate.yaml:"
sed 's/client_secret: "[^"]*"/client_secret: …/; s/^/    /' "$SWM_SPOOL/gate.yaml"

say "What is missing there: skyport gate check"
skyport gate check azure | sed 's/^/  /'

say "Core and gate"
setsid skyport up >"$place/up.log" 2>&1 &
up=$!
for _ in $(seq 600); do
  [ "$(skyport flavors --site azure --json 2>/dev/null || echo '[]')" = "[]" ] || break
  kill -0 "$up" 2>/dev/null || { cat "$place/up.log" >&2; die "skyport up ended"; }
  sleep 0.05
done
skyport flavors --site azure --spot --max-price 0.03

say "Submit: primes on two spot machines"
cp "$here/ranges.txt" "$place/work/"
cd "$place/work"
sed -n 's/^#SWM/  #SWM/p' "$here/job.sh"
skyport submit --dry-run "$here/job.sh" | tail -n 2
skyport submit --follow "$here/job.sh"

say "The results"
skyport results @last --to "$place/results"
sed 's/^/  /' "$place/results/primes.txt"
[ "$(awk '{ n += $1 } END { print n }' "$place/results/primes.txt")" = 4203 ] || die "there are 4203 primes up to 40000"
[ "$(awk '{ print $NF }' "$place/results/primes.txt" | sort -u | wc -l)" = 2 ] || die "not both machines have counted"

say "Nothing is left, says the cloud"
for _ in $(seq 600); do
  [ "$(skyport partitions --json)" != "[]" ] || break
  sleep 0.1
done
[ "$(skyport partitions --json)" = "[]" ] || die "a partition is left"
skyport gc --site azure
left=$(curl -fsS --cacert "$(sed -n 's/.*"ca_file": "\(.*\)",/\1/p' "$place/about.json")" \
  "$(sed -n 's/.*"url": "\(.*\)",/\1/p' "$place/about.json")/emulator/resources")
[ "$left" = "[]" ] || [ "$left" = "null" ] || die "the cloud still has $left"

say "What it cost, and its timeline"
skyport cost --by site
skyport show @last

say "That was a job in a cloud. docs/clouds.md and docs/azure.md tell how to name yours."
