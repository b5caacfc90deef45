//! Directories of the host in a container: what either side does, the other sees.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use husk_tests::cache::Scratch;
use husk_tests::{Husk, Image, Job, Runner, programs};

/// Runs `script` in a busybox container with volumes; gives its output, standard error behind standard output.
fn run(volumes: &[String], script: &str) -> String {
    let image = Image::busybox().unwrap();
    let options = volumes
        .iter()
        .flat_map(|volume| ["--volume", volume.as_str()]);
    let husk = Husk::find().unwrap().options(options);
    let captured = husk.run(&Job::shell(&image, script)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&captured.stdout) + &text(&captured.stderr)
}

fn volume(source: &Path, rest: &str) -> String {
    format!("{}:{rest}", source.display())
}

#[test]
fn both_sides_see_everything() {
    let scratch = Scratch::new("volume").unwrap();
    let dir = scratch.path();
    fs::write(dir.join("host"), "of the host\n").unwrap();
    let script = "cat /v/host; echo of the guest >/v/guest; mkdir -p /v/d/e; ln -s ../guest /v/d/l; ln /v/guest /v/hard
        mv /v/d/e /v/e; chmod 4751 /v/guest; chown 12:34 /v/hard; mkfifo /v/fifo; touch -d '2001-02-03 04:05:06' /v/e
        echo more >>/v/guest; cat /v/d/l; rm /v/host; stat -c '%h %a %u:%g %s' /v/guest; ls /v";
    let output = run(&[volume(dir, "/v")], script);
    assert_eq!(
        output,
        "of the host\nof the guest\nmore\n2 751 12:34 18\nd\ne\nfifo\nguest\nhard\n"
    );
    assert_eq!(
        fs::read_to_string(dir.join("guest")).unwrap(),
        "of the guest\nmore\n"
    );
    let guest = fs::metadata(dir.join("guest")).unwrap();
    assert_eq!((guest.nlink(), guest.uid(), guest.gid()), (2, 12, 34));
    assert_eq!(guest.permissions().mode() & 0o7777, 0o751);
    assert_eq!(
        fs::read_link(dir.join("d/l")).unwrap(),
        Path::new("../guest")
    );
    assert_eq!(fs::metadata(dir.join("e")).unwrap().mtime(), 981_173_106);
    assert!(!dir.join("host").exists());
}

