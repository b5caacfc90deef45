//! Host file systems that fail under a container: the program gets the errno that runc's container gets, and what was
//! there stays there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_tests::cache::Scratch;
use husk_tests::oci::{Bundle, Runtime, both};
use husk_tests::programs;
use serde_json::json;

fn host(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        done.status.success(),
        "{program} {arguments:?}: {}",
        text(&done.stderr)
    );
    text(&done.stdout).trim().to_owned()
}

/// A file system mounted for a test.
struct Mounted {
    scratch: Scratch,
    device: Option<String>,
}

impl Mounted {
    fn at(&self) -> PathBuf {
        self.scratch.path().join("m")
    }

    fn prepare() -> Scratch {
        let scratch = Scratch::new("failing").unwrap();
        fs::create_dir(scratch.path().join("m")).unwrap();
        scratch
    }

    /// A file system in memory of so many bytes.
    fn small(bytes: u64) -> Self {
        let mounted = Self {
            scratch: Self::prepare(),
            device: None,
        };
        let options = format!("size={bytes}");
        host(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &options,
                "none",
                mounted.at().to_str().unwrap(),
            ],
        );
        mounted
    }

    /// An ext4 file system on a loop device over the file `disk`, with a file of `bytes` in it.
    fn disk(bytes: usize) -> Self {
        let scratch = Self::prepare();
        let disk = scratch.path().join("disk");
        fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        // Without a journal: a lost one would stop the whole file system, not single reads.
        let features = ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0"];
        host(
            "mkfs.ext4",
            &[&features[..], &[disk.to_str().unwrap()]].concat(),
        );
        let device = host("losetup", &["--find", "--show", disk.to_str().unwrap()]);
        let mounted = Self {
            scratch,
            device: Some(device.clone()),
        };
        host(
            "mount",
            &[
                "-o",
                "errors=continue",
                &device,
                mounted.at().to_str().unwrap(),
            ],
        );
        fs::write(mounted.at().join("large"), vec![b'x'; bytes]).unwrap();
        fs::write(mounted.at().join("small"), "small\n").unwrap();
        fs::read_dir(mounted.at()).unwrap().count();
        mounted
    }

    /// The disk loses all its blocks: what is not in memory cannot be read any more.
    fn lose_blocks(&self) {
        host("sync", &["-f", self.at().to_str().unwrap()]);
        let disk = fs::OpenOptions::new()
            .write(true)
            .open(self.scratch.path().join("disk"))
            .unwrap();
        disk.set_len(4096).unwrap();
        // Only contents: names and attributes stay in memory.
        fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.at()).output();
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).output();
        }
    }
}

/// `sh -c SCRIPT` in a container that has `source` as `/v`; gives what it prints and its status.
fn in_bundle(runtime: &Runtime, source: &Path, script: &str, user: u32) -> anyhow::Result<String> {
    let mut bundle = Bundle::new(runtime, programs::image(), script)?;
    bundle.edit(|spec| {
        spec["root"]["readonly"] = json!(false);
        spec["process"]["user"] = json!({ "uid": user, "gid": user });
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/v", "type": "bind", "source": source, "options": ["rbind", "rw"] }));
        }
    })?;
    let done = bundle.run()?;
    Ok(format!(
        "{}{}{:?}",
        done.stdout_text(),
        done.stderr_text(),
        done.end
    ))
}

#[test]
fn a_full_volume() {
    let script = "cd /v; cp /bin/busybox 1; echo kept >old; i=2
        while cp /bin/busybox $i 2>/dev/null; do i=$((i+1)); done; echo $i copies are too many
        echo more >new; echo $?; cat old; cmp 1 /bin/busybox && echo whole; mkdir d; echo x >>old; echo $?; cat old
        dd if=/dev/zero of=z bs=4096 count=1000; rm $i; echo again >new && cat new; ls";
    let text = both(|runtime| {
        let volume = Mounted::small(8 << 20);
        let text = in_bundle(runtime, &volume.at(), script, 0)?;
        assert_eq!(fs::read_to_string(volume.at().join("new"))?, "again\n");
        Ok(without_rates(&text))
    });
    assert!(text.unwrap().contains("No space left on device"));
}

/// What dd says of its speed is left out.
fn without_rates(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("bytes ("));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_disk_that_cannot_be_read() {
    let script = "cd /v; cat small; echo $?; wc -c <large; echo $?; dd if=large of=/dev/null bs=4096 skip=100 count=1 2>&1 | head -n 1
        /t/hold /v/large </dev/null >/dev/null; echo mapped: $?; echo alive";
    let text = both(|runtime| {
        let volume = Mounted::disk(1 << 20);
        volume.lose_blocks();
        in_bundle(runtime, &volume.at(), script, 0)
    });
    let text = text.unwrap();
    assert!(text.contains("error") && text.contains("alive"), "{text}");
}

#[test]
fn a_volume_that_may_not_be_read() {
    let script = "ls /v; echo $?; cat /v/f; echo x >/v/f; echo $?; cd /v; echo $?; cat /v/open; test -d /v && echo directory";
    both(|runtime| {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new("unreadable")?;
        let volume = scratch.path().join("v");
        fs::create_dir(&volume)?;
        fs::write(volume.join("f"), "secret\n")?;
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        allow(&volume, 0)?;
        let closed = in_bundle(runtime, &volume, script, 1000)?;
        allow(&volume, 0o711)?;
        allow(&volume.join("f"), 0)?;
        let shut = in_bundle(runtime, &volume, script, 1000)?;
        assert_eq!(fs::read_to_string(volume.join("f"))?, "secret\n");
        Ok(closed + &shut)
    })
    .unwrap();
}

/// The directory and files of the volume are removed, and made again, while the container has them open.
#[test]
fn a_volume_that_is_removed() {
    let script = "cd /v/d; exec 3<f 4>>f; echo ready; while [ -e /v/go ]; do :; done
        cat <&3; echo more >&4; echo $?; ls; echo x >new; cat f; cd /v/d; cat f; echo x >/v/d/new; ls /v/d; stat -c %h /proc/self/fd/3 -L";
    both(|runtime| {
        let scratch = Scratch::new("removed")?;
        let volume = scratch.path().join("v");
        fs::create_dir_all(volume.join("d"))?;
        fs::write(volume.join("d/f"), "contents\n")?;
        fs::write(volume.join("go"), "")?;
        let mut bundle = Bundle::new(runtime, programs::image(), script)?;
        bundle.edit(|spec| {
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.push(json!({ "destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rw"] }));
            }
        })?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "ready")?;
        fs::remove_dir_all(volume.join("d"))?;
        fs::create_dir(volume.join("d"))?;
        fs::write(volume.join("d/f"), "another\n")?;
        fs::remove_file(volume.join("go"))?;
        runtime.wait_for(&id, "stopped")?;
        Ok(bundle.text(&id))
    })
    .unwrap();
}
