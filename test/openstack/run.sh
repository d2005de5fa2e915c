#!/usr/bin/env bash
# make test-openstack: brings a real OpenStack up on this machine from Debian's
# packages, runs gate/openstack's conformance suite against its control plane and
# whole lives of jobs on real guests of its zone qemu, looks at what is left, and
# takes the cloud down. Needs root and Debian 12. Leaves packages and, for the next
# time, the cloud's data below $OSREF (/var/lib/osref).
#
#   KEEP=1       leaves the cloud running; the next run finds it
#   PURGE=1      removes its data too
#   RUN=TestLife only these of the tests on real guests
set -euo pipefail
cd "$(dirname "$0")/../.."
here=test/openstack
cloud=$here/cloud
OSREF=${OSREF:-/var/lib/osref}
export OSREF
die() { printf 'test-openstack: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "this starts services, bridges and guests: run it as root (or in a throw-away virtual machine: sudo make test-openstack)"
grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release || die "the cloud is made of the packages of Debian 12 (bookworm), which this machine is not"
command -v apt-get >/dev/null || die "there is no apt-get"
[ "$(awk '/^MemAvailable/{print int($2/1024)}' /proc/meminfo)" -ge 6000 ] || echo "test-openstack: less than 6 GB of memory are free; the cloud takes 2, two guests up to 8" >&2
mkdir -p "$OSREF/log"
log=$OSREF/log/test-openstack.log
: >"$log"
began=$SECONDS
failed=

# phase NAME COMMAND...: runs it, says how long it took, and goes on.
phase() {
  local name=$1 from=$SECONDS code=0
  shift
  printf '▸ %s\n' "$name"
  "$@" || code=$?
  printf '  %s: %d s%s\n' "$name" "$((SECONDS - from))" "$([ $code = 0 ] || echo " FAILED ($code)")" | tee -a "$log"
  [ $code = 0 ] || failed="$failed$name; "
  return $code
}
quiet() { "$@" >>"$log.cloud" 2>&1 || { tail -n 30 "$log.cloud" >&2; return 1; }; }
down() {
  local args=()
  [ -z "${PURGE:-}" ] || args=(--purge)
  quiet "$cloud/down.sh" "${args[@]}"
}
finish() {
  code=$?
  trap '' INT TERM
  if [ -n "${KEEP:-}" ]; then
    echo "the cloud goes on: export OS_CLIENT_CONFIG_FILE=$OSREF/clouds.yaml SKYPORT_TEST_OPENSTACK=osref; $cloud/down.sh ends it"
  else
    phase "cloud down" down || true
  fi
  [ -z "$failed" ] || code=1
  printf '\n%s\n' "phases:"
  [ ! -s "$log" ] || cat "$log"
  printf '  all: %d s\n%s\n' "$((SECONDS - began))" "$([ "$code" = 0 ] && echo PASS || echo "FAIL: ${failed:-$code}")"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
: >"$log.cloud"

phase "build" quiet make --no-print-directory build
phase "control plane up" quiet "$cloud/up.sh"
phase "zone qemu up" quiet "$cloud/up-qemu.sh"
phase "guest image" quiet "$cloud/guest-image.sh"
export OS_CLIENT_CONFIG_FILE=$OSREF/clouds.yaml SKYPORT_TEST_OPENSTACK=osref
phase "conformance against the control plane" go test ./gate/openstack -count=1 -timeout 30m -v -run "${CONFORMANCE:-Real}" || true
phase "whole lives on real guests" go test ./$here -count=1 -timeout 60m -v -run "${RUN:-TestLife|TestGateKilled}" || true
SKYPORT_TEST_OPENSTACK_LEFT=1 phase "nothing is left" go test ./$here -count=1 -timeout 5m -v -run TestNothingLeft || true
