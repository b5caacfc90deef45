//! `run`: streams, terminals, the process's surroundings.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "output and status",
        r#"
rc run $I echo hello
rc run $I true
rc run $I false
rc run $I sh -c 'exit 7'
rc run $I sh -c 'kill -9 $$; sh -c '\''kill -9 $$'\''; exit $?'
rc run $I nope
rc run $I /etc/passwd
"#,
    ),
    Scenario::new(
        "standard input and output",
        r#"
printf 'a\nb\n' | rc run -i $I cat
head -c 3000000 /dev/zero | rc run -i $I wc -c
rc run $I cat </dev/null
rc run $I sh -c 'echo out; echo err >&2; printf last' 2>$W/err
cat $W/err
rc run $I head -c 20000000 /dev/zero | md5sum
"#,
    ),
    Scenario::new(
        "input whose reader has enough",
        "yes | rc run -i $I head -c 4",
    ),
    Scenario::new(
        "a terminal",
        r#"
rc pty $E run --rm --name $C $F --network none -t $I sh -c '[ -t 0 -a -t 1 -a -t 2 ] && echo terminal'
printf 'stty raw -echo; echo typed; exit 3\n' >$W/in
(printf 'echo $((6*7))\n'; printf 'exit 4\n') | pty $E run --rm --name $C $F --network none -it $I sh >$W/out
grep -c 42 $W/out
rc run -t $I sh -c 'test -t 1 && echo terminal' | tr -d '\r'
"#,
    ),
    Scenario::new(
        "the name of a terminal",
        r#"
run -t $I sh -c 'tty; ls -l /dev/pts | cut -c1 | sort; test -c /dev/console && echo console; readlink /proc/self/fd/0' | tr -d '\r'
"#,
    ),
    Scenario::new(
        "user",
        r#"
run --user 1000:1001 $I id
run --user ada $I sh -c 'id -u; id -g'
run --user 65534 --group-add 77 $I id -G
"#,
    ),
    Scenario::new(
        "capabilities",
        r#"
run $I grep ^Cap /proc/self/status
run --cap-drop ALL $I sh -c 'grep ^Cap /proc/self/status; chown 1 /tmp; echo $?'
run --cap-drop ALL --cap-add CHOWN $I sh -c 'chown 1 /tmp; echo $?; chroot / true; echo $?'
run --security-opt no-new-privileges $I grep NoNewPrivs /proc/self/status
"#,
    ),
    Scenario::new(
        "environment and directory",
        r#"
printf 'A=1\nB=two words\n' >$W/env
run --env-file $W/env -e C=3 -w /home/ada $I sh -c 'echo $A $B $C; pwd'
run --hostname vessel $I hostname
run --entrypoint cat $I /etc/hostname | wc -c
run --env HOME=/x $I env | grep -e ^HOME -e ^PATH | sort
"#,
    ),
    Scenario::new(
        "init",
        r"run --init $I sh -c 'cat /proc/1/comm; sleep 1000 & kill -9 $!; wait $!; echo $?'",
    )
    .only("docker"),
    Scenario::new(
        "networks without addresses",
        r#"
run $I sh -c 'cat /proc/net/dev | wc -l'
e run --rm --name $C $F --network host $I sh -c 'hostname; (echo hi | nc -l -p 39281 &); exit 0' >$W/host; [ $(wc -l <$W/host) = 1 ] && echo one
"#,
    ),
    Scenario::new(
        "the network of another container",
        r#"
up $I sleep 1000
rc e run --rm --name $C-2 $F --network container:$C $I sh -c 'hostname | wc -c; tail -n +3 /proc/net/dev | cut -d: -f1'
"#,
    ),
    Scenario::new(
        "a pod",
        r#"
e pod create --name $C-pod --infra-image $I --infra-command 'sleep 1000' --network none $F >/dev/null
rc e run --rm --name $C --pod $C-pod $I sh -c 'hostname | sed "s/.*-pod$/the pod/"; tail -n +3 /proc/net/dev | cut -d: -f1'
e run -d --name $C --pod $C-pod $I sleep 1000 >/dev/null
e exec $C echo inside
e pod pause $C-pod >/dev/null
e pod ps --filter name=$C-pod --format '{{.Status}} {{.NumberOfContainers}}'
e pod unpause $C-pod >/dev/null
rc e pod stop -t 0 $C-pod >/dev/null
rc e pod start $C-pod >/dev/null
e exec $C echo inside again
rc e pod rm -f -t 0 $C-pod >/dev/null
e ps -aq --filter name=$C | wc -l
"#,
    )
    .only("podman"),
    Scenario::new(
        "read-only root",
        r#"
run --read-only $I sh -c 'echo x >/x; echo $?; echo x >/dev/shm/x; echo $?; mount | grep \ /\  | grep -c [\(,]ro[,\)]'
run --read-only --tmpfs /tmp:size=1m,mode=1777 $I sh -c 'echo x >/tmp/x && cat /tmp/x; head -c 2000000 /dev/zero >/tmp/y; echo $?; stat -c %a /tmp'
"#,
    ),
    Scenario::new(
        "masked files",
        r#"
run $I sh -c 'cat /proc/kcore | wc -c; ls /sys/firmware 2>/dev/null | wc -l; echo x >/proc/sys/kernel/domainname; echo $?'
"#,
    ),
];
