//! `config.json`, field by field: equal under runc and husk, or refused by `create` with the field's name. docs/conformance.md
//! is the table.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use husk_tests::cache::Scratch;
use husk_tests::differential::Failures;
use husk_tests::image::Image;
use husk_tests::oci::{self, Bundle, Runtime, both};
use serde_json::{Value, json};

type Change = Box<dyn Fn(&mut Value)>;

fn image() -> Result<Image> {
    Image::busybox()
}

fn equal(script: &str, change: impl Fn(&mut Value)) -> Result<String> {
    oci::equal(&image()?, script, change)
}

/// Adds a mount.
fn mount(
    spec: &mut Value,
    destination: &str,
    kind: &str,
    source: impl AsRef<Path>,
    options: &[&str],
) {
    let mount = json!({
        "destination": destination, "type": kind, "source": source.as_ref(), "options": options,
    });
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

/// A directory with a script, a set-user-id program and a device.
fn volume() -> Result<Scratch> {
    let dir = Scratch::new("config-volume")?;
    let made = Command::new("sh")
        .args([
            "-ec",
            "printf '#!/bin/sh\\necho ran\\n' > script; chmod 755 script; cp /bin/busybox .; chmod 4755 busybox; mknod null c 1 3; chmod 666 null; chmod 755 .",
        ])
        .current_dir(dir.path())
        .status()?;
    ensure!(made.success());
    Ok(dir)
}

#[test]
fn options_of_volumes() -> Result<()> {
    let dir = volume()?;
    let script = "/v/script; echo $?; /v/busybox id -u; echo x > /v/null; echo $?; touch /v/new 2>/dev/null; echo $?; \
                  chmod 700 /v/script 2>/dev/null; echo $?; chmod 755 /v/script 2>/dev/null; \
                  grep ' /v ' /proc/self/mountinfo | cut -d' ' -f6";
    let mut seen = Vec::new();
    for options in [
        &["rbind"] as &[&str],
        &["bind", "ro"],
        &["rbind", "rw", "rprivate"],
        &["rbind", "ro", "rslave"],
        &["rbind", "rro"],
        &["rbind", "noexec"],
        &["rbind", "nosuid"],
        &["rbind", "nodev"],
        &["rbind", "nosuid", "nodev", "noexec", "noatime"],
        &["rbind", "rnosuid", "rnodev", "rnoexec"],
        &["rbind", "nodiratime", "strictatime"],
    ] {
        let text = equal(script, |v| {
            v["root"]["readonly"] = json!(false);
            v["process"]["noNewPrivileges"] = json!(false);
            v["process"]["user"] = json!({"uid": 0, "gid": 0});
            mount(v, "/v", "bind", dir.path(), options);
        })?;
        seen.push(format!("{options:?} {text}"));
    }
    ensure!(
        seen[5].contains("noexec") && !seen[5].contains("ran"),
        "{}",
        seen[5]
    );
    // As another user, for whom the set-user-id bit counts.
    let text = equal("/v/busybox id -u", |v| {
        v["process"]["noNewPrivileges"] = json!(false);
        v["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        v["root"]["readonly"] = json!(false);
        mount(v, "/v", "bind", dir.path(), &["rbind", "nosuid"]);
    })?;
    ensure!(text.starts_with("1000\n"), "{text}");
    Ok(())
}

#[test]
fn options_of_file_systems_in_memory() -> Result<()> {
    let script = "df -k /t /dev/shm | tail -n 2 | tr -s ' '; stat -c %a:%u:%g /t /dev/shm; \
                  dd if=/dev/zero of=/t/x bs=1k count=2000 2>&1 | tail -n 1 | cut -c1-20; \
                  for i in 1 2 3 4 5 6; do touch /t/$i || echo no $i; done 2>/dev/null";
    for options in [
        &["size=1m", "mode=1777"] as &[&str],
        &["size=2048k", "mode=0777", "uid=0", "gid=7"],
        &["nr_inodes=5", "mode=1777", "nosuid", "nodev"],
    ] {
        equal(script, |v| {
            v["root"]["readonly"] = json!(false);
            mount(v, "/t", "tmpfs", "tmpfs", options);
            for shm in v["mounts"].as_array_mut().into_iter().flatten() {
                if shm["destination"] == json!("/dev/shm") {
                    shm["options"] = json!(["nosuid", "noexec", "nodev", "mode=1777", "size=2m"]);
                }
            }
        })?;
    }
    let copied = equal("ls /etc; touch /etc/new; echo $?", |v| {
        mount(v, "/etc", "tmpfs", "tmpfs", &["tmpcopyup"]);
    })?;
    ensure!(copied.contains("passwd"), "{copied}");
    equal(
        "cat /etc/passwd | head -n 1; grep passwd /proc/self/mountinfo | cut -d' ' -f5,6",
        |v| {
            mount(v, "/etc/passwd", "bind", "/etc/hostname", &["bind", "ro"]);
        },
    )?;
    Ok(())
}

/// Each comparison, on the argument of `umask`, which harms nobody.
#[test]
fn seccomp_compares_arguments() -> Result<()> {
    let script = "for u in 0 7 10 76 77 100 170; do umask $u; echo $u $(umask); done";
    let cases = [
        ("SCMP_CMP_EQ", 0o77, 0),
        ("SCMP_CMP_NE", 0o77, 0),
        ("SCMP_CMP_LT", 0o77, 0),
        ("SCMP_CMP_LE", 0o77, 0),
        ("SCMP_CMP_GT", 0o77, 0),
        ("SCMP_CMP_GE", 0o77, 0),
        ("SCMP_CMP_MASKED_EQ", 0o70, 0o10),
    ];
    for (op, value, two) in cases {
        equal(script, |v| {
            v["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
                {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]},
            ]});
        })?;
    }
    Ok(())
}

