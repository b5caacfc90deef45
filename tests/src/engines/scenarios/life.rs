//! From `create` to `rm`: ends, signals, restarts, pauses, attaching, logs, events.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "stop with grace",
        r#"
up $I sh -c "$WAITS"
says up
rc e stop -t 20 $C >/dev/null
inspect '{{.State.Status}} {{.State.ExitCode}}'
e logs $C
"#,
    ),
    Scenario::new(
        "stop without grace",
        r#"
up $I sh -c 'trap "" TERM; echo up; while :; do sleep 1; done'
says up
rc e stop -t 1 $C >/dev/null
inspect '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}'
"#,
    ),
    Scenario::new(
        "kill and wait",
        r#"
up $I sh -c "$WAITS"
says up
e wait $C >$W/status & w=$!
e kill $C >/dev/null
wait $w
cat $W/status
inspect '{{.State.ExitCode}}'
rc e kill $C >/dev/null 2>&1
rc e start $C >/dev/null
await sh -c "[ \$($E logs $C | grep -c up) = 2 ]"
e kill -s TERM $C >/dev/null
becomes '{{.State.Status}}' exited
inspect '{{.State.ExitCode}}'
"#,
    ),
    Scenario::new(
        "exit statuses",
        r#"
status() { e create --name $C $F --network none "$@" >/dev/null; e start -a $C >/dev/null 2>&1; inspect '{{.State.ExitCode}}'; e rm -f $C >/dev/null; }
status $I true
status $I false
status $I sh -c 'exit 255'
status $I sh -c 'sh -c '\''kill -TERM $$'\''; exit $?'
status $I sh -c 'sh -c '\''kill -9 $$'\''; exit $?'
status $I nope
status $I /etc/passwd
"#,
    ),
    Scenario::new(
        "signals that init handles",
        r#"
up $I sh -c 'for s in HUP INT USR1 USR2 WINCH; do trap "echo got $s" $s; done; echo up; while :; do sleep 0.05; done'
says up
for s in HUP INT USR1 USR2 WINCH; do e kill -s $s $C >/dev/null; says "got $s"; done
e logs $C
"#,
    ),
    Scenario::new(
        "restart on failure",
        r#"
up --restart on-failure:2 $I sh -c 'echo once; exit 3'
becomes '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' '2 exited 3'
e logs $C
inspect '{{.RestartCount}} {{.State.ExitCode}}'
"#,
    ),
    Scenario::new(
        "restart by command",
        r#"
up $I sh -c "echo x >>/count; cat /count | wc -l; $WAITS"
says up
rc e restart -t 20 $C >/dev/null
await sh -c "[ \$($E logs $C | grep -c up) = 2 ]"
e logs $C
"#,
    ),
    Scenario::new(
        "pause",
        r#"
up $I sh -c "$WAITS"
says up
rc e pause $C >/dev/null
inspect '{{.State.Status}}'
rc e exec $C true >/dev/null 2>&1
rc e pause $C >/dev/null 2>&1
rc e unpause $C >/dev/null
inspect '{{.State.Status}}'
rc e exec $C echo again
"#,
    ),
    Scenario::new(
        "logs while it runs, and after",
        r#"
up $I sh -c 'for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf "no newline"; sleep 0.3; echo; echo end'
e logs -f $C 2>$W/err
cat $W/err
e logs $C 2>/dev/null | md5sum
"#,
    ),
    Scenario::new(
        "attach",
        r#"
# It ends when its output has come: what comes with the end, Docker loses now and then on a busy machine.
typist() { echo $1; await grep -q got $W/$1; echo end; }
e create -i --name $C $F --network none $I sh -c 'read a; echo got $a; read b; exit 6' >/dev/null
typist word | rc e start -ai $C >$W/word
cat $W/word
up2() { e rm -f $C >/dev/null; up -i $I sh -c 'echo up; read a; echo got $a; read b; exit 7'; says up; }
up2
typist second | rc e attach $C >$W/second
grep got $W/second
becomes '{{.State.Status}}' exited
inspect '{{.State.ExitCode}}'
"#,
    ),
    Scenario::new(
        "detach from a terminal and come back",
        r#"
pty $E run -dit --name $C $F --network none $I sh -c \
    'while read a; do case $a in *bye*) echo ends; exit 8;; *) echo got $a;; esac; done' </dev/null >/dev/null
inspect '{{.State.Status}}'
# The two keys apart, as typed: podman knows them only so.
(printf 'one\n'; says 'got one'; until [ -e $W/detached ]; do printf '\020'; sleep 0.1; printf '\021'; sleep 0.1; done) |
    { pty $E attach $C >$W/out; touch $W/detached; }
grep -c 'got one' $W/out
inspect '{{.State.Status}}'
(printf 'bye\n'; becomes '{{.State.Status}}' exited) | pty $E attach $C >$W/out
says ends && echo ends
becomes '{{.State.Status}}' exited
inspect '{{.State.ExitCode}}'
"#,
    ),
    Scenario::new(
        "detach from exec",
        r#"
up $I sleep 1000
(printf 'one\n'; until e exec $C test -e /tmp/one; do sleep 0.05; done
 until [ -e $W/detached ]; do printf '\020'; sleep 0.1; printf '\021'; sleep 0.1; done) |
    { pty $E exec -it $C sh -c 'read a; touch /tmp/$a; while :; do sleep 0.05; done' >$W/out; touch $W/detached; }
inspect '{{.State.Status}}'
e exec $C ps -o args | grep -m 1 -o '^sh -c read'
"#,
    ),
    Scenario::new(
        "an interrupt typed at a terminal",
        r#"
e create -it --name $C $F --network none $I sh -c 'trap "echo interrupted; exit 9" INT; echo up; while :; do sleep 0.05; done' >/dev/null
(await has_said up; printf '\003'; becomes '{{.State.Status}}' exited) | pty $E start -ai $C | sort
inspect '{{.State.ExitCode}}'
"#,
    ),
    Scenario::new(
        "the size of a terminal",
        r#"
run -t $I sh -c 'stty size 2>/dev/null; echo $?' | tr -d '\r'
"#,
    ),
    Scenario::new(
        "the size of a terminal that has one",
        r#"
up $I sleep 1000
pty sh -c "stty rows 33 cols 77; exec $E exec -it $C sh -c 'until stty size 2>/dev/null | grep -v 0.0; do sleep 0.1; done'" </dev/null | tail -1 | tail -c 6
pty sh -c "stty rows 44 cols 66; exec $E run --rm --name $C-2 $F --network none -it $I sh -c 'until stty size 2>/dev/null | grep -v 0.0; do sleep 0.1; done'" </dev/null | tail -1 | tail -c 6
"#,
    ),
    Scenario::new(
        "100 MB of logs",
        r#"
up $I sh -c 'yes $(printf %0999d 0) | head -c 100000000'
becomes '{{.State.Status}}' exited
e logs $C | md5sum
"#,
    ),
    Scenario::new(
        "events",
        r#"
since=$(date +%s.%N)
tells() { e events --since $since --until $(date +%s.%N) --filter container=$C --format '{{.Action}}' >$W/events; grep -qx "$1" $W/events; }
up $I sleep 1000
e exec $C true
# Told when the exec's client has gone already.
await tells exec_die
e pause $C >/dev/null; e unpause $C >/dev/null
e stop -t 0 $C >/dev/null
await tells die; await tells stop
grep -v -e resize -e stop $W/events
grep -cx stop $W/events
"#,
    )
    .only("docker"),
    Scenario::new(
        "events",
        r#"
up $I sleep 1000
e exec $C true
e pause $C >/dev/null; e unpause $C >/dev/null
e stop -t 0 $C >/dev/null
e events --stream=false --since 1m --filter container=$C --format '{{.Status}}' | sort -u | grep -v -e stop -e cleanup
"#,
    )
    .only("podman"),
    Scenario::new(
        "health",
        r#"
up --health-cmd 'test -e /healthy' --health-interval 0.2s --health-retries 1 $I sh -c 'while :; do sleep 0.05; done'
becomes '{{.State.Health.Status}}' unhealthy
e exec $C touch /healthy
becomes '{{.State.Health.Status}}' healthy
inspect '{{.State.Health.Status}}'
"#,
    )
    .only("docker"),
    Scenario::new(
        "health",
        r#"
up --health-cmd 'test -e /healthy' --health-interval disable --health-retries 1 $I sh -c 'while :; do sleep 0.05; done'
rc e healthcheck run $C >/dev/null
e exec $C touch /healthy
rc e healthcheck run $C
"#,
    )
    .only("podman"),
    Scenario::new(
        "the container's host process is killed",
        r#"
up $I sleep 1000
kill -9 $(inspect '{{.State.Pid}}')
becomes '{{.State.Status}}' exited
inspect '{{.State.ExitCode}}'
rc e start $C >/dev/null
inspect '{{.State.Running}}'
rc e rm -f $C >/dev/null
"#,
    ),
    Scenario::new(
        "removing what runs",
        r#"
up $I sleep 1000
rc e rm $C >/dev/null 2>&1
rc e rm -f $C >/dev/null
rc e inspect $C >/dev/null 2>&1
up $I echo again
becomes '{{.State.Status}}' exited
e logs $C
"#,
    ),
];
