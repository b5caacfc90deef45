//! What the specification says about the process and its surroundings, as the process sees it: equal under runc and
//! under husk. And what must not be left behind.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use husk_tests::capture::{End, capture};
use husk_tests::image::Image;
use husk_tests::oci::{self, Bundle, Runtime, both};
use serde_json::{Value, json};

fn image() -> Result<Image> {
    Image::busybox()
}

/// [`oci::equal`] over busybox.
fn equal(script: &str, change: impl Fn(&mut Value)) -> Result<String> {
    oci::equal(&image()?, script, change)
}

#[test]
fn user_groups_umask_directory() -> Result<()> {
    let seen = equal(
        "id -u; id -g; id -G; umask; pwd; touch /tmp/f; stat -c %u:%g:%a /tmp/f",
        |v| {
            v["process"]["user"] =
                json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 63});
            v["process"]["cwd"] = json!("/tmp");
            v["root"]["readonly"] = json!(false);
            v["mounts"].as_array_mut().into_iter().for_each(|mounts| {
            mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}));
        });
        },
    )?;
    assert!(seen.contains("1001 5 7"), "{seen}");
    Ok(())
}

#[test]
fn capabilities_as_status_shows_them() -> Result<()> {
    let script = "grep -e ^Cap -e NoNew /proc/self/status";
    equal(script, |_| {})?;
    equal(script, |v| {
        v["process"]["noNewPrivileges"] = json!(false);
        for set in [
            "bounding",
            "effective",
            "permitted",
            "inheritable",
            "ambient",
        ] {
            v["process"]["capabilities"][set] = json!(["CAP_CHOWN", "CAP_KILL"]);
        }
        v["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    })?;
    let seen = equal(script, |v| {
        v["process"]["capabilities"] = json!({});
        v["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    })?;
    assert!(seen.contains("CapEff:\t0000000000000000"), "{seen}");
    Ok(())
}

#[test]
fn resource_limits() -> Result<()> {
    let seen = equal(
        "grep -e 'open files' -e 'stack size' -e 'core file' -e 'file size' /proc/self/limits",
        |v| {
            v["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 1_000_000},
            ]);
        },
    )?;
    assert!(seen.contains("200"), "{seen}");
    Ok(())
}

/// runc 1.1 knows no `domainname`, so husk alone is asked.
#[test]
fn the_domain_name() -> Result<()> {
    let image = image()?;
    both(|runtime| {
        if runtime.name != "runc" {
            let mut bundle = Bundle::new(runtime, &image, "cat /proc/sys/kernel/domainname")?;
            bundle.edit(|v| v["domainname"] = json!("a-domain"))?;
            let seen = bundle.run()?.stdout_text();
            anyhow::ensure!(seen == "a-domain\n", "{seen}");
        }
        Ok(String::new())
    })?;
    Ok(())
}

#[test]
fn environment_arguments_names() -> Result<()> {
    let seen = equal("env | sort; hostname; cat /proc/self/oom_score_adj", |v| {
        v["process"]["env"] = json!(["PATH=/bin", "A=b c", "EMPTY=", "PATH2=x"]);
        v["hostname"] = json!("a-name");
        v["process"]["oomScoreAdj"] = json!(100);
    })?;
    assert!(seen.contains("HOME=/root"), "{seen}");
    Ok(())
}

#[test]
fn mounts_as_mountinfo_shows_them() -> Result<()> {
    // Path, options of the mount, type and options of the file system; the root's own and cgroups differ, and masks of
    // what the libOS has not.
    let script = "sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | grep -v -e '^[^ ]* / ' -e cgroup -e /proc/acpi \
                  -e /proc/keys -e /proc/timer_list -e /proc/sched_debug | sed 's/,inode64//'";
    let seen = equal(script, |v| {
        v["mounts"].as_array_mut().into_iter().for_each(|mounts| {
            mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "scratch",
                "options": ["nosuid", "nodev", "noexec", "size=1m", "mode=1770", "uid=5"]}));
            mounts.push(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "noatime"]}));
        });
    })?;
    assert!(
        seen.contains(
            "/ /tmp rw,nosuid,nodev,noexec,relatime - tmpfs scratch rw,size=1024k,mode=1770,uid=5"
        ),
        "{seen}"
    );
    Ok(())
}

