//! User namespaces and mounts whose ids are mapped (config-linux.md, "User namespace mappings"; config.md, "Mounts"): equal under
//! runc and under husk, where runc 1.1 has them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use husk_tests::cache::Scratch;
use husk_tests::capture::End;
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both};
use serde_json::{Value, json};

/// The host's user that is root inside.
const ROOT: u32 = 100_000;
const COUNT: u32 = 65_536;

fn map() -> Value {
    json!([{"containerID": 0, "hostID": ROOT, "size": COUNT}])
}

/// Asks for a user namespace.
fn with_users(spec: &mut Value) {
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    spec["linux"]["uidMappings"] = map();
    spec["linux"]["gidMappings"] = map();
}

/// Gives all of a tree to the namespace's root.
fn give(path: &Path) -> Result<()> {
    lchown(path, Some(ROOT), Some(ROOT))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

/// A bundle with a user namespace and a root file system that is its.
fn bundle<'a>(runtime: &'a Runtime, image: &Image, script: &str) -> Result<Bundle<'a>> {
    let mut bundle = Bundle::in_public(runtime, image, script)?;
    give(&bundle.path().join("rootfs"))?;
    bundle.edit(|spec| {
        with_users(spec);
        spec["root"]["readonly"] = json!(false);
    })?;
    Ok(bundle)
}

fn grant(spec: &mut Value, capabilities: &[&str]) {
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(capabilities);
    }
}

fn bind(spec: &mut Value, source: &Path, target: &str, options: &[&str]) {
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(
            json!({"destination": target, "type": "bind", "source": source, "options": options}),
        );
    }
}

/// Runs it; what it wrote and how it ended.
fn run(bundle: &Bundle<'_>) -> Result<String> {
    let done = bundle.run()?;
    Ok(format!(
        "{}{}{:?}\n",
        done.stdout_text(),
        done.stderr_text(),
        done.end
    ))
}

fn owner(path: &Path) -> Result<String> {
    let stat = path
        .symlink_metadata()
        .with_context(|| path.display().to_string())?;
    Ok(format!("{}:{} {:o}\n", stat.uid(), stat.gid(), stat.mode()))
}

#[test]
fn ids_are_the_hosts_others() -> Result<()> {
    const SCRIPT: &str = "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
        touch /tmp/mine /tmp/given; chown 5:6 /tmp/given; ls -ln /tmp | grep -v total
        chown 70000 /tmp/mine; chown 7:70000 /tmp/mine; chgrp 65535 /tmp/mine && ls -ln /tmp/mine
        mkdir /tmp/d; chmod 2755 /tmp/d; ln -s nowhere /tmp/l; chown -h 8:9 /tmp/l; mkfifo /tmp/f
        mount -t tmpfs tmpfs /mnt && touch /mnt/a && chown 3 /mnt/a && chown 70000 /mnt/a; ls -ln /mnt/a";
    let image = Image::busybox()?;
    let seen = both(|runtime| {
        let mut bundle = bundle(runtime, &image, SCRIPT)?;
        fs::create_dir_all(bundle.path().join("rootfs/mnt"))?;
        give(&bundle.path().join("rootfs"))?;
        bundle.edit(|spec| grant(spec, &["CAP_CHOWN", "CAP_SYS_ADMIN"]))?;
        let mut seen = run(&bundle)?;
        for name in ["mine", "given", "d", "l", "f"] {
            seen += &owner(&bundle.path().join("rootfs/tmp").join(name))?;
        }
        // Times differ.
        let is_listing = |line: &&str| !line.contains(':') || !line.starts_with(['-', 'd']);
        let listed = |line: &str| {
            line.split_whitespace()
                .take(4)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let lines = seen.lines().map(|line| match is_listing(&line) {
            true => line.to_owned(),
            false => listed(line),
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    })?;
    for there in ["100005:100006", "100000:165535", "100008:100009", "deny"] {
        assert_eq!(seen.contains(there), there != "deny", "{there} in {seen}");
    }
    Ok(())
}

#[test]
fn what_is_not_mapped_is_nobodys() -> Result<()> {
    const SCRIPT: &str = "cd /v; stat -c '%n %u:%g %a' *; cat open; cat closed; echo more >>open; chmod 600 open
        chown 0 open; touch closed; ls closed_dir; rm open; mv open other; cat mine; echo more >>mine; chmod 640 mine; chown 5 mine
        echo new >new && stat -c '%u:%g' new; ln mine link; mkdir sub && rmdir sub; ln -s x y && rm y; find . | sort; cat /r/file";
    let image = Image::busybox()?;
    let seen = both(|runtime| {
        let volume = Scratch::below(&std::env::temp_dir(), "users")?;
        let path = volume.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o1777))?;
        for (name, mode) in [("open", 0o644), ("closed", 0o600), ("mine", 0o600)] {
            fs::write(path.join(name), format!("{name}\n"))?;
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode))?;
        }
        fs::create_dir(path.join("closed_dir"))?;
        fs::set_permissions(path.join("closed_dir"), fs::Permissions::from_mode(0o700))?;
        chown(path.join("mine"), Some(ROOT), Some(ROOT))?;
        let mut bundle = bundle(runtime, &image, SCRIPT)?;
        let hidden = Scratch::new("hidden")?;
        fs::write(hidden.path().join("file"), "below a directory of root's\n")?;
        let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"];
        bundle.edit(|spec| {
            grant(spec, &capabilities);
            bind(spec, path, "/v", &["rbind"]);
            bind(spec, hidden.path(), "/r", &["rbind", "ro"]);
        })?;
        let mut seen = run(&bundle)?;
        for name in ["open", "closed", "mine", "new"] {
            seen += &owner(&path.join(name))?;
        }
        Ok(seen)
    })?;
    assert!(seen.contains("100005:100000"), "{seen}");
    Ok(())
}