#[test]
fn seccomp_acts() -> Result<()> {
    let script = "sh -c 'umask 7; echo $?; umask'; echo $?";
    for (action, errno) in [
        ("SCMP_ACT_ALLOW", None),
        ("SCMP_ACT_LOG", None),
        ("SCMP_ACT_ERRNO", Some(77)),
        ("SCMP_ACT_ERRNO", Some(0)),
        ("SCMP_ACT_TRACE", None),
        ("SCMP_ACT_TRAP", None),
        ("SCMP_ACT_KILL", None),
        ("SCMP_ACT_KILL_THREAD", None),
        ("SCMP_ACT_KILL_PROCESS", None),
    ] {
        equal(script, |v| {
            let mut rule = json!({"names": ["umask", "no_such_call"], "action": action});
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            let default = if action == "SCMP_ACT_ALLOW" {
                "SCMP_ACT_LOG"
            } else {
                "SCMP_ACT_ALLOW"
            };
            v["linux"]["seccomp"] = json!({"defaultAction": default, "syscalls": [rule]});
        })?;
    }
    Ok(())
}

/// What part of its file system a mount shows; programs find their container's id so.
#[test]
fn what_mounts_show() -> Result<()> {
    let dir = volume()?;
    let text = equal(
        "awk '$5 ~ \"^/v\" { print $4, $5 }' /proc/self/mountinfo",
        |v| {
            mount(v, "/v", "bind", dir.path(), &["rbind"]);
            mount(v, "/v2", "bind", dir.path().join("script"), &["bind", "ro"]);
        },
    )?;
    assert!(text.contains("/script /v2"), "{text}");
    Ok(())
}

