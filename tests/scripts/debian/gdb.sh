# gdb: breakpoints, steps, backtraces through calls and a handler, threads, variables, watchpoints, forks, attaching.
shown() {
    sed -E '/^\[(New |)Thread .*\]$/d; /^\[Detaching after/d; /^\[Switching to/d
        s/0x0*7[0-9a-f]{11}|\b140[0-9]{12}\b/ADDRESS/g; s/tid=[0-9]+/tid=ID/; s/LWP [0-9]+/LWP/g; s/process [0-9]+/process ID/g; s/ +/ /g'
}
debug() {
    local args=()
    for command; do args+=(-ex "$command"); done
    gdb -batch -nx -ex 'set style enabled off' "${args[@]}" /t/debuggee 2>/dev/null </dev/null | shown
    echo "status ${PIPESTATUS[0]}"
}

echo '== a breakpoint'
debug 'handle SIGUSR1 nostop noprint pass' 'break factorial if n == 2' 'run >/tmp/out' bt finish up 'info locals' 'print origin' 'print origin.name' \
    'print &total' 'x/2i $pc' 'info registers rip eflags cs ss fs gs' delete continue
cat /tmp/out
echo '== steps'
debug 'break factorial if n == 3' 'run >/tmp/out' next step step 'stepi 3' nexti 'info registers rip' \
    'delete' 'print factorial(6)' 'set var total = 1000' kill
echo '== a handler that interrupts a blocked call'
debug 'break in_handler' 'handle SIGUSR1 nostop noprint pass' 'run >/tmp/out' bt 'print signo' finish finish bt delete continue
cat /tmp/out
echo '== the signal itself'
debug 'run >/tmp/out' bt 'print $_siginfo.si_signo' 'break in_handler' 'signal SIGUSR1' bt 'info registers rip' kill
echo '== threads'
debug 'break kick' 'run >/tmp/out' 'thread apply all -q print $_thread' 'bt 2' 'print tid > 0' kill
echo '== watchpoints'
debug 'break mark' 'run >/tmp/out' 'watch watched' continue continue 'rwatch origin.y' continue 'info watchpoints' delete continue
debug 'set can-use-hw-watchpoints 0' 'break mark' 'run >/tmp/out' 'watch watched' continue 'info watchpoints' kill
echo '== forks and calls'
debug 'catch fork' 'catch syscall getppid' 'run >/tmp/out' bt continue 'delete 2' 'handle SIGUSR1 nostop noprint pass' continue bt kill
debug 'set follow-fork-mode child' 'handle SIGUSR1 nostop noprint pass' 'run >/tmp/out'
echo '== attached'
sleep 1000 &
id=$!
until grep -q '^State:.S' /proc/$id/status; do :; done
gdb -batch -nx -p $id -ex 'info registers cs ss' -ex 'info inferiors' -ex 'call (int)getppid() == '$$ -ex 'print $rax' 2>/dev/null </dev/null |
    shown | sed -E 's/.* in (clock_nanosleep|nanosleep).*/in \1/'
grep -E '^(State|TracerPid)' /proc/$id/status
kill $id
wait $id
echo "status $?"
