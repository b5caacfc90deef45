//! Cgroups that systemd makes (`--systemd-cgroup`), with a systemd of the test's own: equal under runc and under husk.

use anyhow::{Result, ensure};
use husk_tests::cache::unique;
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both_as};
use husk_tests::systemd::Systemd;
use serde_json::json;

const WAITS: &str = "trap 'echo term; exit 5' TERM; echo up; while :; do sleep 0.05; done";

/// What systemd says of a scope.
fn shown(systemd: &Systemd, scope: &str) -> Result<String> {
    let properties = "LoadState,ActiveState,Slice,CPUQuotaPerSecUSec,MemoryMax,TasksMax";
    let shown = systemd.run(&["systemctl", "show", scope, "-p", properties])?;
    let text = shown.stdout_text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(lines.join(" ") + "\n")
}

/// A life of a container in a slice.
fn life(systemd: &Systemd, runtime: &Runtime, slice: &str) -> Result<String> {
    let name = unique("sd");
    let scope = format!("husk-{name}.scope");
    let directory = match slice.is_empty() {
        true => format!("/sys/fs/cgroup/system.slice/{scope}"),
        false => format!("/sys/fs/cgroup/{slice}/{scope}"),
    };
    let mut bundle = Bundle::new(runtime, &Image::busybox()?, WAITS)?;
    bundle.edit(|v| {
        v["linux"]["cgroupsPath"] = json!(format!("{slice}:husk:{name}"));
        // The scope alone has them: this hierarchy has no controllers.
        v["linux"]["resources"] = json!({});
    })?;
    let id = bundle.create()?;
    let mut seen = shown(systemd, &scope)?;
    runtime.must(&["start", &id])?;
    bundle.wait_for_text(&id, "up")?;
    let processes = systemd.run(&["cat", &format!("{directory}/cgroup.procs")])?;
    ensure!(!processes.stdout.is_empty(), "nobody is in {directory}");
    runtime.must(&["pause", &id])?;
    let frozen = systemd.run(&["cat", &format!("{directory}/cgroup.freeze")])?;
    seen += &format!("{} {}", runtime.status(&id)?, frozen.stdout_text());
    runtime.must(&["resume", &id])?;
    seen += &format!("{}\n", runtime.status(&id)?);
    seen += &shown(systemd, &scope)?;
    runtime.must(&["kill", &id, "TERM"])?;
    runtime.wait_for(&id, "stopped")?;
    seen += &bundle.text(&id);
    runtime.must(&["delete", &id])?;
    seen += &shown(systemd, &scope)?;
    let left = systemd.run(&["test", "-e", &directory])?;
    Ok(format!("{seen}{:?}", left.end))
}

#[test]
fn scopes_live_as_long_as_their_containers() -> Result<()> {
    let systemd = Systemd::start()?;
    for slice in ["system.slice", "husktest.slice", ""] {
        let seen = both_as(
            |runtime| runtime.below(systemd.prefix()).flags(["--systemd-cgroup"]),
            |runtime| life(&systemd, runtime, slice),
        )?;
        ensure!(
            seen.contains("ActiveState=active") && seen.contains("LoadState=not-found"),
            "{seen}"
        );
    }
    Ok(())
}

/// A path that is not in systemd's words is refused, and nothing is made.
#[test]
fn paths_are_in_its_words() -> Result<()> {
    let systemd = Systemd::start()?;
    both_as(
        |runtime| runtime.below(systemd.prefix()).flags(["--systemd-cgroup"]),
        |runtime| {
            let mut bundle = Bundle::new(runtime, &Image::busybox()?, WAITS)?;
            bundle.edit(|v| v["linux"]["cgroupsPath"] = json!("/a/path"))?;
            let (id, path) = (bundle.id(), bundle.path().display().to_string());
            runtime.must_fail(&["create", "--bundle", &path, &id])?;
            runtime.must_fail(&["state", &id])?;
            Ok(String::new())
        },
    )?;
    Ok(())
}
