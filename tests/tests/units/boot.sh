#!/usr/bin/env bash
# Boots a systemd of its own, which sees nothing of this machine's: boot.sh FOLDER SERVER AGENT, as root. In it FOLDER is /run/copy with both
# programs under target/release; /etc and /usr/local are as here and may be changed, /run, /tmp, /var/lib and /var/log are empty. It ends
# with this process. FOLDER/cgroup says which control group has to be removed then.
set -euo pipefail
folder=$1

if [ "${4-}" != inside ]; then
  groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  [ -n "$groups" ] || { echo "there is no cgroup2 here"; exit 1; }
  group=$groups$(sed -n 's/^0:://p' /proc/self/cgroup)/signet-units-$$
  mkdir "$group"
  echo "$group" >"$folder/cgroup"
  echo $$ >"$group/cgroup.procs"
  exec setpriv --pdeathsig KILL \
    unshare --pid --mount --cgroup --ipc --uts --fork --kill-child --mount-proc --propagation private "$0" "$@" inside
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/copy /run/over /run/machine /run/generators
mount --bind "$folder" /run/copy
mkdir -p /run/copy/target/release
for program in "$2" "$3"; do
  touch "/run/copy/target/release/${program##*/}"
  mount --bind "$program" "/run/copy/target/release/${program##*/}"
done
mount -t tmpfs tmpfs /run/over
for place in /etc /usr/local; do
  mkdir -p "/run/over$place/upper" "/run/over$place/work"
  mount -t overlay -o "lowerdir=$place,upperdir=/run/over$place/upper,workdir=/run/over$place/work" overlay "$place"
done
for place in /tmp /var/tmp /var/lib /var/log /etc/systemd/system; do
  mount -t tmpfs tmpfs "$place"
done
chmod 1777 /tmp /var/tmp
chmod 755 /var/lib /var/log /etc/systemd/system

# As in a container, nothing of the kernel is changed from here.
umount --recursive --lazy /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# As on any machine with systemd: what the agent mounts is seen by others.
mount --make-rshared /

# What the units ask for, and the journal; nothing else is started.
cd /run/machine
for target in sysinit basic multi-user network-online shutdown; do
  printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"$target.target"
done
echo 'Wants=systemd-journald.socket' >>sysinit.target
echo 'Wants=sysinit.target' >>multi-user.target
for unit in /lib/systemd/system/systemd-journald{.service,.socket,-dev-log.socket}; do
  ln -s "$unit" .
done
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nReadKMsg=no\n' >/etc/systemd/journald.conf.d/units.conf
exec env -i "PATH=$PATH" container=signet SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/machine \
  SYSTEMD_GENERATOR_PATH=/run/generators SYSTEMD_LOG_TARGET=console \
  /lib/systemd/systemd --system --unit=multi-user.target --show-status=no </dev/null
