//! Pods: containerd's CRI plugin drives husk's shim as it drives runc's, asked what the kubelet asks.

mod client;
mod messages;
mod node;

use std::fmt::Write;
use std::fs;

use anyhow::{Result, ensure};
use husk_tests::differential::judge;
use husk_tests::suite::{CONTAINERD, Suite};

use messages::*;
use node::{Node, await_that};

/// Ends with status 7 when it is told to.
const POLITE: &str = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";

/// Runs `scenario` with either handler. It gives what the user sees, which must be the same.
fn same(scenario: impl Fn(&Node, &str) -> Result<String>) -> Result<()> {
    let node = Node::start()?;
    let under = |handler| {
        let seen = scenario(&node, handler)?;
        if std::env::var_os("HUSK_SHOW").is_some() {
            println!("--- {handler}\n{seen}");
        }
        Ok(seen)
    };
    let report = judge(
        "pods",
        || under("runc"),
        || under("husk"),
        |oracle, ours| (oracle != ours).then(|| format!("--- runc\n{oracle}--- husk\n{ours}")),
    )?;
    ensure!(report.is_none(), "{}", report.unwrap_or_default());
    Ok(())
}

/// Two containers with one network, and what the kubelet does with them.
fn a_pod(node: &Node, handler: &str) -> Result<String> {
    let mut seen = String::new();
    let shared = node.directory().join(format!("shared-{handler}"));
    fs::create_dir_all(&shared)?;
    let pod = node.pod(handler, POD)?;
    let status = pod.sandbox()?;
    let address = status.network.unwrap_or_default().ip;
    writeln!(
        seen,
        "state {} handler {} address {}",
        status.state,
        status.runtime_handler == handler,
        address.starts_with("10.88.")
    )?;
    let mut server = pod.config("server", &format!("nc -ll -p 80 -e cat & {POLITE}"));
    server.working_dir = "/tmp".to_owned();
    server.envs.push(KeyValue {
        key: "COLOUR".to_owned(),
        value: "blue and green".to_owned(),
    });
    for (container_path, readonly) in [("/shared", false), ("/fixed", true)] {
        server.mounts.push(Mount {
            container_path: container_path.to_owned(),
            host_path: shared.display().to_string(),
            readonly,
            ..Mount::default()
        });
    }
    let server = pod.run(server)?;
    let mut client = pod.config(
        "client",
        "echo out; echo err >&2; printf unended; exec sleep 1000",
    );
    if let Some(security) = client
        .linux
        .as_mut()
        .and_then(|l| l.security_context.as_mut())
    {
        security.run_as_user = Some(Number { value: 1234 });
        security.readonly_rootfs = true;
        security.no_new_privs = true;
        security.seccomp = Some(Empty {});
        security.capabilities = Some(Capability {
            drop_capabilities: vec!["ALL".to_owned()],
            ..Capability::default()
        });
    }
    let client = pod.run(client)?;
    pod.await_exec(&server, "netstat -ltn | grep -q ':80 '")?;
    writeln!(seen, "shims {}", pod.shims()?)?;
    for (id, script) in [
        (&client, "echo over loopback | nc 127.0.0.1 80"),
        (&server, "echo from itself | nc localhost 80"),
        (
            &client,
            "id; touch /x; grep -E '^(NoNewPrivs|CapEff|Seccomp):' /proc/self/status; unshare -U true",
        ),
        (
            &server,
            "pwd; echo $COLOUR; hostname; cat /etc/hostname; id -u",
        ),
        (
            &server,
            "echo from inside >/shared/file; cat /fixed/file; touch /fixed/x",
        ),
        // The pod's sysctl lets it.
        (
            &client,
            "nc -l -p 99 & until netstat -ltn | grep -q ':99 ' || ! kill -0 $!; do sleep 0.05; done; kill $! && echo bound",
        ),
        (&server, "echo in; echo err >&2; exit 3"),
        (&server, "nope"),
        (&server, "kill -9 $$"),
        (
            &server,
            "ls /dev/shm; df /dev/shm | tail -n 1 | grep -o ' /dev/shm$'",
        ),
        (
            &client,
            "ip addr show eth0 | grep -o 'inet 10.88'; ip route | grep -o 'default via 10.88.0.1'",
        ),
        (&server, "head -c 300000 /dev/zero | tr '\\0' x | wc -c"),
    ] {
        writeln!(seen, "exec: {}", pod.exec(id, script)?)?;
    }
    let own = pod.exec(&client, "ip addr show eth0")?;
    ensure!(own.contains(&address), "{own} without {address}");
    let late = pod.exec_within(&server, "echo begun; sleep 1000", 1);
    let late = late.map_err(|error| format!("{error:#}").contains("DeadlineExceeded"));
    writeln!(seen, "exec in time: {late:?}")?;
    writeln!(
        seen,
        "on the host: {}",
        fs::read_to_string(shared.join("file"))?.trim()
    )?;
    await_that("its log", || Ok(pod.log("client")?.contains("err")))?;
    await_that("statistics", || {
        let request = Id { id: server.clone() };
        let stats: ContainerStatsResponse = node.call("ContainerStats", request)?;
        let stats = stats.stats.unwrap_or_default();
        let cpu = stats.cpu.unwrap_or_default().usage_core_nano_seconds;
        let memory = stats.memory.unwrap_or_default().working_set_bytes;
        Ok(cpu.is_some_and(|n| n.value > 0) && memory.is_some_and(|n| n.value > 0))
    })?;
    let request = UpdateContainerResourcesRequest {
        container_id: server.clone(),
        linux: Some(Resources {
            cpu_shares: 256,
            memory_limit_in_bytes: 256 << 20,
            ..Resources::default()
        }),
    };
    let _: Empty = node.call("UpdateContainerResources", request)?;
    // As the kubelet turns logs over.
    let log = pod.log_file("server");
    fs::rename(&log, log.with_extension("old"))?;
    pod.on("ReopenContainerLog", &server)?;
    pod.stop(&server, 60)?;
    writeln!(seen, "stopped: {}", pod.end(&server)?)?;
    writeln!(seen, "its log goes on: {}", pod.log("server")?)?;
    pod.stop(&client, 1)?;
    writeln!(seen, "killed: {}", pod.end(&client)?)?;
    writeln!(seen, "its log: {}", pod.log("client")?)?;
    let ids = [pod.id.clone(), server, client];
    for id in &ids[1..] {
        pod.on("RemoveContainer", id)?;
    }
    pod.on("StopPodSandbox", &pod.id)?;
    writeln!(seen, "state {}", pod.sandbox()?.state)?;
    pod.on("RemovePodSandbox", &pod.id)?;
    node.left(&ids)?;
    Ok(seen)
}