#[test]
fn masked_and_read_only_paths() -> Result<()> {
    let seen = equal(
        "ls /etc; cat /hidden | wc -c; echo x > /etc/new || echo no; echo x > /shown/new || echo no; \
         echo x > /proc/sys/kernel/hostname || echo no",
        |v| {
            v["root"]["readonly"] = json!(false);
            v["process"]["args"] = json!([
                "sh",
                "-c",
                v["process"]["args"][2].as_str().unwrap_or_default()
            ]);
            v["linux"]["maskedPaths"] = json!(["/etc", "/bin/busybox-nope", "/no/such/path"]);
            v["linux"]["readonlyPaths"] = json!(["/proc/sys", "/tmp", "/no/such/path"]);
        },
    )?;
    assert!(seen.contains("no\n"), "{seen}");
    Ok(())
}

#[test]
fn a_read_only_root() -> Result<()> {
    let seen = equal(
        "touch /x && echo yes; touch /dev/shm/x && echo yes; mkdir /home/y || echo no",
        |_| {},
    )?;
    assert_eq!(seen, "yes\nno\nStatus(0)");
    equal("touch /x && echo yes", |v| {
        v["root"]["readonly"] = json!(false)
    })?;
    Ok(())
}

#[test]
fn devices() -> Result<()> {
    equal(
        "ls /dev | sort; ls -l /dev/mine | cut -c1-10; stat -c %t:%T:%u /dev/mine; echo x > /dev/null; head -c3 /dev/zero | wc -c",
        |v| {
            v["linux"]["devices"] = json!([
                {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8},
            ]);
        },
    )?;
    Ok(())
}

#[test]
fn bind_mounts_are_seen() -> Result<()> {
    let seen = equal(
        "cat /given/one /file; echo x > /given/two || echo no; sed -n 's/^.* \\(\\/given\\) \\([a-z,]*\\) .*/\\1 \\2/p' /proc/self/mountinfo",
        |v| {
            let dir = std::env::temp_dir().join("husk-test-volume");
            let _ = fs::create_dir_all(&dir);
            let _ = fs::write(dir.join("one"), "one\n");
            v["mounts"].as_array_mut().into_iter().for_each(|mounts| {
            mounts.push(json!({"destination": "/given", "type": "bind", "source": dir, "options": ["rbind", "ro"]}));
            mounts.push(json!({"destination": "/file", "type": "bind", "source": dir.join("one"), "options": ["bind", "ro"]}));
        });
            v["root"]["readonly"] = json!(false);
        },
    )?;
    assert!(seen.starts_with("one\none\nno\n"), "{seen}");
    Ok(())
}

#[test]
fn the_seccomp_profile_filters() -> Result<()> {
    let profile = |rules: Value| {
        move |v: &mut Value| {
            v["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules.clone(),
            });
        }
    };
    let errno = equal(
        "mkdir /tmp/d; echo $?; chmod 700 /tmp; echo $?; grep Seccomp: /proc/self/status",
        profile(json!([
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ])),
    )?;
    assert!(errno.contains("Seccomp:\t2"), "{errno}");
    let killed = equal(
        "sh -c 'mkdir /tmp/d; echo not reached'; echo $?; umask 077; sh -c 'umask 022; umask 0777; echo not reached'; echo $?",
        profile(json!([
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["umask"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 511, "op": "SCMP_CMP_EQ"}]},
        ])),
    )?;
    assert!(killed.contains("159"), "{killed}");
    equal(
        "sh -c 'mkdir /tmp/d'; echo $?",
        profile(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRAP"}])),
    )?;
    Ok(())
}

#[test]
fn the_limit_of_processes() -> Result<()> {
    let runtime = Runtime::husk()?;
    let image = image()?;
    let script = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; echo all";
    let mut bundle = Bundle::new(&runtime, &image, script)?;
    bundle.edit(|v| v["linux"]["resources"]["pids"] = json!({"limit": 10}))?;
    let done = bundle.run()?;
    ensure!(
        !done.stdout_text().contains("all"),
        "thirty processes ran: {done:?}"
    );
    Ok(())
}

#[test]
fn a_missing_program_is_an_error_of_create() -> Result<()> {
    let image = image()?;
    for (program, text) in [
        ("no-such", "executable file not found"),
        ("/no/such", "no such file"),
        ("/etc", "permission denied"),
        ("/etc/passwd", "permission denied"),
    ] {
        both(|runtime| {
            let mut bundle = Bundle::new(runtime, &image, "")?;
            bundle.edit(|v| v["process"]["args"] = json!([program]))?;
            let id = bundle.id();
            let end = bundle.try_create(&id, &[])?;
            let told = bundle.text(&id);
            ensure!(
                told.contains(text) || runtime.name == "runc",
                "{program}: {told}"
            );
            // runc leaves some of these half-made.
            ensure!(runtime.name == "runc" || runtime.must_fail(&["state", &id]).is_ok());
            Ok(format!("{end:?}"))
        })?;
    }
    Ok(())
}

