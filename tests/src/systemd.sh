# systemd as the first process of its own namespaces and of the cgroups (version 2) below one of ours. It starts a message bus, nothing else.
# $1: a directory for a mount, $2: the cgroup's name.
set -e
if [ "$1" != inside ]; then
    mount --make-rprivate /
    mount -t cgroup2 none "$1"
    mkdir "$1/$2"
    echo $$ >"$1/$2/cgroup.procs"
    umount "$1"
    exec unshare --cgroup --mount --pid --ipc --uts --fork --kill-child --mount-proc sh "$0" inside
fi
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run
# Nothing of the machine's changes.
for dir in /dev /proc/sys; do
    mount --rbind $dir $dir
    mount -o remount,bind,ro $dir
done
mkdir -p /run/systemd/system /run/dbus
cd /run/systemd/system
cat >husk.target <<END
[Unit]
DefaultDependencies=no
Wants=dbus.service
END
cat >dbus.socket <<END
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
END
cat >dbus.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
END
exec env -i PATH="$PATH" container=husk-test /lib/systemd/systemd --system --unit=husk.target --log-target=console --show-status=no