#[test]
fn pods() -> Result<()> {
    same(a_pod)
}

/// How containers end, and what becomes of those that cannot start, in a pod with the node's network.
fn ends(node: &Node, handler: &str) -> Result<String> {
    let mut seen = String::new();
    let pod = node.pod(handler, NODE)?;
    let mut ids = vec![pod.id.clone()];
    for (name, script) in [
        ("well", "echo done"),
        ("badly", "exit 3"),
        ("by-signal", "kill -SEGV $$"),
    ] {
        let id = pod.run(pod.config(name, script))?;
        writeln!(seen, "{name}: {}; log: {}", pod.end(&id)?, pod.log(name)?)?;
        ids.push(id);
    }
    let mut limited = pod.config("limited", "x=$(head -c 300M /dev/zero | tr '\\0' x)");
    if let Some(resources) = limited.linux.as_mut().and_then(|l| l.resources.as_mut()) {
        resources.memory_limit_in_bytes = 64 << 20;
    }
    let id = pod.run(limited)?;
    writeln!(seen, "out of memory: {}", pod.end(&id)?)?;
    ids.push(id);
    let mut missing = pod.config("missing", "");
    missing.command = vec!["/nonexistent".to_owned()];
    let id = pod.create(missing)?;
    let told = pod.start(&id).map_err(|error| format!("{error:#}"));
    writeln!(
        seen,
        "missing: {:?} {}",
        told.map_err(|error| error.contains("no such file")),
        pod.end(&id)?
    )?;
    ids.push(id);
    let mut terminal = pod.config("terminal", "test -t 0 && test -t 1 && echo a terminal");
    terminal.tty = true;
    let id = pod.run(terminal)?;
    writeln!(seen, "{}; log: {}", pod.end(&id)?, pod.log("terminal")?)?;
    ids.push(id);
    // They go with their pod.
    let running = pod.run(pod.config("running", POLITE))?;
    ids.push(running);
    let created = pod.create(pod.config("created", "true"))?;
    ids.push(created);
    pod.on("StopPodSandbox", &pod.id)?;
    pod.on("RemovePodSandbox", &pod.id)?;
    let again = pod.on("RemovePodSandbox", &pod.id).is_ok();
    writeln!(seen, "removed twice: {again}")?;
    node.left(&ids)?;
    Ok(seen)
}

#[test]
fn ends_of_containers() -> Result<()> {
    same(ends)
}

/// Pods outlive containerd; what ends while it is away is seen afterwards.
fn restarted(node: &Node, handler: &str) -> Result<String> {
    let mut seen = String::new();
    let pod = node.pod(handler, POD)?;
    let live = pod.run(pod.config("live", POLITE))?;
    let go = node.directory().join(format!("go-{handler}"));
    fs::create_dir_all(&go)?;
    let mut config = pod.config("dying", "until [ -e /go/now ]; do sleep 0.05; done; exit 5");
    config.mounts.push(Mount {
        container_path: "/go".to_owned(),
        host_path: go.display().to_string(),
        ..Mount::default()
    });
    let dying = pod.run(config)?;
    let before = pod.status(&live)?.started_at;
    let process = pod.process(&dying)?;
    node.restart(|| {
        fs::write(go.join("now"), "")?;
        await_that("its end", || Ok(!process.exists()))
    })?;
    writeln!(seen, "ended meanwhile: {}", pod.end(&dying)?)?;
    writeln!(seen, "state {}", pod.sandbox()?.state)?;
    writeln!(seen, "exec: {}", pod.exec(&live, "echo inside; exit 4")?)?;
    ensure!(
        pod.status(&live)?.started_at == before,
        "it was started again"
    );
    let later = pod.run(pod.config("later", "echo later"))?;
    writeln!(
        seen,
        "later: {}; log: {}",
        pod.end(&later)?,
        pod.log("later")?
    )?;
    pod.stop(&live, 60)?;
    writeln!(
        seen,
        "stopped: {}; log: {}",
        pod.end(&live)?,
        pod.log("live")?
    )?;
    pod.on("StopPodSandbox", &pod.id)?;
    pod.on("RemovePodSandbox", &pod.id)?;
    if handler == "husk" {
        // runc's shim stays, with what ended meanwhile, from containerd 1.7 on.
        node.left(&[pod.id.clone(), live, dying, later])?;
    }
    Ok(seen)
}

#[test]
fn pods_outlive_containerd() -> Result<()> {
    same(restarted)
}

/// The tests above with the containerd and runc of a later Debian release.
#[test]
fn with_the_newest_containerd() -> Result<()> {
    let suite = Suite::newest(&CONTAINERD)?;
    suite.run_tests_again("with_the_newest_containerd", "containerd")
}
