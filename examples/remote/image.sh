#!/usr/bin/env bash
# Makes the root file system of the example's container image from Debian packages:
# Python with MPI, nothing of Sky Port. Prints the path of the tar file, which is
# made once and kept in the cache directory.
set -euo pipefail
include=python3,python3-mpi4py,openmpi-bin,ca-certificates
suite=bookworm
mirror=${MIRROR:-http://deb.debian.org/debian}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/skyport
file=$cache/mpi-$(printf '%s' "$suite $include $(dpkg --print-architecture)" | sha256sum | cut -c1-12).tar
mkdir -p "$cache"
exec 9>"$file.lock"
flock 9
if [ ! -s "$file" ]; then
  [ "$(id -u)" = 0 ] || { echo "image.sh: debootstrap needs root" >&2; exit 75; }
  command -v debootstrap >/dev/null || { echo "image.sh: debootstrap is missing: apt-get install debootstrap" >&2; exit 75; }
  place=$(mktemp -d "${TMPDIR:-/tmp}/skyport-image.XXXXXX")
  trap 'rm -rf "$place"' EXIT
  debootstrap --variant=minbase --include="$include" "$suite" "$place/root" "$mirror" >"$place/log" 2>&1 9>&- ||
    { tail -n 5 "$place/log" >&2; exit 1; }
  rm -rf "$place"/root/usr/share/{doc,man,locale,info}/* "$place"/root/var/cache/apt/archives/*.deb "$place"/root/var/lib/apt/lists/*
  tar -C "$place/root" -cf "$place/image.tar" --numeric-owner .
  mv "$place/image.tar" "$file"
fi
echo "$file"
