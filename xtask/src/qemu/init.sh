#!/bin/busybox sh
# The first process of the emulated machine: loads KVM, runs the cases, reports on the second serial line.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin
# A root that is mounted on something: pivot_root(2) does not leave the initial one.
if [ "$1" != moved ]; then
    mkdir -p /moved
    mount -o bind / /moved
    cd /moved
    mount -o move . /
    exec chroot . /bin/sh /init moved
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /state
mount -t tmpfs tmpfs /run
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
stty -F /dev/ttyS1 raw
exec 9>/dev/ttyS1
for module in /modules/*.ko; do insmod $module; done
echo "@@kvm $(trykvm), $(cut -d' ' -f1 /proc/uptime) s after boot" >&9

case_of() {
    id=$1
    shift
    timeout -s KILL 100 husk --root /state run --hostname vessel $gdb docker-archive:/image.tar -- "$@" \
        </cases/$id.in >/tmp/stdout 2>/tmp/stderr
    status=$?
    {
        echo "@@case $id $status"
        echo @@stdout
        base64 /tmp/stdout
        echo @@stderr
        base64 /tmp/stderr
        echo @@end
    } >&9
    echo "case $id: status $status, $(cut -d' ' -f1 /proc/uptime) s"
    tail -n 20 /tmp/stderr
}

# The same, waiting for a gdb at the other end of the third serial line.
debugged_case_of() {
    stty -F /dev/ttyS2 raw -echo
    (
        # Listening at port 1234. A try to connect would already be a gdb.
        until grep -q :04D2 /proc/net/tcp; do sleep 1; done
        echo @@debugging >&9
        nc 127.0.0.1 1234 </dev/ttyS2 >/dev/ttyS2
    ) 2>/dev/null &
    gdb="--gdb 127.0.0.1:1234"
    case_of "$@"
    gdb=
}
. /cases/all
echo "@@finished" >&9
poweroff -f
