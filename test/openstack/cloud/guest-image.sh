#!/bin/bash
# After up-qemu.sh: builds a Debian 12 guest (cloud-init, OpenSSH, podman) meant to boot fast under
# software emulation and uploads it to glance as "debian-12-cloud": kernel and initramfs as
# kernel_id/ramdisk_id (no boot loader), root file system as one unpartitioned ext4 (nova grows it
# to the flavor's disk on the host). The image is kept in $OSREF_IMAGES ($OSREF/images) under the
# hash of this script. --build: only build; --rebuild: build even if it is there.
set -euo pipefail
. "$(dirname "$0")/common.sh"
T0=$(date +%s%N); say() { printf '[%7.1fs] %s\n' "$(( ($(date +%s%N)-T0)/100000000 ))e-1" "$*" >&2; }
[ "$(id -u)" = 0 ] || { echo "run as root" >&2; exit 1; }
NAME=debian-12-cloud DISK=${OSREF_GUEST_DISK:-1G}
IMG=${OSREF_IMAGES:-$OSREF/images}; mkdir -p "$IMG" "$LOG"
KEY=$( { cat "$0"; echo "$DISK"; } | sha256sum | cut -c1-12); B=$IMG/$NAME-$KEY
PACKAGES=systemd-sysv,udev,kmod,e2fsprogs,cloud-init,openssh-server,sudo,iproute2,iputils-ping,procps,netbase
PACKAGES+=,ca-certificates,curl,rsync,zstd,podman,crun,podman-docker,netavark,iptables,uidmap,catatonit
PACKAGES+=,nfs-kernel-server,sshfs   # guests have no mirror to install from: what shares a directory is there