#[test]
fn the_vmm_is_confined() -> Result<()> {
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &image()?, "echo up; sleep 1000")?;
    let id = bundle.started()?;
    bundle.wait_for_text(&id, "up")?;
    let text = runtime.must(&["check", "--jail", &id])?;
    ensure!(text.contains("no_new_privs   yes"), "{text}");
    ensure!(!text.contains("no system call filter"), "{text}");
    ensure!(!text.contains("sys_admin"), "{text}");
    let descriptors: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("descriptor"))
        .collect();
    ensure!(
        descriptors
            .iter()
            .all(|line| !line.contains(".sock") && !line.contains("config.json")),
        "{text}"
    );
    Ok(())
}

/// Numbers from a seed: a linear congruential generator (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn spawn(runtime: &Runtime, arguments: &[&str]) -> Result<Child> {
    runtime
        .command()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start husk")
}

/// What anywhere bears one of the names `ids`.
fn leftovers(runtime: &Runtime, ids: &[String]) -> Result<Vec<String>> {
    let is_ours = |text: &str| ids.iter().any(|id| text.contains(id.as_str()));
    let mut found: Vec<String> = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if is_ours(&line) {
            found.push(format!("process {line}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    found.extend(
        mounts
            .lines()
            .filter(|line| is_ours(line))
            .map(|line| format!("mount {line}")),
    );
    for dir in [Path::new("/sys/fs/cgroup"), runtime.state()] {
        let list = Command::new("find").arg(dir).output()?;
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        found.extend(
            text.lines()
                .filter(|line| is_ours(line))
                .map(|line| format!("file {line}")),
        );
    }
    Ok(found)
}

/// Containers whose runtime or VMM is killed at a random moment; `list` and `delete --force` then leave nothing. Those of
/// images, whose ids husk chooses, take `list` only. `HUSK_KILLS` is their number.
#[test]
fn whatever_dies_nothing_stays() -> Result<()> {
    let runtime = Runtime::husk()?;
    let count: u64 = std::env::var("HUSK_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    let image = image()?;
    let script = "while :; do sleep 0.01; done";
    let bundle = Bundle::new(&runtime, &image, script)?;
    let path = bundle.path().display().to_string();
    let source = format!("docker-archive:{}", image.docker_archive().display());
    let containers = runtime.state().join("containers");
    let mut numbers = Numbers(0x5eed);
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = bundle.id();
        let kind = numbers.below(3);
        let mut child = match kind {
            0 => spawn(&runtime, &["run", "--bundle", &path, &id])?,
            1 => spawn(&runtime, &["create", "--bundle", &path, &id])?,
            _ => spawn(&runtime, &["run", &source, "--", "sh", "-c", script])?,
        };
        // A life takes some 100 ms; the moment of death is anywhere in it.
        let moment = Instant::now() + Duration::from_millis(numbers.below(200));
        let mut killed = false;
        while !killed && child.try_wait()?.is_none() {
            if Instant::now() >= moment {
                let id = if kind == 2 {
                    unknown_id(&containers, &ids)?
                } else {
                    Some(id.clone())
                };
                // The runtime, or the VMM where there is one already.
                let init = id
                    .and_then(|id| fs::read(containers.join(id).join("record")).ok())
                    .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
                    .and_then(|record| record["init"]["pid"].as_i64());
                match init {
                    Some(pid) if numbers.below(2) == 0 => {
                        let _ = Command::new("kill")
                            .args(["-9", &pid.to_string()])
                            .stderr(Stdio::null())
                            .status();
                    }
                    _ => child.kill()?,
                }
                killed = true;
            }
            std::thread::yield_now();
        }
        child.wait()?;
        if kind < 2 && numbers.below(3) == 0 {
            // Some are started, and that too is killed.
            let mut start = spawn(&runtime, &["start", &id])?;
            let moment = Instant::now() + Duration::from_millis(numbers.below(50));
            while start.try_wait()?.is_none() && Instant::now() < moment {
                std::thread::yield_now();
            }
            start.kill()?;
            start.wait()?;
        }
        if kind < 2 {
            ids.push(id);
        } else {
            ids.extend(unknown_id(&containers, &ids)?);
        }
    }
    runtime.must(&["list"])?;
    for id in &ids {
        runtime.must(&["delete", "--force", id])?;
    }
    ensure!(runtime.must(&["list", "-q"])?.is_empty());
    // Whatever bears the state directory's name is of a container whose id nobody has seen.
    ids.push(runtime.state().display().to_string());
    let left: Vec<String> = leftovers(&runtime, &ids)?
        .into_iter()
        .filter(|found| !is_store(runtime.state(), found))
        .collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    // What containers of images have written goes with the next use of the store.
    runtime.must(&["image", "ls"])?;
    let written = fs::read_dir(runtime.state().join("v2/tmp"))?.count();
    ensure!(written == 0, "{written} roots of containers stay");
    Ok(())
}

/// An id in the directory of containers that is not among `ids`.
fn unknown_id(containers: &Path, ids: &[String]) -> Result<Option<String>> {
    let Ok(entries) = fs::read_dir(containers) else {
        return Ok(None);
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.len() == 64 && !ids.contains(name)))
}

/// Whether a line of [`leftovers`] is about the image store, or the directory of containers itself.
fn is_store(state: &Path, found: &str) -> bool {
    let Some(below) = found
        .strip_prefix("file ")
        .and_then(|path| path.strip_prefix(&state.display().to_string()))
    else {
        return false;
    };
    matches!(below, "" | "/containers" | "/containers/lock")
        || (below.starts_with('/') && !below.starts_with("/containers/"))
}

/// A container of an image is one as any other while it runs, and goes with the command, even if that is killed.
#[test]
fn containers_of_images() -> Result<()> {
    let runtime = Runtime::husk()?;
    let image = image()?;
    let source = format!("docker-archive:{}", image.docker_archive().display());
    let script = "trap 'exit 6' TERM; touch /tmp/up; while :; do sleep 0.05; done";
    let containers = runtime.state().join("containers");
    for ends_by in ["kill", "delete", "SIGKILL"] {
        let mut child = spawn(
            &runtime,
            &["run", "--memory", "64m", &source, "--", "sh", "-c", script],
        )?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let id = loop {
            if let Some(id) = unknown_id(&containers, &[])?
                && runtime.verb(&["exec", &id, "test", "-e", "/tmp/up"])?.end == End::Status(0)
            {
                break id;
            }
            ensure!(Instant::now() < deadline, "it does not come up");
        };
        ensure!(runtime.status(&id)? == "running");
        let jail = runtime.must(&["check", "--jail", &id])?;
        ensure!(
            jail.contains("no_new_privs   yes") && jail.contains("system call filter"),
            "{jail}"
        );
        let limit = Path::new("/sys/fs/cgroup/memory").join(format!("husk-{id}"));
        if limit.exists() {
            let bytes: u64 = fs::read_to_string(limit.join("memory.limit_in_bytes"))?
                .trim()
                .parse()?;
            ensure!(bytes == (64 + 96) << 20, "{bytes}");
        }
        match ends_by {
            "kill" => runtime.must(&["kill", &id, "TERM"]).map(drop)?,
            "delete" => runtime.must(&["delete", "--force", &id]).map(drop)?,
            _ => child.kill()?,
        }
        let status = child.wait()?;
        match ends_by {
            "kill" => ensure!(status.code() == Some(6), "{status}"),
            "delete" => ensure!(status.code() == Some(137), "{status}"),
            _ => {}
        }
        ensure!(runtime.must(&["list", "-q"])?.is_empty(), "{ends_by}");
        let left = leftovers(&runtime, &[id])?;
        ensure!(left.is_empty(), "{ends_by}: {left:#?}");
    }
    Ok(())
}

/// With and without namespaces and a cgroup, as `--rootless` says.
#[test]
fn images_without_namespaces() -> Result<()> {
    let runtime = Runtime::husk()?;
    let source = format!("docker-archive:{}", image()?.docker_archive().display());
    let script = "touch /written && id -u; exit 4";
    for rootless in ["true", "false", "auto"] {
        let flag = format!("--rootless={rootless}");
        let done = runtime.verb(&[&flag, "run", &source, "--", "sh", "-c", script])?;
        ensure!(
            done.end == End::Status(4) && done.stdout_text() == "0\n" && done.stderr.is_empty(),
            "{rootless}: {done:?}"
        );
    }
    runtime.must(&["image", "ls"])?;
    let written = fs::read_dir(runtime.state().join("v2/tmp"))?.count();
    ensure!(written == 0, "{written} roots of containers stay");
    let limited = [
        "--rootless=true",
        "run",
        "--cpus",
        "1",
        &source,
        "--",
        "true",
    ];
    let text = runtime.must_fail(&limited)?;
    ensure!(text.contains("--cpus cannot be kept to"), "{text}");
    let bundle = Bundle::new(&runtime, &image()?, "true")?;
    let path = bundle.path().display().to_string();
    let text =
        runtime.must_fail(&["--rootless=true", "create", "--bundle", &path, &bundle.id()])?;
    ensure!(text.contains("needs namespaces and a cgroup"), "{text}");
    ensure!(runtime.must(&["list", "-q"])?.is_empty());
    Ok(())
}

/// `start` tells how a VMM ended that never ran the program, and what to do about it.
#[test]
fn a_vmm_that_dies_early_is_told_of() -> Result<()> {
    let runtime = Runtime::husk()?;
    let image = image()?;
    // Killed while libcontainer's process, which becomes the VMM, runs a hook.
    let mut bundle = Bundle::new(&runtime, &image, "true")?;
    bundle.edit(|v| {
        v["root"]["readonly"] = json!(false);
        let args = json!(["sh", "-c", "touch /begun; sleep 1000"]);
        v["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": args}]});
    })?;
    let id = bundle.create()?;
    let mut command = runtime.command();
    let start = command
        .args(["start", &id])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bundle.path().join("rootfs/begun").exists() {
        ensure!(Instant::now() < deadline, "no hook runs");
        std::thread::yield_now();
    }
    let state: Value = serde_json::from_str(&runtime.must(&["state", &id])?)?;
    let killed = Command::new("kill")
        .args(["-KILL", &state["pid"].to_string()])
        .status()?;
    ensure!(killed.success());
    let done = start.wait_with_output()?;
    let text = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(1), "{:?}", done.status);
    ensure!(
        text.contains("its VMM was killed by SIGKILL before the program ran: somebody killed it"),
        "{text}"
    );
    runtime.must(&["delete", &id])?;

    // Killed by the kernel, for want of memory in its cgroup.
    let bundle = Bundle::new(&runtime, &image, "true")?;
    let id = bundle.create()?;
    let limits = [
        format!("/sys/fs/cgroup/memory/husk-{id}/memory.limit_in_bytes"),
        format!("/sys/fs/cgroup/husk-{id}/memory.max"),
    ];
    let limit = limits.iter().find(|file| Path::new(file).exists());
    fs::write(limit.context("no cgroup of memory")?, "4194304")?;
    let text = runtime.must_fail(&["start", &id])?;
    ensure!(
        text.contains(
            "its VMM was killed by SIGKILL before the program ran: the container's cgroup"
        ),
        "{text}"
    );
    runtime.must(&["delete", &id])?;

    // A hook's failure is no death of the VMM.
    let mut bundle = Bundle::new(&runtime, &image, "true")?;
    bundle.edit(|v| {
        let args = json!(["sh", "-c", "exit 3"]);
        v["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": args}]});
    })?;
    let text = runtime.must_fail(&["start", &bundle.create()?])?;
    ensure!(text.contains("a startContainer hook failed"), "{text}");
    Ok(())
}

