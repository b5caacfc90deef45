//! `husk image` and what the store does with it: names, layers that are shared, removal, full disks, processes at once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use husk_tests::End;
use husk_tests::capture::capture;
use husk_tests::image::write_oci;
use husk_tests::layer::Layer;
use husk_tests::store::{Ground, complaint, content};
use serde_json::Value;

#[test]
fn load_list_inspect_run_remove() {
    let ground = Ground::new().unwrap();
    let one = ground
        .archive("one", &content("one", 1, 5).unwrap())
        .unwrap();
    let two = ground
        .archive("two", &content("two", 2, 5).unwrap())
        .unwrap();
    assert_eq!(
        ground.ok(&["image", "load", &one]).unwrap(),
        "Loaded image: one:latest\n"
    );
    let text = ground
        .ok(&["image", "load", &two, "--name", "reg.io:5000/other/two:v2"])
        .unwrap();
    assert_eq!(text, "Loaded image: reg.io:5000/other/two:v2\n");
    // The busybox layer is there once.
    let stored = ground.check().unwrap();
    assert_eq!(
        (stored.layers.len(), stored.images.len(), stored.names.len()),
        (4, 2, 2)
    );

    let list = ground.ok(&["image", "ls"]).unwrap();
    for word in ["REPOSITORY", "one", "latest", "reg.io:5000/other/two", "v2"] {
        assert!(list.contains(word), "{list}");
    }
    assert_eq!(
        ground.ok(&["image", "ls", "-q"]).unwrap().lines().count(),
        2
    );
    let rows = ground
        .ok(&["image", "ls", "--format", "json", "--no-trunc"])
        .unwrap();
    let rows: Vec<Value> = rows
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let row = rows.iter().find(|row| row["Repository"] == "one").unwrap();
    let id = row["ID"].as_str().unwrap();
    let short = &id["sha256:".len()..][..12];

    let inspected = ground.ok(&["image", "inspect", "one", short]).unwrap();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(
        (&inspected[0], inspected[0]["Id"].as_str()),
        (&inspected[1], Some(id))
    );
    assert_eq!(inspected[0]["RepoTags"][0], "one:latest");
    assert_eq!(inspected[0]["Author"], "one");
    assert_eq!(inspected[0]["Config"]["Cmd"][0], "sh");
    assert_eq!(
        inspected[0]["RootFS"]["Layers"].as_array().unwrap().len(),
        2
    );

    for image in ["one", "docker.io/library/one:latest", id, short] {
        let text = ground
            .ok(&["run", image, "--", "cat", "/data/one-0-1"])
            .unwrap();
        assert_eq!(text, "one 0 1\n", "{image}");
    }

    let line = ground.fails(&["image", "rm", "three"], 1).unwrap();
    assert!(
        line.contains("\"three\"") && line.contains("husk pull"),
        "{line}"
    );
    ground.fails(&["run", "three", "--", "true"], 125).unwrap();
    ground.fails(&["run", "one:v9", "--", "true"], 125).unwrap();
    let text = ground.ok(&["image", "rm", "one"]).unwrap();
    assert_eq!(text, format!("Untagged: one:latest\nDeleted: {id}\n"));
    assert_eq!(
        ground.check().unwrap().layers.len(),
        3,
        "what two shares stays"
    );
    assert_eq!(
        ground
            .ok(&[
                "run",
                "reg.io:5000/other/two:v2",
                "--",
                "cat",
                "/data/two-1-1"
            ])
            .unwrap(),
        "two 1 1\n"
    );
    ground.ok(&["image", "prune", "--all"]).unwrap();
    ground.check_empty().unwrap();
}

#[test]
fn names_move_and_several_name_one() {
    let ground = Ground::new().unwrap();
    let one = ground
        .archive("app", &content("one", 1, 1).unwrap())
        .unwrap();
    // The other will have a file of that name.
    fs::rename(ground.dir().join("app.tar"), ground.dir().join("one.tar")).unwrap();
    let one = one.replace("app.tar", "one.tar");
    ground.ok(&["image", "load", &one]).unwrap();
    ground
        .ok(&["image", "load", &one, "--name", "app:old"])
        .unwrap();
    let id = ground.ok(&["image", "ls", "-q"]).unwrap().trim().to_owned();
    let line = ground.fails(&["image", "rm", &id], 1).unwrap();
    assert!(line.contains("app:latest, app:old"), "{line}");
    // Another image takes the name; the first keeps its other one.
    let two = ground
        .archive("app", &content("two", 1, 1).unwrap())
        .unwrap();
    ground.ok(&["image", "load", &two]).unwrap();
    assert_eq!(
        ground
            .ok(&["run", "app", "--", "cat", "/data/two-0-0"])
            .unwrap(),
        ""
    );
    assert_eq!(
        ground
            .ok(&["image", "rm", "app:old"])
            .unwrap()
            .lines()
            .count(),
        2
    );
    // Run from an archive, an image has no name, and goes when it is tidied up.
    ground.ok(&["run", &one, "--", "true"]).unwrap();
    assert!(ground.ok(&["image", "ls"]).unwrap().contains("<none>"));
    let text = ground.ok(&["image", "prune"]).unwrap();
    assert!(text.starts_with(&format!("Deleted: sha256:{id}")), "{text}");
    assert_eq!(ground.check().unwrap().images.len(), 1);
}