#[test]
fn privileges_end_at_the_namespace() -> Result<()> {
    const SCRIPT: &str = "hostname inner && hostname; mknod /tmp/null c 1 3; mknod /tmp/disk b 8 0; date -s 2020-01-01 | grep -c 2020
        ulimit -Hn 9000000; nice -n -5 echo nice; renice -n -3 -p $$; echo -500 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj
        chroot / echo chroot; mount -t tmpfs x /tmp && echo mounted; umount /tmp && echo unmounted; kill -0 1 && echo killed; reboot -f; sleep 5";
    let image = Image::busybox()?;
    let seen = both(|runtime| {
        let mut bundle = bundle(runtime, &image, SCRIPT)?;
        bundle.edit(|spec| {
            let all = [
                "CAP_SYS_ADMIN",
                "CAP_MKNOD",
                "CAP_SYS_TIME",
                "CAP_SYS_RESOURCE",
                "CAP_SYS_NICE",
                "CAP_SYS_BOOT",
                "CAP_SYS_CHROOT",
                "CAP_SYSLOG",
                "CAP_KILL",
            ];
            grant(spec, &all);
        })?;
        run(&bundle)
    })?;
    for there in ["mounted", "chroot", "inner"] {
        assert!(seen.contains(there), "{there} in {seen}");
    }
    Ok(())
}

#[test]
fn users_of_processes() -> Result<()> {
    let image = Image::busybox()?;
    both(|runtime| {
        let mut bundle = bundle(
            runtime,
            &image,
            "id; trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done",
        )?;
        bundle.edit(|spec| {
            spec["process"]["user"] =
                json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 1001]});
        })?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "ready")?;
        let mut seen = bundle.text(&id);
        for user in ["0:0", "65535:65535", "7"] {
            seen += &runtime.must(&["exec", "--user", user, &id, "id"])?;
        }
        for user in ["65536:0", "0:65536", "70000:70000"] {
            runtime.must_fail(&["exec", "--user", user, &id, "id"])?;
        }
        runtime.must(&["kill", &id, "TERM"])?;
        runtime.wait_for(&id, "stopped")?;
        Ok(seen)
    })?;
    both(|runtime| {
        let mut bundle = bundle(runtime, &image, "id")?;
        for user in [
            json!({"uid": 70000, "gid": 0}),
            json!({"uid": 0, "gid": 70000}),
            json!({"uid": 0, "gid": 0, "additionalGids": [70000]}),
        ] {
            bundle.edit(|spec| spec["process"]["user"] = user)?;
            let done = bundle.run()?;
            ensure!(done.end != End::Status(0), "{}", done.stdout_text());
        }
        Ok(String::new())
    })?;
    Ok(())
}