build() {
  local W R X KV m s d T1; T1=$(date +%s)
  dpkg -s mmdebstrap qemu-utils e2fsprogs cpio kmod busybox-static >/dev/null 2>&1 || { say "apt-get install"
    apt-get update -qq >>"$LOG/apt.log" 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      mmdebstrap qemu-utils e2fsprogs cpio kmod busybox-static >>"$LOG/apt.log" 2>&1 </dev/null; }
  W=$(mktemp -d "$IMG/build.XXXXXX"); trap 'rm -rf --one-file-system -- "$W"' EXIT; R=$W/root X=$W/x
  # the mirrors this machine's apt uses for Debian
  mirrors() { apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Identifier: Packages' 'Origin: Debian' | grep -E ' bookworm(-updates|-security)? ' | sort -u >"$W/sources.list"; }
  mirrors; [ -s "$W/sources.list" ] || { apt-get update -qq >>"$LOG/apt.log" 2>&1; mirrors; }
  [ -s "$W/sources.list" ] || { echo "no Debian bookworm among apt's sources" >&2; exit 1; }
  say "packages"
  local o=(); for d in doc man info locale i18n; do o+=(--dpkgopt="path-exclude=/usr/share/$d/*"); done
  mmdebstrap --mode=root --variant=minbase "${o[@]}" --dpkgopt=force-unsafe-io \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --include="$PACKAGES" bookworm "$R" "$W/sources.list" >"$LOG/guest-image.log" 2>&1 </dev/null || { tail -20 "$LOG/guest-image.log" >&2; exit 1; }

  say "kernel and initramfs"
  mkdir "$W/deb" "$X"
  ( cd "$W/deb" && apt-get download -qq -o APT::Sandbox::User=root "$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2}')" )
  dpkg-deb -x "$W"/deb/*.deb "$X"; KV=$(ls "$X/lib/modules"); cp "$X/boot/vmlinuz-$KV" "$W/kernel"
  mkdir -p "$R/lib/modules"; cp -a "$X/lib/modules/$KV" "$R/lib/modules/"
  ( cd "$R/lib/modules/$KV/kernel/drivers" && for d in *; do case $d in
      net|block|virtio|char|ata|scsi|cdrom|nvme|md) ;; *) rm -rf "$d";; esac; done
    rm -rf char/{agp,ipmi,tpm} net/{ethernet,wireless,hyperv,usb,xen-netfront.ko} block/{drbd,xen*} )
  depmod -b "$R" "$KV" 2>/dev/null
  local I=$W/initramfs; mkdir -p "$I"/{bin,dev,proc,sys,root}
  for m in drivers/virtio/virtio{,_ring,_pci,_pci_legacy_dev,_pci_modern_dev}.ko drivers/block/virtio_blk.ko \
           drivers/char/hw_random drivers/net/virtio_net.ko drivers/net/net_failover.ko net/core/failover.ko \
           lib/crc16.ko lib/libcrc32c.ko crypto/crc32c_generic.ko arch/x86/crypto/crc32c-intel.ko fs/mbcache.ko fs/jbd2 fs/ext4 \
           drivers/scsi/scsi_{common,mod}.ko drivers/scsi/sr_mod.ko drivers/cdrom drivers/ata/{libata,ata_piix}.ko fs/isofs; do
    s=$X/lib/modules/$KV/kernel/$m; [ -e "$s" ] || continue
    d=$I/lib/modules/$KV/kernel/$(dirname "$m"); mkdir -p "$d"; cp -r "$s" "$d/"
  done
  cp "$X/lib/modules/$KV"/modules.{order,builtin} "$I/lib/modules/$KV/"; depmod -b "$I" "$KV" 2>/dev/null
  cp /bin/busybox "$I/bin/busybox"; ln -s busybox "$I/bin/sh"
  cat >"$I/init" <<'EOF'
#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad   # else "online" comes 2 s later
$b modprobe -a virtio_pci virtio_blk ext4 2>/dev/null
($b modprobe -a virtio_net virtio-rng ata_piix sr_mod isofs 2>/dev/null) &
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do $b usleep 50000; i=$((i+1)); done
$b mount -t ext4 -o rw,noatime /dev/vda /root || exec $b sh
wait
for d in proc sys dev; do $b mount -o move /$d /root/$d; done
exec $b switch_root /root /lib/systemd/systemd
EOF
  chmod 755 "$I/init"
  ( cd "$I" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0 ) >"$W/initrd"   # not compressed: quicker to unpack when emulated

  say "configuration"
  cat >"$R/etc/cloud/cloud.cfg" <<'EOF'
datasource_list: [ConfigDrive, OpenStack, None]
datasource: {OpenStack: {max_wait: 10, timeout: 5}}
users: [default]
disable_root: true
ssh_deletekeys: true
ssh_genkeytypes: [ed25519]
preserve_hostname: false
manage_etc_hosts: true
package_update: false
package_upgrade: false
cloud_init_modules: [bootcmd, write-files, set_hostname, update_etc_hosts, ca-certs, users-groups, ssh]
cloud_config_modules: [set-passwords, runcmd]
cloud_final_modules: [write-files-deferred, scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user, phone-home, final-message, power-state-change]
output: {all: '| tee -a /var/log/cloud-init-output.log'}
system_info:
  distro: debian
  default_user: {name: debian, lock_passwd: true, gecos: Debian, groups: [adm, sudo], sudo: ["ALL=(ALL) NOPASSWD:ALL"], shell: /bin/bash}
  network: {renderers: [networkd]}
  paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}
  ssh_svcname: ssh
EOF
  # cloud-init is wanted without the generator's probing (ds-identify); without data it ends with datasource None
  mkdir -p "$R/etc/systemd/system-generators" "$R/etc/systemd/system/multi-user.target.wants"
  ln -s /dev/null "$R/etc/systemd/system-generators/cloud-init-generator"
  ln -sf /lib/systemd/system/cloud-init.target "$R/etc/systemd/system/multi-user.target.wants/cloud-init.target"
  # Loading cloud-init's Python modules takes most of its time here, so its four stages run in one process that has
  # loaded them already, each in a fork (what cloud-init itself does from 24.3 on); the stock units stay in charge.
  cat >"$R/usr/local/sbin/cloud-init-stages" <<'EOF'
#!/usr/bin/python3 -I
import gc, os, sys
gc.disable()
import cloudinit.cmd.main as main
from cloudinit.config import (cc_bootcmd, cc_write_files, cc_set_hostname, cc_users_groups, cc_ssh, cc_set_passwords,
    cc_runcmd, cc_scripts_user, cc_final_message)
from cloudinit.distros import debian
from cloudinit.net import networkd
from cloudinit.sources import DataSourceConfigDrive
gc.enable()
while True:
    with open("/run/cloud-init-stages/do") as f:
        args = f.read().split()
    pid = os.fork()
    if pid == 0:
        sys.argv = ["/usr/bin/cloud-init"] + args
        rc = 1
        try:
            rc = main.main()
        except SystemExit as e:
            rc = e.code
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(int(rc or 0))
    rc = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open("/run/cloud-init-stages/done", "w") as f:
        f.write("%d\n" % (rc if rc >= 0 else 1))
    if args[-1] == "--mode=final":
        break
EOF
  chmod 755 "$R/usr/local/sbin/cloud-init-stages"
  cat >"$R/etc/systemd/system/cloud-init-stages.service" <<'EOF'
[Unit]
DefaultDependencies=no
[Service]
ExecStartPre=/bin/sh -c 'mkdir -m 700 /run/cloud-init-stages && mkfifo /run/cloud-init-stages/do /run/cloud-init-stages/done'
ExecStart=/usr/local/sbin/cloud-init-stages
RemainAfterExit=yes
KillMode=process
TasksMax=infinity
StandardOutput=journal+console
EOF
  for s in "cloud-init-local init --local" "cloud-init init" "cloud-config modules --mode=config" "cloud-final modules --mode=final"; do
    d=$R/etc/systemd/system/${s%% *}.service.d; mkdir -p "$d"
    cat >"$d/stages.conf" <<EOF
[Unit]
Requires=cloud-init-stages.service
After=cloud-init-stages.service
[Service]
ExecStart=
ExecStart=/bin/sh -c 'echo "${s#* }" >/run/cloud-init-stages/do; read rc </run/cloud-init-stages/done; exit \$\$rc'
EOF
  done
  # the initramfs has loaded the drivers: only these need udev's rules
  mkdir -p "$R/etc/systemd/system/systemd-udev-trigger.service.d"
  printf '[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net --subsystem-match=block\n' \
    >"$R/etc/systemd/system/systemd-udev-trigger.service.d/osref.conf"
  systemctl --root="$R" -q enable ssh.service systemd-networkd.service
  systemctl --root="$R" -q set-default multi-user.target
  systemctl --root="$R" -q mask apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer systemd-tmpfiles-clean.timer podman-auto-update.timer \
    networking.service ifupdown-pre.service getty@tty1.service getty.target serial-getty@ttyS0.service console-getty.service \
    systemd-binfmt.service systemd-pstore.service systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-hwdb-update.service \
    systemd-journal-catalog-update.service systemd-journal-flush.service systemd-random-seed.service systemd-boot-random-seed.service systemd-sysusers.service \
    systemd-remount-fs.service systemd-machine-id-commit.service systemd-firstboot.service systemd-modules-load.service systemd-update-done.service \
    systemd-ask-password-wall.path systemd-ask-password-console.path ldconfig.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@loop.service modprobe@dm_mod.service modprobe@fuse.service sys-fs-fuse-connections.mount systemd-network-generator.service \
    podman.service podman-restart.service podman-auto-update.service cloud-init-hotplugd.socket || true
  # nobody needs NFS before a node says so; version 4 needs neither of the others
  systemctl --root="$R" -q disable nfs-server.service nfs-client.target 2>/dev/null || true
  systemctl --root="$R" -q mask rpcbind.service rpcbind.socket rpc-statd.service rpc-statd-notify.service nfs-blkmap.service auth-rpcgss-module.service rpc-gssd.service || true
  rm -f "$R/etc/systemd/system/podman.service" "$R/etc/systemd/system/multi-user.target.wants/"podman*.service "$R/etc/systemd/system/default.target.wants/"podman*.service
  systemctl --root="$R" -q mask podman-restart.service podman-auto-update.service
  systemctl --root="$R" -q enable podman.socket
  mkdir -p "$R/etc/systemd/journald.conf.d" "$R/etc/systemd/system.conf.d"
  printf '[Journal]\nStorage=volatile\nForwardToSyslog=no\n' >"$R/etc/systemd/journald.conf.d/osref.conf"
  printf '[Manager]\nDefaultTimeoutStartSec=300s\nDefaultDeviceTimeoutSec=300s\n' >"$R/etc/systemd/system.conf.d/osref.conf"
  printf 'PasswordAuthentication no\nUseDNS no\nGSSAPIAuthentication no\n' >"$R/etc/ssh/sshd_config.d/osref.conf"
  rm -f "$R"/etc/ssh/ssh_host_*
  : >"$R/etc/machine-id"; rm -f "$R/var/lib/dbus/machine-id" "$R/etc/resolv.conf" "$R/etc/hostname"
  : >"$R/etc/fstab"; : >"$R/etc/resolv.conf"
  rm -rf "$R"/var/cache/apt/*.bin "$R"/var/lib/apt/lists/* "$R"/var/log/*.log "$R"/var/log/apt
  mkdir -p "$R/var/lib/apt/lists/partial" "$R/var/cache/apt/archives/partial"
  printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n[network]\nnetwork_backend = "netavark"\n[containers]\nlog_driver = "k8s-file"\n' >"$R/etc/containers/containers.conf"
  printf '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' >"$R/etc/containers/storage.conf"
  : >"$R/etc/containers/nodocker"

  say "disk ($(du -sm --apparent-size "$R" | cut -f1) MB of files)"
  truncate -s "$DISK" "$W/disk.raw"
  mke2fs -q -t ext4 -O '^has_journal,^metadata_csum' -m 0 -L rootfs -E lazy_itable_init=1,nodiscard -d "$R" "$W/disk.raw"
  qemu-img convert -O qcow2 -c -o compression_type=zstd "$W/disk.raw" "$W/qcow2"
  mv "$W/kernel" "$B.kernel"; mv "$W/initrd" "$B.initrd"; mv "$W/qcow2" "$B.qcow2"
  rm -rf --one-file-system -- "$W"; trap - EXIT
  for d in "$IMG/$NAME"-*; do case $d in "$B".*) ;; *) rm -f -- "$d";; esac; done
  say "built in $(( $(date +%s)-T1 )) s: $(cd "$IMG" && du -h "${B##*/}".* | tr '\t\n' '  ')"
}
[ -f "$B.qcow2" ] && [ "${1:-}" != --rebuild ] && say "image is there: $B.qcow2" || build
[ "${1:-}" != --build ] || exit 0