/// `run` in the foreground keeps nobody from working on its container.
#[test]
fn a_foreground_run_can_be_killed() -> Result<()> {
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &image()?, "while :; do sleep 0.05; done")?;
    let id = bundle.id();
    let path = bundle.path().display().to_string();
    let mut child = spawn(&runtime, &["run", "--bundle", &path, &id])?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !matches!(runtime.status(&id).as_deref(), Ok("running")) {
        ensure!(Instant::now() < deadline, "it does not run");
    }
    runtime.must(&["kill", &id, "KILL"])?;
    ensure!(child.wait()?.code() == Some(137));
    ensure!(runtime.must(&["list", "-q"])?.is_empty());
    Ok(())
}

/// One clear line where the cgroup cannot be made, for bundles and images, and nothing half-made.
#[test]
fn cgroups_that_cannot_be_made() -> Result<()> {
    // Read-only in a mount namespace of its own.
    let script = "for dir in $(grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5); do \
                  mount -o remount,bind,ro $dir || exit 99; done; exec \"$0\" \"$@\"";
    let image = image()?;
    let source = format!("docker-archive:{}", image.docker_archive().display());
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &image, "true")?;
    let (path, id) = (bundle.path().display().to_string(), bundle.id());
    let verbs: [&[&str]; 2] = [
        &["create", "--bundle", &path, &id],
        &["run", &source, "--", "true"],
    ];
    for verb in verbs {
        let husk = runtime.command();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(husk.get_program())
            .args(husk.get_args())
            .args(verb);
        let run = capture(&command, b"", Duration::from_secs(60))?;
        let text = run.stderr_text();
        ensure!(
            text.lines().count() == 1 && text.contains("cgroup") && text.contains("Read-only"),
            "{text}"
        );
        ensure!(matches!(run.end, End::Status(1 | 125)), "{:?}", run.end);
        ensure!(runtime.must(&["list", "-q"])?.is_empty());
    }
    let left = leftovers(&runtime, &[id])?;
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

