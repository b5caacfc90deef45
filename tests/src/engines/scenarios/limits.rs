//! Limits and numbers.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "ulimits",
        r#"
run --ulimit nproc=4096:4096 --ulimit nofile=123:456 --ulimit core=0 $I sh -c 'ulimit -n; ulimit -Hn; ulimit -c'
run --ulimit nproc=4096:4096 --ulimit nofile=1024:1024 --ulimit fsize=4096 $I sh -c 'head -c 100000 /dev/zero >/big; stat -c %s /big'
"#,
    ),
    Scenario::new(
        "a limit of processes",
        r#"run --pids-limit 8 $I sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done 2>/dev/null; echo started; ' 2>/dev/null; echo $((  $? != 0 ))"#,
    ),
    Scenario::new(
        "a limit of memory",
        r#"
run --memory 64m --memory-swap 64m $I sh -c 'dd if=/dev/zero of=/dev/null bs=300M count=1; echo $?' 2>/dev/null
run --memory 64m --memory-swap 64m $I sh -c 'dd if=/dev/zero bs=20M count=1 | wc -c; echo $?' 2>/dev/null
"#,
    ),
    Scenario::new(
        "out of memory",
        r#"
up --memory 64m --memory-swap 64m $I dd if=/dev/zero of=/dev/null bs=300M count=1
becomes '{{.State.Status}}' exited
inspect '{{.State.ExitCode}} {{.State.OOMKilled}}'
e rm $C >/dev/null
up --memory 64m --memory-swap 64m $I sh -c 'kill -9 $$; exit 7'
becomes '{{.State.Status}}' exited
inspect '{{.State.ExitCode}} {{.State.OOMKilled}}'
"#,
    ),
    Scenario::new(
        "update",
        r#"
up --memory 256m --memory-swap 512m $I sleep 1000
rc e update --memory 128m --memory-swap 512m $C >/dev/null
inspect '{{.HostConfig.Memory}}'
rc e update --memory 400m --memory-swap 800m $C >/dev/null
inspect '{{.HostConfig.Memory}}'
rc e update --cpu-shares 512 $C >/dev/null
inspect '{{.HostConfig.CpuShares}}'
rc e exec $C dd if=/dev/zero of=/dev/null bs=300M count=1 2>/dev/null
"#,
    ),
    Scenario::new(
        "stats",
        r#"
up $I sh -c 'while :; do :; done'
e stats --no-stream $C >/dev/null
e stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' $C | awk '{ print ($1 + 0 > 0.2) ? "busy" : $0, ($2 + 0 > 0) ? "memory" : $0, ($5 + 0 > 0) ? "processes" : $0 }' | tr -d x
"#,
    ),
    Scenario::new(
        "figures while it is paused",
        r#"
up $I sleep 1000
e pause $C >/dev/null
e stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' $C | awk '{ print ($1 + 0 > 0) ? "memory" : $0, ($4 + 0 > 0) ? "processes" : $0 }'
e unpause $C >/dev/null
e exec $C echo goes on
"#,
    ),
    Scenario::new(
        "update while it is paused",
        r#"
up --memory 256m --memory-swap 512m $I sleep 1000
e pause $C >/dev/null
rc e update --memory 64m --memory-swap 512m $C >/dev/null
inspect '{{.HostConfig.Memory}} {{.State.Status}}'
e unpause $C >/dev/null
e exec $C echo goes on
"#,
    ),
    Scenario::new(
        "update of processors and processes",
        r#"
up $I sleep 1000
rc e update --cpus 0.5 --cpuset-cpus 0 --pids-limit 24 $C >/dev/null
inspect '{{.HostConfig.CpusetCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}'
e exec $C sh -c '(for i in 1 2 3 4 5; do sleep 99 & sleep 99 & sleep 99 & sleep 99 & sleep 99 & sleep 99 & done) </dev/null >/dev/null 2>/tmp/said'
e restart -t 0 $C >/dev/null
e exec $C grep -c fork /tmp/said
e exec $C echo goes on
"#,
    )
    .only("docker"),
    Scenario::new(
        "top while it is paused",
        r#"
up $I sleep 1000
e pause $C >/dev/null
rc e top $C >$W/top
wc -l <$W/top
e unpause $C >/dev/null
"#,
    )
    .only("docker"),
    Scenario::new(
        "top",
        r#"
up $I sleep 1000
e top $C >$W/top
wc -l <$W/top
"#,
    )
    .only("docker"),
    Scenario::new(
        "top by the container's ps",
        "up $I sleep 1000; await e exec $C grep -qx sleep /proc/1/comm; e top $C -o comm,user | sort",
    )
    .only("podman"),
    Scenario::new(
        "containers at once",
        r#"
n=${HUSK_ENGINE_CONTAINERS:-12}
for i in $(seq $n); do e run -d --name $C-$i $F --network none $I sh -c 'echo $((6*7)); sleep 1000' >/dev/null & done
wait
for i in $(seq $n); do await sh -c "$E logs $C-$i | grep -q 42"; done
e ps --filter name=$C --format '{{.Status}}' | grep -c Up
for i in $(seq $n); do e rm -f $C-$i >/dev/null & done
wait
e ps -a --filter name=$C --format '{{.Names}}' | wc -l
"#,
    ),
];