fn namespaces(runtime: &Runtime, id: &str) -> Result<(i64, [String; 2])> {
    let state: Value = serde_json::from_str(&runtime.must(&["state", id])?)?;
    let pid = state["pid"].as_i64().context("no pid")?;
    let link = |name: &str| -> Result<String> {
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        Ok(link.to_string_lossy().into_owned())
    };
    Ok((pid, [link("user")?, link("net")?]))
}

#[test]
fn one_namespace_for_two() -> Result<()> {
    const WAITS: &str = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let image = Image::busybox()?;
    both(|runtime| {
        let first = bundle(runtime, &image, WAITS)?;
        let first_id = first.create()?;
        let (pid, of_first) = namespaces(runtime, &first_id)?;
        let own = fs::read_link("/proc/self/ns/user")?;
        ensure!(of_first[0] != own.to_string_lossy(), "it is in the host's");
        let mut seen = String::new();
        for repeats_maps in [false, true] {
            // Low ports of a network namespace that belongs to the user namespace are its root's.
            let script =
                "id -u; cat /proc/self/uid_map; nc -l -p 80 & sleep 0.1; kill $! && echo listened";
            let mut second = bundle(runtime, &image, script)?;
            second.edit(|spec| {
                grant(spec, &["CAP_NET_BIND_SERVICE"]);
                let namespaces = spec["linux"]["namespaces"].as_array_mut();
                for namespace in namespaces.into_iter().flatten() {
                    let kind = namespace["type"].as_str().unwrap_or_default().to_owned();
                    let file = match (&*kind, repeats_maps) {
                        ("user", _) => "user",
                        ("network", true) => "net",
                        _ => continue,
                    };
                    namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
                }
                // runc 1.1 wants them.
                if !repeats_maps
                    && runtime.name == "husk"
                    && let Some(linux) = spec["linux"].as_object_mut()
                {
                    linux.remove("uidMappings");
                    linux.remove("gidMappings");
                }
            })?;
            let id = second.create()?;
            let (_, of_second) = namespaces(runtime, &id)?;
            ensure!(of_first[0] == of_second[0], "two user namespaces");
            ensure!((of_first[1] == of_second[1]) == repeats_maps, "network");
            runtime.must(&["start", &id])?;
            runtime.wait_for(&id, "stopped")?;
            seen += &second.text(&id);
        }
        runtime.must(&["start", &first_id])?;
        first.wait_for_text(&first_id, "up")?;
        runtime.must(&["kill", &first_id, "KILL"])?;
        Ok(seen)
    })?;
    Ok(())
}

/// What both refuse; husk names the field.
#[test]
fn what_cannot_be() -> Result<()> {
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(&str, Change)> = vec![
        (
            "linux.uidMappings",
            Box::new(|spec| {
                spec["linux"]["uidMappings"] = Value::Null;
                spec["linux"]["gidMappings"] = Value::Null;
            }),
        ),
        (
            "uid_map",
            Box::new(|spec| {
                spec["linux"]["uidMappings"] = json!([
                    {"containerID": 0, "hostID": 1000, "size": 10},
                    {"containerID": 5, "hostID": 5000, "size": 10},
                ]);
            }),
        ),
        (
            "linux.uidMappings: 0 is not mapped",
            Box::new(|spec| {
                spec["linux"]["uidMappings"] =
                    json!([{"containerID": 1, "hostID": 1000, "size": 10}]);
            }),
        ),
        (
            "is not a user namespace",
            Box::new(|spec| {
                let namespaces = spec["linux"]["namespaces"].as_array_mut();
                for namespace in namespaces.into_iter().flatten() {
                    if namespace["type"] == "user" {
                        namespace["path"] = json!("/proc/self/ns/net");
                    }
                }
            }),
        ),
    ];
    let image = Image::busybox()?;
    for (words, change) in cases {
        both(|runtime| {
            let mut bundle = bundle(runtime, &image, "echo runs")?;
            bundle.edit(&change)?;
            let done = bundle.run()?;
            ensure!(done.end != End::Status(0), "{words}: it runs");
            if runtime.name == "husk" {
                ensure!(done.stderr_text().contains(words), "{}", done.stderr_text());
            }
            Ok(String::new())
        })?;
    }
    Ok(())
}

