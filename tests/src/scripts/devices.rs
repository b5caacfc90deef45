//! Devices, streams and binary data.

use super::{Input, Script};

pub(super) const SCRIPTS: &[Script] = &[
    Script::new("null and zero", "echo gone >/dev/null; cat /dev/null | wc -c; head -c 100000 /dev/zero | md5sum; echo x >/dev/zero; echo $?; stat -c '%n %F %a %t,%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty").smoke(),
    Script::new("full", "echo x >/dev/full; echo $?; head -c 4 /dev/full | od -An -tx1; dd if=/dev/zero of=/dev/full bs=1 count=1 2>&1 | head -1; seq 10 >/dev/full; echo $?").smoke(),
    Script::new("random bytes", "head -c 100000 /dev/urandom | wc -c; head -c 32 /dev/random | wc -c; a=$(head -c 16 /dev/urandom | md5sum); b=$(head -c 16 /dev/urandom | md5sum); [ \"$a\" != \"$b\" ] && echo differ; dd if=/dev/urandom bs=1M count=1 2>/dev/null | gzip | wc -c | awk '{print ($1 > 1000000)}'"),
    Script::new("no terminal", "tty; echo $?; test -t 0; echo $?; echo x >/dev/tty; echo $?; stty; echo $?"),
    Script::new("the names of /dev", "for i in stdin stdout stderr fd; do readlink /dev/$i; done; echo out >/dev/stdout; echo err >/dev/stderr; ls /dev | grep -x -e null -e zero -e full -e random -e urandom -e tty"),
    Script::new("a large pipe", "yes | head -c 10485760 | md5sum; seq 500000 | md5sum; head -c 20000000 /dev/zero | tail -c 5000000 | cat | cat | wc -c"),
    Script::new("standard input passed through", "cat").input(Input::Text("first\nsecond\nwithout newline")).smoke(),
    Script::new("binary data through cat", "cat").input(Input::Random(5 << 20)),
    Script::new("binary data through tools", "tee /tmp/f | md5sum; md5sum /tmp/f; wc -c /tmp/f; gzip </tmp/f | gunzip | cmp - /tmp/f && echo same; head -c 1000 /tmp/f >&2").input(Input::Random(1 << 20)),
    Script::new("half of the input is read", "head -c 1000 | md5sum; dd bs=1 count=10 2>/dev/null | od -An -tx1 | wc -l").input(Input::Random(3 << 20)),
    Script::new("input that nobody reads", "echo not reading").input(Input::Random(3 << 20)),
    Script::new("empty input", "cat | wc -c; read x; echo $?; wc -c </dev/stdin"),
    Script::new("much output on both streams", "seq 200000; seq 100000 >&2"),
    Script::new("binary output on both streams", "head -c 3000000 /bin/busybox; head -c 70000 /bin/busybox >&2"),
    Script::new("output without newline, then death", "printf 'no newline'; printf 'nor here' >&2; sh -c 'printf inner; kill -9 $$'"),
    Script::new("no output at all", "exit 99"),
    Script::new("mounts exist", "test -d /proc/self && test -d /sys && test -d /dev && echo ok; grep -c ' /proc ' /proc/mounts; grep ' /dev/null ' /proc/mounts | wc -l"),
    Script::new("shared memory and pts directories", "ls -ld /dev/shm /dev/pts | awk '{print $1, $3, $4}'; echo x >/dev/shm/f; cat /dev/shm/f; ls /dev/shm"),
];