#[test]
fn mounts_made_inside() -> Result<()> {
    const SCRIPT: &str = "mount -t tmpfs root /tmp; cd /tmp; mkdir all part a ab; touch a/file
        mount --rbind / all; echo $?; awk '$5 ~ \"^/tmp/all\" { print $5 }' /proc/self/mountinfo | sort | uniq -c | grep -v '/sys\\|/dev\\|/proc'
        mount --bind a part; ls part; ls all/tmp; mount -t tmpfs x ab; touch ab/file; mkdir copy; mount --rbind /tmp copy; ls copy/ab copy/part
        umount -l all; echo $?; ls all; umount copy; umount -l copy; ls copy; umount -l part; ls part; umount ab; cd /; umount /tmp; ls /tmp; echo $?";
    let text = equal(SCRIPT, |v| {
        for set in ["bounding", "effective", "permitted"] {
            v["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
    })?;
    assert!(text.contains("1 /tmp/all\n"), "{text}");
    Ok(())
}

/// Ends the container as a machine.
#[test]
fn restarting_and_powering_off() -> Result<()> {
    for (command, status) in [("reboot -f", 129), ("poweroff -f", 130), ("halt -f", 130)] {
        let text = equal(&format!("sleep 1000 & {command}; sleep 1000"), |v| {
            for set in ["bounding", "effective", "permitted"] {
                v["process"]["capabilities"][set] = json!(["CAP_SYS_BOOT"]);
            }
        })?;
        assert!(text.contains(&status.to_string()), "{command}: {text}");
    }
    Ok(())
}

/// Of version 1; the limit itself is wider than the bundle's.
#[test]
fn memory_may_stop_instead_of_killing() -> Result<()> {
    both(|runtime| {
        let mut bundle = Bundle::new(runtime, &image()?, "sleep 1000")?;
        bundle.edit(|v| {
            v["linux"]["resources"]["memory"] =
                json!({"limit": 100 << 20, "disableOOMKiller": true});
        })?;
        let id = bundle.create()?;
        let file = Path::new("/sys/fs/cgroup/memory");
        let state: Value = serde_json::from_str(&runtime.must(&["state", &id])?)?;
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"]))?;
        let group = groups
            .lines()
            .find_map(|line| line.split_once(":memory:"))
            .map(|(_, group)| group.trim_start_matches('/').to_owned());
        let Some(group) = group else {
            return Ok("version 2 has no such thing".to_owned());
        };
        let text = fs::read_to_string(file.join(group).join("memory.oom_control"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    })?;
    Ok(())
}

#[test]
fn device_nodes_and_rules() -> Result<()> {
    let script = "mknod /tmp/n c 1 3 && echo x > /tmp/n; echo $?; mknod /tmp/z c 1 5; head -c1 /tmp/z | wc -c; \
                  mknod /tmp/k c 1 11; head -c0 /tmp/k 2>/dev/null; echo $?; mknod /tmp/s b 8 0; head -c0 /tmp/s 2>/dev/null; echo $?; \
                  ls -l /dev/fifo | cut -c1-10; stat -c %a:%u:%g:%t:%T /dev/mine /dev/null";
    equal(script, |v| {
        mount(v, "/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
        for set in ["bounding", "effective", "permitted"] {
            v["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        v["linux"]["devices"] = json!([
            {"path": "/dev/fifo", "type": "p", "fileMode": 0o640},
            {"path": "/dev/mine", "type": "u", "major": 1, "minor": 5, "fileMode": 0o604, "uid": 3},
        ]);
        v["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        ]);
    })?;
    Ok(())
}

#[test]
fn capability_sets() -> Result<()> {
    let script = "grep ^Cap /proc/self/status";
    let sets: [Value; 4] = [
        json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}),
        json!({"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
        // Without effect: not permitted.
        json!({"bounding": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
        json!({"bounding": ["CAP_NO_SUCH", "CAP_KILL"]}),
    ];
    for set in sets {
        for uid in [0, 7] {
            equal(script, |v| {
                v["process"]["capabilities"] = set.clone();
                v["process"]["user"] = json!({"uid": uid, "gid": 7});
            })?;
        }
    }
    Ok(())
}

#[test]
fn every_resource_limit() -> Result<()> {
    let limits = [
        ("CPU", 100),
        ("FSIZE", 1 << 30),
        ("DATA", 1 << 30),
        ("STACK", 1 << 22),
        ("CORE", 0),
        ("RSS", 1 << 30),
        ("NPROC", 100),
        ("NOFILE", 100),
        ("MEMLOCK", 1 << 16),
        ("AS", 1_u64 << 33),
        ("LOCKS", 10),
        ("SIGPENDING", 50),
        ("MSGQUEUE", 1000),
        ("NICE", 0),
        ("RTPRIO", 0),
        ("RTTIME", 1000),
    ];
    equal("cat /proc/self/limits", |v| {
        let list = limits.iter().map(
            |(name, limit)| json!({"type": format!("RLIMIT_{name}"), "soft": limit, "hard": limit}),
        );
        v["process"]["rlimits"] = list.collect();
    })?;
    Ok(())
}

#[test]
fn settings_of_the_kernel() -> Result<()> {
    let seen = equal(
        "cd /proc/sys/kernel; cat shmmax shmall shmmni msgmax msgmnb msgmni sem; ipcs -l; \
         cd ../net; cat core/somaxconn ipv4/ip_unprivileged_port_start ipv4/ping_group_range",
        |v| {
            v["linux"]["sysctl"] = json!({
                "kernel.shmmax": "12345", "kernel.shmall": "777", "kernel.shmmni": "99", "kernel.msgmax": "9999",
                "kernel.msgmnb": "20000", "kernel.msgmni": "55", "kernel.sem": "10 20 30 40", "net.core.somaxconn": "77",
                "net.ipv4.ip_unprivileged_port_start": "7", "net/ipv4/ping_group_range": "0 9",
            });
        },
    )?;
    ensure!(seen.contains("10\t20\t30\t40"), "{seen}");
    Ok(())
}

/// The words of engines; what is below is taken along anyway. runc itself fails with `unbindable`.
#[test]
fn propagation_of_the_root() -> Result<()> {
    for word in [
        "private", "rprivate", "slave", "rslave", "shared", "rshared",
    ] {
        equal("echo fine", |v| {
            v["linux"]["rootfsPropagation"] = json!(word)
        })?;
    }
    Ok(())
}

/// A mount of the host that other mounts can be made below, seen by those who share it.
struct Shared(Scratch);

impl Shared {
    fn new() -> Result<Self> {
        let dir = Scratch::new("config-shared")?;
        fs::create_dir(dir.path().join("late"))?;
        let shared = Self(dir);
        shared.sh("mount --bind . . && mount --make-shared .")?;
        Ok(shared)
    }

    fn sh(&self, script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        let done = command.args(["-ec", script]).current_dir(self.0.path());
        ensure!(done.status()?.success(), "{script}");
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let path = self.0.path();
        for mount in [path.join("late"), path.to_owned()] {
            let _ = Command::new("umount").arg("-ql").arg(mount).output();
        }
    }
}

/// What the host mounts below a volume later is there or not, as the volume's propagation says.
#[test]
fn mounts_that_come_later() -> Result<()> {
    let image = image()?;
    let script =
        "echo up; while [ ! -e /v/go ]; do sleep 0.02; done; cat /v/late/file || echo nothing";
    for (word, expected) in [
        ("rslave", "content"),
        ("rshared", "content"),
        ("rprivate", "nothing"),
    ] {
        let seen = both(|runtime| {
            let shared = Shared::new()?;
            let mut bundle = Bundle::new(runtime, &image, script)?;
            bundle.edit(|v| {
                v["root"]["readonly"] = json!(false);
                mount(v, "/v", "bind", shared.0.path(), &["rbind", word]);
            })?;
            let id = bundle.started()?;
            bundle.wait_for_text(&id, "up")?;
            shared.sh("mount -t tmpfs late late; echo content >late/file; touch go")?;
            runtime.wait_for(&id, "stopped")?;
            runtime.must(&["delete", &id])?;
            Ok(bundle.text(&id).replace(
                "cat: can't open '/v/late/file': No such file or directory\n",
                "",
            ))
        })?;
        ensure!(seen.trim_end().ends_with(expected), "{word}: {seen}");
    }
    Ok(())
}

/// A directory that is missing is made.
#[test]
fn directories_to_start_in() -> Result<()> {
    equal("pwd; stat -c %a:%u .", |v| {
        v["process"]["cwd"] = json!("/a/b");
        v["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        v["root"]["readonly"] = json!(false);
    })?;
    Ok(())
}

/// What `--network`, `--ipc` and `--uts container:ID` are made of.
#[test]
fn namespaces_of_another_container() -> Result<()> {
    let image = image()?;
    let seen = both(|runtime| {
        let mut first = Bundle::new(runtime, &image, "echo up; while :; do sleep 0.05; done")?;
        first.edit(|v| v["hostname"] = json!("the-first"))?;
        let one = first.started()?;
        first.wait_for_text(&one, "up")?;
        let pid_of = |id: &str| -> Result<i64> {
            let state: Value = serde_json::from_str(&runtime.must(&["state", id])?)?;
            Ok(state["pid"].as_i64().unwrap_or(0))
        };
        let pid = pid_of(&one)?;
        let mut second = Bundle::new(runtime, &image, "hostname; while :; do sleep 0.05; done")?;
        let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
        second.edit(|v| {
            if let Some(v) = v.as_object_mut() {
                v.remove("hostname");
            }
            for namespace in v["linux"]["namespaces"]
                .as_array_mut()
                .into_iter()
                .flatten()
            {
                if let Some((_, file)) = kinds
                    .iter()
                    .find(|(kind, _)| namespace["type"] == json!(kind))
                {
                    namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
                }
            }
        })?;
        let other = second.started()?;
        second.wait_for_text(&other, "\n")?;
        let pid_of_other = pid_of(&other)?;
        for (_, file) in kinds {
            let link = |pid| fs::read_link(format!("/proc/{pid}/ns/{file}"));
            ensure!(link(pid)? == link(pid_of_other)?, "{file}");
        }
        Ok(second.text(&other))
    })?;
    assert_eq!(seen, "the-first\n");
    Ok(())
}

fn namespace(v: &mut Value, kind: &str, path: Option<&str>) {
    let list = v["linux"]["namespaces"]
        .as_array_mut()
        .into_iter()
        .flatten();
    for namespace in list {
        if namespace["type"] == json!(kind) {
            namespace["path"] = json!(path);
        }
    }
}

fn without_namespace(v: &mut Value, kind: &str) {
    if let Some(list) = v["linux"]["namespaces"].as_array_mut() {
        list.retain(|namespace| namespace["type"] != json!(kind));
    }
}

fn with_namespace(v: &mut Value, kind: &str) {
    if let Some(list) = v["linux"]["namespaces"].as_array_mut() {
        list.push(json!({ "type": kind }));
    }
}

/// Asserts that `create` fails under each of `runtimes`, under husk with one line that has the words, and makes nothing.
fn refused(runtimes: &[Runtime], cases: Vec<(&'static str, Change)>) -> Result<()> {
    let image = image()?;
    let mut failures = Failures::default();
    let count = cases.len();
    for (words, change) in cases {
        for runtime in runtimes {
            let check = || -> Result<()> {
                let mut bundle = Bundle::new(runtime, &image, "true")?;
                bundle.edit(&change)?;
                let (id, path) = (bundle.id(), bundle.path().display().to_string());
                let text = runtime.must_fail(&["create", "--bundle", &path, &id])?;
                ensure!(runtime.name == "runc" || text.contains(words), "{text}");
                ensure!(runtime.must(&["list", "-q"])?.is_empty(), "half-made");
                Ok(())
            };
            failures.note(
                &format!("{}: {words}", runtime.name),
                check().map(|()| None),
            );
        }
    }
    failures.check(count * runtimes.len());
    Ok(())
}

/// What a virtual machine cannot share, and what is not done: refused, not ignored.
#[test]
fn what_only_husk_refuses() -> Result<()> {
    let cases: Vec<(&str, Change)> = vec![
        (
            "linux.namespaces[5]: a time namespace",
            Box::new(|v| with_namespace(v, "time")),
        ),
        (
            "sharing the host's pid namespace",
            Box::new(|v| without_namespace(v, "pid")),
        ),
        (
            "sharing the host's mnt namespace",
            Box::new(|v| without_namespace(v, "mount")),
        ),
        (
            "linux.namespaces[0].path: a pid namespace shared",
            Box::new(|v| namespace(v, "pid", Some("/proc/self/ns/pid"))),
        ),
        (
            "mounts[0].options: \"hidepid=2\"",
            Box::new(|v| v["mounts"][0]["options"] = json!(["hidepid=2"])),
        ),
        (
            "linux.intelRdt",
            Box::new(|v| v["linux"]["intelRdt"] = json!({"closID": "x"})),
        ),
        (
            "linux.personality",
            Box::new(|v| v["linux"]["personality"] = json!({"domain": "LINUX32"})),
        ),
        (
            "linux.sysctl[fs.mqueue.msg_max]",
            Box::new(|v| v["linux"]["sysctl"] = json!({"fs.mqueue.msg_max": "5"})),
        ),
        (
            "linux.timeOffsets",
            Box::new(|v| v["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 5}})),
        ),
        (
            "linux.seccomp.listenerPath",
            Box::new(|v| {
                v["linux"]["seccomp"] =
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x.sock"});
            }),
        ),
        (
            "annotations: has an empty key",
            Box::new(|v| v["annotations"] = json!({"": "x"})),
        ),
        (
            "linux.cgroupsPath",
            Box::new(|v| v["linux"]["cgroupsPath"] = json!("/..")),
        ),
        (
            "linux.resources.devices[0].access",
            Box::new(|v| {
                v["linux"]["resources"]["devices"] =
                    json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rx"}]);
            }),
        ),
        (
            "linux.seccomp.syscalls[0]: missing field `names`",
            Box::new(|v| {
                v["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]});
            }),
        ),
    ];
    refused(&[Runtime::husk()?], cases)
}

#[test]
fn what_both_refuse() -> Result<()> {
    let cases: Vec<(&str, Change)> = vec![
        (
            "process: is missing",
            Box::new(|v| drop(v.as_object_mut().map(|v| v.remove("process")))),
        ),
        (
            "root: is missing",
            Box::new(|v| drop(v.as_object_mut().map(|v| v.remove("root")))),
        ),
        (
            "process.args",
            Box::new(|v| drop(v["process"].as_object_mut().map(|v| v.remove("args")))),
        ),
        (
            "process.env[1]: \"NAME\" has no =",
            Box::new(|v| v["process"]["env"] = json!(["PATH=/bin", "NAME"])),
        ),
        (
            "process.cwd: /etc/passwd is not a directory",
            Box::new(|v| v["process"]["cwd"] = json!("/etc/passwd")),
        ),
        (
            "process.oomScoreAdj: 5000",
            Box::new(|v| v["process"]["oomScoreAdj"] = json!(5000)),
        ),
        (
            "process.capabilities.effective: CAP_KILL",
            Box::new(|v| {
                v["process"]["capabilities"] =
                    json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]});
            }),
        ),
        (
            "process.rlimits[1].type: occurs twice",
            Box::new(|v| {
                let limit = json!({"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5});
                v["process"]["rlimits"] = json!([limit, limit]);
            }),
        ),
        (
            "linux.namespaces[1].path: /no/such: No such file",
            Box::new(|v| namespace(v, "network", Some("/no/such"))),
        ),
        (
            "linux.namespaces[1].path: /etc/passwd is not a net",
            Box::new(|v| namespace(v, "network", Some("/etc/passwd"))),
        ),
        (
            "linux.namespaces[1].path: proc is not an absolute",
            Box::new(|v| namespace(v, "network", Some("proc"))),
        ),
        (
            "linux.rootfsPropagation: \"no\"",
            Box::new(|v| v["linux"]["rootfsPropagation"] = json!("no")),
        ),
        (
            "linux.sysctl[kernel.shmmax]: \"x\" is not a number",
            Box::new(|v| v["linux"]["sysctl"] = json!({"kernel.shmmax": "x"})),
        ),
        (
            "host's ipc namespace",
            Box::new(|v| {
                without_namespace(v, "ipc");
                v["linux"]["sysctl"] = json!({"kernel.shmmax": "5"});
            }),
        ),
        (
            "net.core.somaxconn not allowed in host network",
            Box::new(|v| {
                without_namespace(v, "network");
                v["linux"]["sysctl"] = json!({"net.core.somaxconn": "4096"});
            }),
        ),
        (
            "linux.sysctl[net.ipv4.no_such]",
            Box::new(|v| v["linux"]["sysctl"] = json!({"net.ipv4.no_such": "1"})),
        ),
        (
            "linux.sysctl[kernel.hostname]",
            Box::new(|v| v["linux"]["sysctl"] = json!({"kernel.hostname": "x"})),
        ),
        (
            "linux.devices[0].type",
            Box::new(|v| {
                v["linux"]["devices"] =
                    json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}])
            }),
        ),
        (
            "linux.resources.devices[0].type",
            Box::new(|v| {
                v["linux"]["resources"]["devices"] = json!([{"allow": true, "type": "q"}])
            }),
        ),
        (
            "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY",
            Box::new(|v| {
                v["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["umask"], "action": "SCMP_ACT_NOTIFY"}]});
            }),
        ),
        (
            "linux.seccomp.architectures[0]",
            Box::new(|v| {
                v["linux"]["seccomp"] =
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z"]});
            }),
        ),
        (
            "linux.seccomp.syscalls[0].args[0].index",
            Box::new(|v| {
                v["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]});
            }),
        ),
        (
            "mounts[7].options: \"frob=1\"",
            Box::new(|v| mount(v, "/tmp", "tmpfs", "tmpfs", &["frob=1"])),
        ),
        (
            "failed to mount \"/tmp\"",
            Box::new(|v| mount(v, "/tmp", "no-such-type", "x", &[])),
        ),
        (
            "failed to mount \"/etc/passwd/x\"",
            Box::new(|v| mount(v, "/etc/passwd/x", "bind", "/etc", &["bind"])),
        ),
        (
            "hooks.prestart[0].path: bin/no is not an absolute path",
            Box::new(|v| v["hooks"] = json!({"prestart": [{"path": "bin/no"}]})),
        ),
        (
            "hooks.prestart[0].timeout",
            Box::new(|v| v["hooks"] = json!({"prestart": [{"path": "/bin/true", "timeout": 0}]})),
        ),
        (
            "error running prestart hook #1: /no/such: No such file",
            Box::new(|v| {
                v["hooks"] = json!({"prestart": [{"path": "/bin/true"}, {"path": "/no/such"}]});
            }),
        ),
        (
            "error running createRuntime hook #0: /bin/sh: exit status 3",
            Box::new(|v| {
                v["hooks"] =
                    json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
            }),
        ),
        (
            "error running createContainer hook #0: /bin/sh: exit status 4",
            Box::new(|v| {
                v["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 4"]}]});
            }),
        ),
        (
            "error running createRuntime hook #0: /bin/sleep: timed out",
            Box::new(|v| {
                v["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]});
            }),
        ),
    ];
    refused(&[Runtime::runc()?, Runtime::husk()?], cases)
}