/// runc 1.1 has no mounts with mapped ids.
#[test]
fn mounts_with_other_ids() -> Result<()> {
    let image = Image::busybox()?;
    let husk = Runtime::husk()?;
    let volume = Scratch::new("idmapped")?;
    let path = volume.path();
    fs::create_dir(path.join("sub"))?;
    for (name, id) in [("of_root", 0), ("of_five", 5), ("sub/of_many", 70_000)] {
        fs::write(path.join(name), name)?;
        chown(path.join(name), Some(id), Some(id))?;
    }
    let file = path.join("of_root").clone();
    let script = "cd $1; stat -c '%n %u:%g' of_root of_five sub/of_many; echo new >new && chown 3:4 new && cat new of_root; rm new; touch made";
    let command = |at: &str| json!(["sh", "-c", script, "sh", at]);

    // By the container's own namespace: root outside is root inside.
    let mut own = bundle(&husk, &image, "")?;
    own.edit(|spec| {
        grant(spec, &["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        bind(spec, path, "/v/deep", &["rbind", "idmap"]);
        bind(spec, &file, "/etc/file", &["bind", "idmap", "ro"]);
        spec["process"]["args"] = command("/v/deep");
    })?;
    let done = own.run()?;
    assert_eq!(done.stderr_text(), "");
    assert_eq!(
        done.stdout_text(),
        "of_root 0:0\nof_five 5:5\nsub/of_many 65534:65534\nnew\nof_root"
    );
    assert_eq!(owner(&path.join("made"))?, "0:0 100644\n");
    own.edit(|spec| {
        spec["process"]["args"] = json!(["sh", "-c", "stat -c %u:%g /etc/file; echo x >/etc/file"])
    })?;
    let done = own.run()?;
    assert_eq!(done.stdout_text(), "0:0\n");
    assert!(
        done.stderr_text().contains("Read-only"),
        "{}",
        done.stderr_text()
    );

    // By its own maps, in a container without a namespace of users.
    let mut mapped = Bundle::new(&husk, &image, "")?;
    fs::remove_file(path.join("made"))?;
    mapped.edit(|spec| {
        grant(spec, &["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        bind(spec, path, "/v", &["rbind", "ridmap"]);
        if let Some(mount) = spec["mounts"].as_array_mut().and_then(|all| all.last_mut()) {
            mount["uidMappings"] = json!([{"containerID": 0, "hostID": 3000, "size": 100}]);
            mount["gidMappings"] = json!([{"containerID": 0, "hostID": 4000, "size": 100}]);
        }
        spec["process"]["args"] = command("/v");
    })?;
    let done = mapped.run()?;
    let text = done.stdout_text();
    assert!(
        text.starts_with("of_root 3000:4000\nof_five 3005:4005\nsub/of_many 65534:65534\n"),
        "{text}"
    );
    // Root has no id there.
    assert!(
        done.stderr_text().contains("Value too large"),
        "{}",
        done.stderr_text()
    );
    assert!(!path.join("made").exists());

    // Neither has maps.
    mapped.edit(|spec| {
        if let Some(mount) = spec["mounts"].as_array_mut().and_then(|all| all.last_mut()) {
            mount["uidMappings"] = Value::Null;
            mount["gidMappings"] = Value::Null;
        }
    })?;
    let done = mapped.run()?;
    assert_eq!(done.end, End::Status(1));
    assert!(
        done.stderr_text().contains("mounts[7].uidMappings"),
        "{}",
        done.stderr_text()
    );
    Ok(())
}
