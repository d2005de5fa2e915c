#!/bin/sh
# Builds the node image from Debian packages, unless the one that is there was
# built from the same inputs. Run by `make node-image`, and by tests.
#
#   NODE_IMAGE  name of the image                   (skyport-node:dev)
#   MIRROR      Debian mirror                       (this machine's, or deb.debian.org)
#
# Exits 77 with a reason where it cannot be built: tests skip then.
set -eu

image=${NODE_IMAGE:-skyport-node:dev}
suite=bookworm
here=$(cd "$(dirname "$0")" && pwd)
label=org.openworkload.skyport.node-image

# What a node needs, and nothing that it would get on its own.
packages=$(grep -v '^#' "$here/packages" | tr '\n' ' ')
inputs=$(cat "$here/build.sh" "$here/packages" "$here/root.sh" "$here/skyport-init" "$here/cloud.cfg" | sha256sum | cut -c1-32)

current() {
	[ "$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$image" 2>/dev/null)" = "$inputs" ]
}

cannot() {
	echo "node image: $*" >&2
	exit 77
}

current && exit 0
docker version >/dev/null 2>&1 || cannot "no Docker engine answers"
[ "$(id -u)" = 0 ] || cannot "building it needs root, for debootstrap"
command -v debootstrap >/dev/null || cannot "building it needs debootstrap (apt-get install debootstrap)"

# Several may ask at once: one builds, the others find it built. Two names build apart.
exec 9>"${TMPDIR:-/tmp}/skyport-node-image.lock"
flock -w 900 9 || cannot "another build holds $(basename "${TMPDIR:-/tmp}")/skyport-node-image.lock for long"
current && exit 0

if [ -z "${MIRROR:-}" ]; then
	MIRROR=$(sed -n 's/^URIs: *\(http[^ ]*debian\/\{0,1\}\) *$/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\(http[^ ]*debian\/\{0,1\}\) .*/\2/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1)
fi
mirror=${MIRROR:-http://deb.debian.org/debian}

work=$(mktemp -d "${TMPDIR:-/tmp}/skyport-node-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
root=$work/root

echo "node image: $image from $mirror $suite" >&2
if ! debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" 2>&1; then
	tail -n 20 "$work/log" >&2
	echo "node image: debootstrap from $mirror failed: is it a Debian mirror that answers? MIRROR=http://... names another" >&2
	exit 1
fi
cp "$here/root.sh" "$root/root.sh"
# shellcheck disable=SC2086 # words
if ! chroot "$root" /bin/sh -eu /root.sh $packages </dev/null >"$work/log" 2>&1; then
	tail -n 40 "$work/log" >&2
	echo "node image: its packages could not be installed from $mirror" >&2
	exit 1
fi
rm "$root/root.sh"
install -D -m 0755 "$here/skyport-init" "$root/sbin/skyport-init"
install -D -m 0644 "$here/cloud.cfg" "$root/etc/cloud/cloud.cfg"

# Entries in one order with one time: equal packages make an equal image.
tar -C "$root" --sort=name --mtime='2020-01-01 00:00:00Z' --numeric-owner --xattrs -cf - . |
	docker import \
		--change "LABEL $label=$inputs" \
		--change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=docker' \
		--change 'VOLUME /var/lib/docker' \
		--change 'EXPOSE 22/tcp' \
		--change 'ENTRYPOINT ["/sbin/skyport-init"]' \
		- "$image" >/dev/null
echo "node image: built $image" >&2