#[test]
fn read_only_is_read_only() {
    let scratch = Scratch::new("volume").unwrap();
    let dir = scratch.path();
    fs::write(dir.join("f"), "x").unwrap();
    let script = "echo y >/v/f; rm /v/f; mkdir /v/d; mv /v/f /v/g; chmod 0 /v/f; touch /v/f; ln /v/f /v/h; cat /v/f";
    let output = run(&[volume(dir, "/v:ro")], script);
    assert_eq!(
        output.matches("Read-only file system").count(),
        7,
        "{output}"
    );
    assert!(output.starts_with('x'), "{output}");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn files_nested_volumes_and_new_mount_points() {
    let scratch = Scratch::new("volume").unwrap();
    let dir = scratch.path();
    fs::create_dir_all(dir.join("outer/in")).unwrap();
    fs::create_dir(dir.join("inner")).unwrap();
    fs::write(dir.join("inner/deep"), "deep\n").unwrap();
    fs::write(dir.join("single"), "single\n").unwrap();
    let volumes = [
        volume(&dir.join("inner"), "/a/b/in"),
        volume(&dir.join("outer"), "/a/b"),
        volume(&dir.join("single"), "/a/one:ro"),
    ];
    let script = "cat /a/b/in/deep /a/one; echo x >/a/b/in/new; echo y >/a/one; ls -A /a /a/b; cd /a/b/in; cd ../..; pwd";
    let output = run(&volumes, script);
    let expected = "deep\nsingle\n/a:\nb\none\n\n/a/b:\nin\n/a\n";
    assert!(output.starts_with(expected), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(dir.join("inner/new").exists() && !dir.join("outer/in/new").exists());
}

/// Whatever the host's directory holds, the guest does not leave it.
#[test]
fn links_lead_nowhere_else() {
    let scratch = Scratch::new("volume").unwrap();
    let dir = scratch.path().join("v");
    fs::create_dir(&dir).unwrap();
    fs::write(scratch.path().join("secret"), "secret").unwrap();
    symlink(scratch.path().join("secret"), dir.join("absolute")).unwrap();
    symlink("../secret", dir.join("relative")).unwrap();
    symlink("..", dir.join("up")).unwrap();
    let script = "cat /v/absolute; cat /v/relative; ls /v/up/; cat /v/up/secret; cd /v; ls ..; cat ../secret";
    let output = run(&[volume(&dir, "/v")], script);
    assert!(
        !output.replace("/secret", "").contains("secret\n"),
        "{output}"
    );
    assert_eq!(
        output.matches("No such file or directory").count(),
        4,
        "{output}"
    );
}

#[test]
fn the_host_changes_a_mapped_file() {
    let scratch = Scratch::new("volume").unwrap();
    let file = scratch.path().join("f");
    fs::write(&file, vec![0; 3 * 4096]).unwrap();
    let husk = Husk::find().unwrap().options([
        "--timeout",
        "60",
        "--volume",
        &volume(scratch.path(), "/v"),
    ]);
    let mut child = husk
        .command_for(&Job::new(programs::image(), ["/t/vol_mmap", "/v/f"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || from.next().unwrap().unwrap();
    let go = |to: &mut std::process::ChildStdin| to.write_all(b"\n").unwrap();
    let overwrite = |at: u64, bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
        file.write_all_at(bytes, at).unwrap();
    };

    assert_eq!(line(), "mapped");
    assert!(fs::read(&file).unwrap().starts_with(b"from the guest\0"));
    overwrite(4096, b"from the host\0");
    go(&mut to);
    assert_eq!(line(), "from the host");
    assert_eq!(line(), "seen");
    let handle = fs::OpenOptions::new().write(true).open(&file).unwrap();
    handle.set_len(4096).unwrap();
    go(&mut to);
    assert_eq!(line(), "page 2: SIGBUS BUS_ADRERR");
    assert_eq!(line(), "page 1: SIGBUS BUS_ADRERR");
    assert_eq!(line(), "page 0: from the guest");
    assert_eq!(line(), "size 4096");
    assert_eq!(line(), "cut");
    handle.set_len(3 * 4096).unwrap();
    overwrite(4096, b"again\0");
    go(&mut to);
    assert_eq!(line(), "page 1: again");
    assert!(child.wait().unwrap().success());
}

/// Lines that three containers and the host append to one file at the same time are all there, whole.
#[test]
fn many_append_to_one_file() {
    let scratch = Scratch::new("volume").unwrap();
    let log = scratch.path().join("log");
    fs::write(&log, "").unwrap();
    let shown = volume(scratch.path(), "/v");
    let script = |name: usize| {
        format!(
            "i=0; while [ $i -lt 200 ]; do echo container {name} line $i; i=$((i+1)); done >>/v/log; ls /v"
        )
    };
    std::thread::scope(|scope| {
        for name in 0..3 {
            let (shown, script) = (shown.clone(), script(name));
            scope.spawn(move || assert_eq!(run(&[shown], &script), "log\n"));
        }
        let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
        for line in 0..200 {
            file.write_all(format!("container host line {line}\n").as_bytes())
                .unwrap();
        }
    });
    let text = fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 800);
    let is_whole = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(words[..], ["container", _, "line", number] if number.parse::<u32>().is_ok())
    };
    assert!(lines.iter().all(is_whole), "{text}");
}

/// What the VMM itself recorded: the operations on the volume, with paths and errors.
#[test]
fn operations_are_recorded() {
    let scratch = Scratch::new("volume").unwrap();
    let records = scratch.path().join("records");
    fs::create_dir(scratch.path().join("v")).unwrap();
    let husk = Husk::find().unwrap().options([
        "--trace",
        records.to_str().unwrap(),
        "--volume",
        &volume(&scratch.path().join("v"), "/v"),
    ]);
    let script = "mkdir /v/d; echo x >/v/d/f; cat /v/none; rm -r /v/d";
    let image = Image::busybox().unwrap();
    husk.run(&Job::shell(&image, script)).unwrap();
    let text = fs::read_to_string(&records).unwrap();
    let has = |parts: &[&str]| {
        let mut lines = text
            .lines()
            .filter(|line| line.contains(r#""kind":"boundary""#));
        lines.any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(has(&[
        r#""operation":"mkdir""#,
        r#""argument":"d""#,
        r#""errno":null"#
    ]));
    assert!(has(&[
        r#""operation":"mknod""#,
        r#""path":"/d""#,
        r#""argument":"f""#
    ]));
    assert!(has(&[r#""operation":"write""#, r#""path":"/d/f""#]));
    assert!(has(&[
        r#""operation":"lookup""#,
        r#""argument":"none""#,
        r#""errno":"ENOENT""#
    ]));
    assert!(has(&[r#""operation":"rmdir""#, r#""argument":"d""#]));
}
