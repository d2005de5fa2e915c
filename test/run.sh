#!/usr/bin/env bash
# Everything that must hold, as `make test` runs it after the build:
#
#   tools    what the tests need besides Go, installed where that may be done
#   engine   a Docker engine: the one that runs, or one started for the tests
#   image    the nodes' image for them (make node-image)
#   vet      go vet
#   lint     the strict linters and the format (test/lint.sh)
#   tests    every test, with the race detector, never from the cache
#   demo     a job's whole life, as make demo shows it
#   remote   the same on three nodes that share nothing but SSH: make demo-remote
#   cloud    the same on two machines of a cloud that is emulated: make demo-cloud
#   tree     none of this changed a file that is in git
#
# Each part runs though another failed. The end lists what was skipped, and why,
# and closes with "N passed, N failed, N skipped": tests, and the parts above.
set -euo pipefail
cd "$(dirname "$0")/.."

export GOTOOLCHAIN=local
place=$(mktemp -d "${TMPDIR:-/tmp}/skyport-test.XXXXXX")
checks=$place/checks
: >"$checks"
trap 'stop_engine; rm -rf "$place"' EXIT

# part NAME COMMAND… runs a part and notes how it ended, and how long it took.
# A command that ends with 75 was skipped, for the reason that is its last line.
part() {
  local name=$1 began=$SECONDS code=0 how reason=
  shift
  printf '\n=== %s\n' "$name"
  "$@" 2>&1 | tee "$place/last" || code=${PIPESTATUS[0]}
  case $code in
  0) how=pass ;;
  75) how=skip reason=$(tail -n 1 "$place/last") ;;
  *) how=fail reason="exit code $code" ;;
  esac
  printf '=== %s: %s in %d s\n' "$name" "$how" $((SECONDS - began))
  printf '%s\t%s\t%d\t%s\n' "$name" "$how" $((SECONDS - began)) "$reason" >>"$checks"
}

# compiles tells whether there is a C compiler with a libc: the race detector
# links with it.
compiles() { echo 'int main(void) { return 0; }' | cc -x c -o "$place/c" - 2>/dev/null; }

tools() {
  local missing=()
  compiles || missing+=(gcc libc6-dev)
  command -v rsync >/dev/null || missing+=(rsync)
  command -v curl >/dev/null || missing+=(curl)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  # For nodes that are really remote: their servers, their images, their networks.
  [ -x /usr/sbin/sshd ] || missing+=(openssh-server)
  command -v ssh >/dev/null || missing+=(openssh-client)
  command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || missing+=(docker.io)
  command -v docker >/dev/null || missing+=(docker.io)
  command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] || missing+=(debootstrap)
  command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
  command -v iptables >/dev/null || [ -x /usr/sbin/iptables ] || missing+=(iptables)
  command -v busybox >/dev/null || missing+=(busybox-static)
  [ ${#missing[@]} -gt 0 ] || { echo "all there"; return 0; }
  echo "missing: ${missing[*]}"
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, as that needs root and apt-get: ${missing[*]}"
    return 75
  fi
  export DEBIAN_FRONTEND=noninteractive
  local quick=(-qq -o Acquire::http::Timeout=30 -o Acquire::Retries=2 -o DPkg::Lock::Timeout=120)
  if ! { timeout 300 apt-get "${quick[@]}" update &&
    timeout 600 apt-get "${quick[@]}" install -y --no-install-recommends "${missing[@]}" >"$place/apt" 2>&1; } </dev/null; then
    [ ! -s "$place/apt" ] || tail -n 5 "$place/apt"
    echo "could not be installed, is there a network? ${missing[*]}"
    return 75
  fi
  echo "installed"
}

# engine finds a Docker engine that answers, or starts one for as long as this runs.
engine() {
  if docker info >/dev/null 2>&1; then
    docker version --format 'one runs: {{.Server.Version}}'
    return 0
  fi
  if [ "$(id -u)" != 0 ] || ! command -v dockerd >/dev/null; then
    echo "there is no Docker engine, and starting one needs root and docker.io: all that needs one is skipped"
    return 75
  fi
  setsid dockerd >"$place/dockerd.log" 2>&1 </dev/null &
  echo $! >"$place/dockerd.pid"
  for _ in $(seq 300); do
    if docker info >/dev/null 2>&1; then
      docker version --format 'started: {{.Server.Version}}'
      return 0
    fi
    kill -0 "$(cat "$place/dockerd.pid")" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 5 "$place/dockerd.log"
  echo "dockerd does not start here: all that needs a Docker engine is skipped"
  return 75
}

stop_engine() {
  [ -s "$place/dockerd.pid" ] || return 0
  local pid
  pid=$(cat "$place/dockerd.pid")
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
}

# image makes the nodes' image where that can be done.
image() {
  docker info >/dev/null 2>&1 || { echo "no Docker engine"; return 75; }
  [ "$(id -u)" = 0 ] || { echo "debootstrap needs root"; return 75; }
  timeout 900 make --no-print-directory node-image
}

remote() {
  docker info >/dev/null 2>&1 || { echo "no Docker engine"; return 75; }
  [ "$(id -u)" = 0 ] || { echo "making the images needs root"; return 75; }
  timeout 900 make --no-print-directory demo-remote
}

cloud() {
  docker info >/dev/null 2>&1 || { echo "no Docker engine"; return 75; }
  [ "$(id -u)" = 0 ] || { echo "making the nodes' image needs root"; return 75; }
  timeout 600 make --no-print-directory demo-cloud
}

# tests runs every test there is. Its own lines are printed as they come; what
# skipped tests said is kept for the end.
tests() {
  local race=(-race) cgo=1
  if ! compiles; then
    echo "no C compiler: the tests run without the race detector"
    race=() cgo=0
  fi
  CGO_ENABLED=$cgo go test "${race[@]}" -count=1 -timeout=15m -json \
    -covermode=atomic -coverprofile="$place/cover" ./... 2>"$place/stderr" </dev/null |
    tee "$place/events" | "$place/summary" follow
  local code=${PIPESTATUS[0]}
  grep -v '^go: downloading' "$place/stderr" || true
  return "$code"
}

tree() {
  local changed
  changed=$(git status --porcelain 2>/dev/null) || { echo "this is no checkout of git"; return 75; }
  [ -n "${CI:-}" ] || { echo "files being edited are no fault: looked at in CI only"; return 75; }
  [ -z "$changed" ] && echo "as it was" && return 0
  echo "changed or left behind by building and testing:"
  echo "$changed"
  git --no-pager diff --stat
  return 1
}

CGO_ENABLED=0 go build -o "$place/summary" ./test/summary

part tools tools
part engine engine
part image image
# With the flags of make build, so that what it compiled need not be compiled again.
part vet env CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath" go vet ./...
part lint bash test/lint.sh
part tests tests
part demo timeout 900 make --no-print-directory demo
part remote remote
part cloud cloud
part tree tree

"$place/summary" report -events "$place/events" -cover "$place/cover" -parts "$checks"