#[test]
fn an_image_in_use_stays() {
    let ground = Ground::new().unwrap();
    let source = ground
        .archive("used", &content("used", 1, 1).unwrap())
        .unwrap();
    ground.ok(&["image", "load", &source]).unwrap();
    let mut run = ground
        .command(&["run", "used", "--", "sh", "-c", "echo up; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut up).unwrap();
    let line = ground.fails(&["image", "rm", "used"], 1).unwrap();
    assert!(line.contains("in use"), "{line}");
    ground.ok(&["image", "prune", "--all"]).unwrap();
    assert_eq!(ground.check().unwrap().images.len(), 1);
    drop(run.stdin.take());
    run.wait().unwrap();
    ground.ok(&["image", "rm", "used"]).unwrap();
    ground.check_empty().unwrap();
}

#[test]
fn all_images_of_an_archive_and_of_a_layout() {
    let ground = Ground::new().unwrap();
    // Two images in one archive, by hand.
    let (one, two) = (content("one", 0, 0).unwrap(), content("two", 0, 0).unwrap());
    let layer = &one.layers[0];
    let archive = Layer::new()
        .file("layer.tar", 0o644, layer)
        .and_then(|tar| tar.file("one.json", 0o644, &one.config_json()))
        .and_then(|tar| tar.file("two.json", 0o644, &two.config_json()))
        .and_then(|tar| {
            let manifest = r#"[{"Config":"one.json","RepoTags":["one:a","one:b"],"Layers":["layer.tar"]},
                               {"Config":"two.json","RepoTags":null,"Layers":["layer.tar"]}]"#;
            tar.file("manifest.json", 0o644, manifest.as_bytes())
        });
    fs::write(
        ground.dir().join("both.tar"),
        archive.unwrap().finish().unwrap(),
    )
    .unwrap();
    let source = format!("docker-archive:{}", ground.dir().join("both.tar").display());
    let text = ground.ok(&["image", "load", &source]).unwrap();
    assert!(
        text.starts_with("Loaded image: one:a\n") && text.contains("Loaded image ID: sha256:"),
        "{text}"
    );
    assert_eq!(ground.check().unwrap().images.len(), 2);
    let line = ground
        .fails(&["image", "load", &source, "--name", "x"], 1)
        .unwrap();
    assert!(line.contains("several images"), "{line}");

    let layout = ground.dir().join("layout");
    write_oci(
        &content("three", 1, 1).unwrap().oci_files().unwrap(),
        &layout,
    )
    .unwrap();
    let source = format!("oci:{}", layout.display());
    assert_eq!(
        ground
            .ok(&["image", "load", &source, "--name", "three"])
            .unwrap(),
        "Loaded image: three:latest\n"
    );
    assert_eq!(
        ground
            .ok(&["run", "three", "--", "cat", "/data/three-0-0"])
            .unwrap(),
        ""
    );
}

#[test]
fn whiteouts_of_real_layers_reach_the_guest() {
    let ground = Ground::new().unwrap();
    let mut image = content("w", 0, 0).unwrap();
    let upper = Layer::new()
        .file("etc/.wh.passwd", 0o644, b"")
        .and_then(|layer| layer.file("home/.wh..wh..opq", 0o644, b""))
        .and_then(|layer| layer.file("home/new", 0o4755, b"new\n"))
        .and_then(|layer| layer.link("bin/again", "bin/busybox"));
    image.layers.push(upper.unwrap().finish().unwrap());
    let source = ground.archive("w", &image).unwrap();
    let script = "ls /etc /home; stat -c %a /home/new; stat -c %h /bin/again";
    let text = ground
        .ok(&["run", &source, "--", "sh", "-c", script])
        .unwrap();
    assert_eq!(text, "/etc:\ngroup\nshadow\n\n/home:\nnew\n4755\n2\n");
}

#[test]
fn a_damaged_store_says_so_and_heals() {
    let ground = Ground::new().unwrap();
    let source = ground
        .archive("hurt", &content("hurt", 1, 1).unwrap())
        .unwrap();
    ground.ok(&["image", "load", &source]).unwrap();
    let image = ground.check().unwrap().images.pop_first().unwrap();
    let config = ground
        .root()
        .join("v2/images")
        .join(image)
        .join("config.json");
    fs::write(&config, "{}").unwrap();
    for arguments in [&["image", "ls"][..], &["image", "inspect", "hurt"]] {
        let line = ground.fails(arguments, 1).unwrap();
        assert!(
            line.contains("damaged") && line.contains("husk image rm"),
            "{line}"
        );
    }
    ground.ok(&["image", "rm", "hurt"]).unwrap();
    ground.check_empty().unwrap();
    ground.ok(&["image", "load", &source]).unwrap();
    assert_eq!(
        ground.ok(&["run", "hurt", "--", "echo", "well"]).unwrap(),
        "well\n"
    );
}

#[test]
fn a_full_disk_is_one_line_and_leaves_nothing() {
    let ground = Ground::new().unwrap();
    let source = ground
        .archive("big", &content("big", 3, 400).unwrap())
        .unwrap();
    fs::create_dir(ground.root()).unwrap();
    // From no room at all to nearly enough.
    for kilobytes in [64, 1024, 2048, 2600, 3500, 4500] {
        let script = r#"mount -t tmpfs -o size="$1"k none "$2" && shift 2 && "$@"; status=$?
            [ $status = 0 ] || find "$ROOT"/v2/layers "$ROOT"/v2/images "$ROOT"/v2/names "$ROOT"/v2/tmp -mindepth 1
            exit $status"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", &kilobytes.to_string()]);
        command.arg(ground.root()).env("ROOT", ground.root());
        let load = ground.command(&["image", "load", &source]);
        command.arg(load.get_program()).args(load.get_args());
        let run = capture(&command, &[], Duration::from_secs(60)).unwrap();
        if run.end == End::Status(0) {
            continue;
        }
        let line = complaint(&run, 1).unwrap();
        assert!(
            line.contains("No space left on device"),
            "{kilobytes}: {line}"
        );
        assert_eq!(run.stdout_text(), "", "{kilobytes} KiB: left behind");
    }
}