say "uploading"
"$PY" - "$B" "$NAME" "$KEY" <<'EOF'
import os, sys
import openstack
base, name, key = sys.argv[1:]
c = openstack.connect(load_yaml_config=False, load_envvars=False, region_name="RegionOne",
    auth=dict(auth_url="http://127.0.0.1:%s/v3" % os.environ.get("P_KEYSTONE", "5000"), username="admin",
              password=os.environ.get("OSREF_PASSWORD", "osref"), project_name="admin",
              user_domain_name="Default", project_domain_name="Default"))
have = [i for i in c.image.images() if i.name in (name, name + "-kernel", name + "-initrd")]
if any(i.name == name and i.properties.get("osref_key") == key and i.status == "active" for i in have):
    print("already in glance"); sys.exit()
for i in have:
    c.image.delete_image(i)
def img(n, fn, fmt, **kw):
    return c.image.create_image(name=n, filename=fn, disk_format=fmt, container_format=fmt if fmt in ("aki", "ari") else "bare",
                                visibility="public", allow_duplicates=True, **kw)
k = img(name + "-kernel", base + ".kernel", "aki")
r = img(name + "-initrd", base + ".initrd", "ari")
img(name, base + ".qcow2", "qcow2", kernel_id=k.id, ramdisk_id=r.id, hw_video_model="none", hw_rng_model="virtio",
    os_distro="debian", os_version="12", os_admin_user="debian", osref_key=key, min_disk=1, min_ram=512,
    os_command_line="root=/dev/vda console=ttyS0 quiet loglevel=3 panic=1 net.ifnames=0 systemd.show_status=false "
    "tsc=reliable clocksource=tsc no_timer_check mitigations=off init_on_alloc=0 audit=0 apparmor=0 selinux=0 "
    "rcupdate.rcu_expedited=1 nowatchdog cryptomgr.notests")
EOF
say "image $NAME is in glance"