/// One clear line without `/dev/kvm`, and nothing half-made.
#[test]
fn a_bundle_without_kvm() -> Result<()> {
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &image()?, "true")?;
    let (path, id) = (bundle.path().display().to_string(), bundle.id());
    for (how, words) in [
        ("mount --bind /dev/null /dev/kvm", "/dev/kvm"),
        ("mount -t tmpfs none /dev", "/dev/kvm"),
    ] {
        let husk = runtime.command();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg(format!("{how} && exec \"$0\" \"$@\""))
            .arg(husk.get_program())
            .args(husk.get_args())
            .args(["create", "--bundle", &path, &id]);
        let run = capture(&command, b"", Duration::from_secs(60))?;
        let text = run.stderr_text();
        ensure!(
            text.lines().count() == 1 && text.contains(words),
            "{how}: {text}"
        );
        ensure!(run.end == End::Status(1), "{how}: {:?}", run.end);
        ensure!(runtime.must(&["list", "-q"])?.is_empty());
    }
    let left = leftovers(&runtime, &[id])?;
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

/// One clear line where systemd is to make the cgroup and does not run.
#[test]
fn without_systemd_its_cgroups_cannot_be_had() -> Result<()> {
    if Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &image()?, "true")?;
    let path = bundle.path().display().to_string();
    let text = runtime.must_fail(&["--systemd-cgroup", "run", "--bundle", &path, &bundle.id()])?;
    ensure!(text.contains("systemd not running on this host"), "{text}");
    ensure!(runtime.must(&["list", "-q"])?.is_empty());
    Ok(())
}

