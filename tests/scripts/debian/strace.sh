# What strace shows of some programs, with ids and addresses taken out.
traced() {
    rm -f /tmp/o.*
    strace -ff -o /tmp/o "$@" 2>&1
    echo "status $?"
    for file in $(ls /tmp/o.* | sort -t. -k2n); do
        echo "== a process or thread"
        sed -E 's/0x[0-9a-f]{7,}/ADDRESS/g; s/getrandom\("[^"]*"/getrandom(BYTES/; s/si_[us]time=[^,}]*/si_time/g; s/ +/ /g; s%/\* [0-9]+ vars \*/%/* vars */%
            s/^(clone3?|wait4|v?fork|get[p]*pid|gettid|set_tid_address)(\(.*\)) = [0-9]+/\1\2 = ID/
            s/si_pid=[0-9]+/si_pid=ID/; s/^(wait4|t?g?kill)\([0-9]+(, [0-9]+)?/\1(ID/; s/=> \{parent_tid.*\}/=> {}/
            s/st_size=[0-9]+/SIZE/; s/, [0-9]+, PROT_READ, MAP_PRIVATE, 3/, SIZE, PROT_READ, MAP_PRIVATE, 3/; s/munmap\(ADDRESS, [0-9]+/munmap(ADDRESS, SIZE/
            s/rt_sigreturn\((.*)\) = [0-9]+/rt_sigreturn(\1) = RAX/; s/tv_nsec=[0-9]+/tv_nsec=N/g; s/child_tid(ptr)?=ADDRESS//' "$file"
    done
}
traced true
traced sh -c 'trap "echo got it" USR1; echo one; echo two >/tmp/f; kill -USR1 $$; exit 3'
traced sh -c 'cat /nonexistent || exec seq 3'
strace -c -o /tmp/o true
echo "summary $?"
strace -e trace=write -e inject=write:retval=2 -o /tmp/o echo a
echo "replaced $?"
strace -e trace=getuid -e inject=getuid:error=EPERM:signal=SIGWINCH -o /tmp/o sh -c 'echo goes on'
echo "injected $?"
cat /tmp/o | sed -E 's/si_pid=[0-9]+/si_pid=ID/'
sleep 1000 &
id=$!
until grep -q '^State:.S' /proc/$id/status; do :; done
(
    until [ "$(awk '/^TracerPid/ { print $2 }' /proc/$id/status)" != 0 ]; do :; done
    kill $id
) &
strace -e trace=none -p $id 2>&1 | sed -E 's/[0-9]+ (attached|detached)/ID \1/; s/si_pid=[0-9]+/si_pid=ID/'
wait $id
echo "attached $?"
