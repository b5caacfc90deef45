//! Processes, jobs, signals, limits.

use super::Script;

pub(super) const SCRIPTS: &[Script] = &[
    Script::new("background jobs and wait", "for i in 1 2 3 4 5; do (exit $i) & eval p$i=$!; done; for i in 5 3 1 2 4; do eval wait \\$p$i; echo $?; done; sleep 0.05 & wait; echo $?; wait 99999; echo $?").smoke(),
    Script::new("traps", "trap 'echo got TERM' TERM; trap 'echo got INT' INT; trap 'echo at exit $?' EXIT; kill -TERM $$; kill -INT $$; trap '' USR1; kill -USR1 $$; echo alive; trap - INT; trap | sort; exit 3").smoke(),
    Script::new("a trap interrupts wait", "trap 'echo trapped' USR1; sleep 100 & s=$!; (while ! grep -q '^State:.S' /proc/$$/status; do :; done; kill -USR1 $$) & wait $s; echo $?; kill $s; wait $s 2>/dev/null; echo $?"),
    Script::new("exit trap of a killed shell", "sh -c 'trap \"echo bye\" EXIT; kill -TERM $$; echo not reached'; echo $?; sh -c 'trap \"echo bye; exit 5\" TERM; kill -TERM $$; echo not reached'; echo $?"),
    Script::new("death by every signal", "for s in HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM XCPU XFSZ VTALRM PROF IO PWR SYS; do sh -c \"kill -$s \\$\\$\" 2>/dev/null; echo $s $?; done; for s in CHLD CONT URG WINCH; do sh -c \"kill -$s \\$\\$; echo lived through $s\"; done").smoke(),
    Script::new("stop and continue", "(while :; do sleep 0.01; done) & p=$!; kill -STOP $p; while ! grep -q '^State:.T' /proc/$p/status; do :; done; grep ^State /proc/$p/status; kill -CONT $p; while grep -q '^State:.T' /proc/$p/status; do :; done; kill $p; wait $p 2>/dev/null; echo $?"),
    Script::new("the first process is immune to kill -9", "kill -9 $$; echo still $$"),
    Script::new("the first process is immune to TERM", "kill -TERM $$; echo still $$"),
    Script::new("a child's death by signal as last status", "sh -c 'kill -9 $$'; exit $?"),
    Script::new("a child's TERM as last status", "sh -c 'kill -TERM $$'; exit $?"),
    Script::new("kill by name and errors", "kill -l 15; kill -l | wc -w; kill -0 $$; echo $?; kill 99999; echo $?; kill -0 -1; sleep 100 & kill -9 $!; wait $! 2>/dev/null; echo $?; kill -NOSUCH $$; echo $?"),
    Script::new("identity", "id; id -u; id -un ada; id ada; whoami; groups; su ada -c 'id; whoami; echo $HOME'; hostname; uname -s -n -m; echo $$; logname; echo $?"),
    Script::new("limits", "ulimit -n; ulimit -n 64; ulimit -n; ulimit -c 0; ulimit -c; sh -c 'ulimit -n 20; exec 30>/tmp/x; echo $?'; ulimit -f 4; head -c 100000 /dev/zero >/tmp/big; echo $?; stat -c %s /tmp/big"),
    Script::new("deep recursion of processes", "f() { if [ $1 -gt 0 ]; then (f $(($1-1))); else echo bottom; fi; }; f 60; g='if [ $1 -gt 0 ]; then sh -c \"$g\" sh $(($1-1)); else echo bottom; fi'; export g; sh -c \"$g\" sh 25"),
    Script::new("many short processes", "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done; echo $i; for i in $(seq 50); do (exit 1) & done; wait; echo done").smoke(),
    Script::new("exec replaces the shell", "sh -c 'exec echo replaced; echo no'; sh -c 'exec /nothing; echo no'; echo $?; (exec 3>/tmp/f; exec sh -c 'echo by fd >&3'); cat /tmp/f; exec sh -c 'exit 42'"),
    Script::new("orphans", "mkfifo /tmp/p; sh -c 'sh -c \"while ! grep -q ^PPid:.1\\$ /proc/\\$\\$/status; do :; done; echo adopted >/tmp/p\" & exit 0'; cat /tmp/p"),
    Script::new("broken pipe", "yes | head -3; seq 1000000 | head -1; (trap '' PIPE; seq 100000 2>/tmp/e; echo $? >&2) | head -1; cat /tmp/e"),
    Script::new("timeout kills", "timeout 0.1 sleep 100; echo $?; timeout -s KILL 0.1 sleep 100; echo $?; timeout 100 sh -c 'exit 3'; echo $?; time -p true 2>&1 | cut -d' ' -f1"),
    Script::new("a process's own files in /proc", "grep -e ^Name -e ^PPid -e ^Uid -e ^Gid /proc/$$/status; tr '\\0' ' ' </proc/self/cmdline; echo; readlink /proc/self/exe; readlink /proc/$$/cwd; cat /proc/self/comm; ls /proc/self/fd | wc -l; tr '\\0' '\\n' </proc/self/environ | grep ^PATH; cd /home; readlink /proc/self/cwd; test -d /proc/1 && echo 1"),
    Script::new("descriptors in /proc/self/fd", "exec 7</etc/passwd; readlink /proc/self/fd/7; head -1 /proc/self/fd/7; head -1 /dev/fd/7; echo x | cat /proc/self/fd/0; exec 7<&-; ls /proc/$$/fd"),
    Script::new("setsid and nohup", "setsid sh -c 'echo in a new session'; nohup echo kept 2>/dev/null; sh -c 'setsid true; echo $?'"),
    Script::new("process substitution by hand", "cd /tmp; mkfifo a b; sort /etc/passwd >a & sort -r /etc/passwd | sort >b & cmp a b && echo same; wait; echo $?"),
    Script::new("pidof and killall", "sleep 100 & p=$!; while test \"$(cat /proc/$p/comm)\" != sleep; do :; done; pidof sleep | grep -c \"^$p$\"; killall sleep; wait $p 2>/dev/null; echo $?; killall nosuch; echo $?"),
];
