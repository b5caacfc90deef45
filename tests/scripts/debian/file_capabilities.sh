# Capabilities of a file: kept, used by who executes it, gone when it is written to.
cp /usr/bin/grep /tmp/g; cp /usr/bin/grep /tmp/i
set_caps() { perl -e '($f, $n, $v) = ($ARGV[0] . "", "security.capability", pack "V5", @ARGV[1..5]); print syscall(188, $f, $n, $v, 20, 0) == 0 ? "set\n" : "$!\n"' "$@"; }
get_caps() { perl -e '($f, $n, $b) = ($ARGV[0] . "", "security.capability", "\0" x 64); $l = syscall(191, $f, $n, $b, 64); print $l > 0 ? unpack("H*", substr $b, 0, $l) : $!, "\n"' "$1"; }
as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
set_caps /tmp/g $((0x02000001)) $((0x401)) 0 0 0
set_caps /tmp/i $((0x02000000)) 0 $((0x401)) 0 0
get_caps /tmp/g; get_caps /tmp/i; get_caps /usr/bin/grep
as_user /tmp/g -e Cap /proc/self/status
as_user /tmp/i -e Cap /proc/self/status
as_user --no-new-privs /tmp/g -e CapPrm -e CapEff /proc/self/status
as_user --bounding-set -net_bind_service /tmp/g Cap /proc/self/status; echo $?
/tmp/g -e CapPrm -e CapEff /proc/self/status
cp --preserve=all /tmp/g /tmp/h; get_caps /tmp/h
ln /tmp/h /tmp/k; chown 5 /tmp/k; get_caps /tmp/h
echo >>/tmp/g; get_caps /tmp/g; as_user /tmp/g CapPrm /proc/self/status
