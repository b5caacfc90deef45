//! `exec`: another process in a container that runs.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "exec",
        r#"
up $I sleep 1000
rc e exec $C echo hello
rc e exec $C sh -c 'echo out; echo err >&2; exit 9' 2>$W/err
cat $W/err
rc e exec $C nope 2>/dev/null
rc e exec $C /etc/passwd 2>/dev/null
rc e exec $C sh -c 'kill -9 $$'
rc e exec $C sh -c 'kill -TERM $$'
await e exec $C grep -qx sleep /proc/1/comm
rc e exec $C ps -o comm | grep -c sleep
rc inspect '{{.State.Status}}'
"#,
    ),
    Scenario::new(
        "exec with input",
        r#"
up $I sleep 1000
printf 'a\nb\n' | rc e exec -i $C cat
head -c 5000000 /dev/zero | rc e exec -i $C md5sum
rc e exec $C cat </dev/null
rc e exec -i $C sh -c 'read a; echo got $a; exit 3' <<<word
rc e exec $C dd if=/dev/zero bs=1M count=20 2>/dev/null | md5sum
"#,
    ),
    Scenario::new(
        "exec with a terminal",
        r#"
up $I sleep 1000
rc pty $E exec -t $C sh -c '[ -t 0 -a -t 1 -a -t 2 ] && echo terminal'
(printf 'echo $((6*7))\nexit 4\n') | pty $E exec -it $C sh >$W/out
grep -c 42 $W/out
pty $E exec -t $C sh -c 'tty | tr -d 0-9'
pty $E exec -t $C sh -c 'exit 5'; echo ${PIPESTATUS[0]}
"#,
    ),
    Scenario::new(
        "exec in the background",
        r#"
up $I sleep 1000
rc e exec -d $C sh -c 'echo done >/tmp/done; sleep 1000' >/dev/null
await e exec $C grep done /tmp/done
await e exec $C sh -c 'ps -o comm | grep -cx sleep | grep -x 2'
"#,
    ),
    Scenario::new(
        "exec as somebody, somewhere",
        r#"
up $I sleep 1000
rc e exec -u 1000:1001 $C id
rc e exec -u ada $C id -un
rc e exec -w /home $C pwd
rc e exec -w /nope $C pwd 2>/dev/null
rc e exec -e A=b -e HOME=/x $C sh -c 'echo $A $HOME'
e exec $C grep ^Cap /proc/self/status
"#,
    ),
    Scenario::new(
        "a process of exec is killed",
        r#"
up $I sh -c 'sleep 1000'
(e exec $C sh -c 'exec sleep 2000' 2>/dev/null; echo $? >$W/status) &
await e exec $C sh -c 'ps -o args | grep -q "^sleep 2000"'
e exec $C sh -c 'kill -9 $(ps -o pid,args | grep "[s]leep 2000" | cut -c1-6)'
wait
cat $W/status
inspect '{{.State.Running}}'
"#,
    ),
    Scenario::new(
        "the container ends during exec",
        r#"
up $I sh -c 'sleep 1000'
(e exec $C sleep 2000 2>/dev/null; echo $? >$W/status) &
await e exec $C sh -c 'ps -o args | grep -q "^sleep 2000"'
e kill $C >/dev/null
wait
cat $W/status
becomes '{{.State.Running}}' false
rc e exec $C true 2>/dev/null
"#,
    ),
    Scenario::new(
        "many execs at once",
        r#"
up $I sleep 1000
for i in 1 2 3 4 5 6 7 8; do (printf $i | e exec -i $C sh -c 'sleep 0.1; cat; exit '$i >$W/out.$i; echo " $?" >>$W/out.$i) & done
wait
cat $W/out.*
"#,
    ),
];