#[test]
fn what_may_not_be_read_or_written_is_one_line() {
    let ground = Ground::new().unwrap();
    let source = ground.archive("p", &content("p", 0, 0).unwrap()).unwrap();
    let nobody = |arguments: &[&str]| {
        let husk = ground.command(arguments);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(husk.get_program()).args(husk.get_args());
        complaint(&capture(&command, &[], Duration::from_secs(60)).unwrap(), 1).unwrap()
    };
    // The store belongs to root.
    ground.ok(&["image", "ls"]).unwrap();
    assert!(nobody(&["image", "ls"]).contains("Permission denied"));
    let missing = ground
        .fails(&["image", "load", "oci:/no/such/layout"], 1)
        .unwrap();
    assert!(missing.contains("/no/such/layout"), "{missing}");
    fs::remove_dir_all(ground.root()).unwrap();
    fs::create_dir(ground.root()).unwrap();
    std::os::unix::fs::chown(ground.root(), Some(65534), Some(65534)).unwrap();
    std::os::unix::fs::chown(ground.dir(), Some(65534), Some(65534)).unwrap();
    // Nobody may not give files to root, which is what the layer wants.
    let line = nobody(&["image", "load", &source]);
    assert!(line.contains("not permitted; run as root"), "{line}");
    let path = source.strip_prefix("docker-archive:").unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let line = nobody(&["image", "load", &source]);
    assert!(
        line.contains("Permission denied") && line.contains(path),
        "{line}"
    );
    ground.check_empty().unwrap();
}

/// Processes that load, remove and prune the same and related images, all at once.
#[test]
fn many_processes_at_once() {
    let ground = Ground::new().unwrap();
    let sources: Vec<String> = (0..3)
        .map(|i| {
            ground
                .archive(
                    &format!("p{i}"),
                    &content(&format!("p{}", i % 2), i + 1, 60).unwrap(),
                )
                .unwrap()
        })
        .collect();
    for round in 0..6 {
        let mut children = Vec::new();
        for source in sources.iter().chain(&sources) {
            children.push(ground.command(&["image", "load", source]));
        }
        if round % 2 == 1 {
            children.push(ground.command(&["image", "rm", "p0"]));
            children.push(ground.command(&["image", "prune"]));
            children.push(ground.command(&["image", "prune", "--all"]));
        }
        let children: Vec<_> = children
            .into_iter()
            .map(|mut command| {
                command
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for (index, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            // A removal may come too early, or meet one that loads.
            let may_fail = index == 6 && (text.contains("no image") || text.contains("in use"));
            assert!(
                output.status.success() || may_fail,
                "round {round}, process {index}: {text}"
            );
            assert!(!text.contains("panicked"), "{text}");
        }
        let stored = ground.check().unwrap();
        if round % 2 == 0 {
            assert_eq!((stored.images.len(), stored.names.len()), (3, 3));
        }
    }
    ground.ok(&["image", "prune", "--all"]).unwrap();
    ground.check_empty().unwrap();
}
