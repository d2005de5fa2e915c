#!/bin/sh
# Ends this node when its lease is over. Above stand: longest (seconds that a lease
# may reach ahead), grace (seconds for which a lease that makes no sense is borne).
# The file belongs to the user, so nothing in it is believed but a number that is
# near enough: no file, another text or a number beyond end the node after the grace.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
file=/var/lib/skyport/lease

end() {
	echo "skyport: the lease of this node is over: it ends" | tee /dev/console >/dev/kmsg 2>/dev/null
	if [ "$(cat /proc/1/comm)" = skyport-init ]; then
		kill -TERM 1
	else
		shutdown -h now || poweroff
	fi
	sleep 180
	[ "$(cat /proc/1/comm)" = skyport-init ] || poweroff -f
	sleep 60
}

# A file and no link, pipe or device: reading it never waits.
lease() {
	[ -f "$file" ] && [ ! -L "$file" ] && timeout 5 head -c 32 "$file" 2>/dev/null | head -n 1
}

sense=0
while :; do
	read -r up _ </proc/uptime
	up=${up%.*}
	now=$(date +%s)
	until=$(lease)
	case $until in
		'' | *[!0-9]* | ????????????*) ;;
		*)
			if [ "$until" -le $((now + longest)) ]; then
				sense=$up
				[ "$now" -lt "$until" ] || end
			fi
			;;
	esac
	[ "$sense" != 0 ] || sense=$up
	[ $((up - sense)) -lt "$grace" ] || end
	sleep 5
done