/// Specifications as engines write them (tests/bundles: captured from dockerd 20.10 and podman 4.3, paths made relative, hooks
/// and cgroups taken out).
#[test]
fn bundles_of_engines() -> Result<()> {
    let script = "id; hostname; pwd; env | sort | grep -v ^container; grep -e ^Cap -e NoNew -e Seccomp: /proc/self/status; \
                  grep -e 'open files' /proc/self/limits; cat /etc/hosts /etc/resolv.conf; ls /dev | sort; \
                  sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | grep -e devpts -e mqueue -e ' sysfs ' -e ' shm ' -e ' /scratch '; \
                  touch /scratch/x && echo scratch; touch /root-file && echo root; unshare -m true 2>/dev/null || echo no unshare; \
                  cat /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware | wc -l; echo x > /proc/sysrq-trigger || echo no sysrq";
    let image = image()?;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles");
    for name in ["docker", "docker-limits", "podman"] {
        let spec: Value = serde_json::from_slice(&fs::read(dir.join(format!("{name}.json")))?)?;
        let seen = both(|runtime| {
            let mut bundle = Bundle::new(runtime, &image, script)?;
            let files = bundle.path().join("files");
            fs::create_dir(&files)?;
            for file in ["resolv.conf", "hostname", "hosts", "containerenv"] {
                fs::write(files.join(file), format!("{file}\n"))?;
            }
            fs::create_dir(files.join("shm"))?;
            fs::create_dir(files.join("secrets"))?;
            bundle.edit(|v| {
                *v = spec.clone();
                v["process"]["args"] = json!(["sh", "-c", script]);
                v["mounts"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                    .for_each(|mount| {
                        if let Some(path) = mount["source"]
                            .as_str()
                            .filter(|path| path.starts_with("files/"))
                        {
                            mount["source"] = json!(files.join(path.trim_start_matches("files/")));
                        }
                    });
            })?;
            let done = bundle.run()?;
            Ok(format!("{}{:?}", done.stdout_text(), done.end))
        })
        .with_context(|| name)?;
        ensure!(
            seen.contains("CapEff") && seen.ends_with("Status(0)"),
            "{name}: {seen}"
        );
    }
    Ok(())
}
