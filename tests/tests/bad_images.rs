//! Bad images: one clear line each, nothing left behind, nothing written outside.

use std::collections::BTreeMap;
use std::fs;

use husk_tests::differential::Failures;
use husk_tests::image::{Content, busybox_layer, write_oci};
use husk_tests::layer::Layer;
use husk_tests::sandbox::Kvm;
use husk_tests::{End, Husk, Image, Sandbox};
use serde_json::json;
use tar::EntryType;

type Files = BTreeMap<String, Vec<u8>>;

const ARCHIVE: &str = "docker-archive:/mnt/work/bad.tar";

fn sandbox() -> Sandbox {
    Sandbox::new(&Husk::find().unwrap(), &Image::busybox().unwrap()).unwrap()
}

/// The busybox image, to be spoilt. Not with the layer the sandbox has already: husk would take that one from its store
/// and never look at it.
fn good() -> Content {
    let layer = busybox_layer().unwrap();
    let layer = layer.file("etc/motto", 0o644, b"to be spoilt\n").unwrap();
    Content::new(layer.finish().unwrap())
}

#[test]
fn spoilt_docker_archives() {
    let archive = good().docker_archive().unwrap();
    let flipped = |at: usize| {
        let mut bytes = archive.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let rewritten = |old: &str, new: &str| {
        let at = archive
            .windows(old.len())
            .rposition(|window| window == old.as_bytes())
            .unwrap();
        let mut bytes = archive.clone();
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        bytes
    };
    let manifest = |text: &str| {
        Layer::new()
            .file("manifest.json", 0o644, text.as_bytes())
            .unwrap()
            .finish()
            .unwrap()
    };
    let foreign = |field: &str, value: &str| {
        let mut content = good();
        content.config[field] = json!(value);
        content.docker_archive().unwrap()
    };
    let cases = [
        ("empty", Vec::new()),
        ("not a tar", b"this is not a tar archive\n".repeat(1000)),
        ("cut in the middle", archive[..archive.len() / 2].to_vec()),
        ("cut in the first header", archive[..300].to_vec()),
        (
            "a byte of the layer's content flipped",
            flipped(archive.len() / 3),
        ),
        (
            "a byte of the layer's first header flipped",
            flipped(1024 + 10),
        ),
        ("a wrong digest", rewritten("\"sha256:", "\"sha256:0000")),
        (
            "a digest of another kind",
            rewritten("\"sha256:", "\"md5:000:"),
        ),
        (
            "a manifest that names a missing layer",
            rewritten("/layer.tar", "/lager.tar"),
        ),
        (
            "no manifest",
            Layer::new()
                .file("x", 0o644, b"x")
                .unwrap()
                .finish()
                .unwrap(),
        ),
        ("a manifest that is no JSON", manifest("[{")),
        ("an empty manifest", manifest("[]")),
        ("a manifest of another shape", manifest("{\"Config\": 5}")),
        (
            "a manifest whose names climb",
            manifest("[{\"Config\":\"../../../etc/passwd\",\"Layers\":[]}]"),
        ),
        ("another architecture", foreign("architecture", "arm64")),
        ("another operating system", foreign("os", "windows")),
    ];
    let mut failures = Failures::default();
    let total = cases.len();
    for (name, bytes) in cases {
        let sandbox = sandbox();
        sandbox.put("bad.tar", &bytes).unwrap();
        failures.note(
            name,
            sandbox.complaint(Kvm::Present, &["run", ARCHIVE, "--", "true"], 125),
        );
    }
    failures.check(total);
}

#[test]
fn spoilt_oci_layouts() {
    let files = good().oci_files().unwrap();
    let largest = files
        .iter()
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap()
        .0
        .clone();
    let smallest = files
        .keys()
        .filter(|name| name.starts_with("blobs/"))
        .min_by_key(|name| files[*name].len())
        .unwrap();
    let mut cases = Vec::new();
    let mut with = |name, change: &dyn Fn(&mut Files)| {
        let mut spoilt = files.clone();
        change(&mut spoilt);
        cases.push((name, spoilt));
    };
    with("layer changed", &|files| {
        files.get_mut(&largest).unwrap()[5000] ^= 1
    });
    with("layer cut", &|files| {
        files.get_mut(&largest).unwrap().truncate(5000)
    });
    with("layer missing", &|files| drop(files.remove(&largest)));
    with("configuration or manifest changed", &|files| {
        *files.get_mut(smallest).unwrap().last_mut().unwrap() = b' '
    });
    with("no index", &|files| drop(files.remove("index.json")));
    with("index is no JSON", &|files| {
        files.get_mut("index.json").unwrap().truncate(20)
    });
    with("empty index", &|files| {
        drop(files.insert(
            "index.json".into(),
            b"{\"schemaVersion\":2,\"manifests\":[]}".to_vec(),
        ))
    });
    let total = cases.len();
    let mut failures = Failures::default();
    for (name, files) in cases {
        let sandbox = sandbox();
        write_oci(&files, &sandbox.work().join("bad")).unwrap();
        failures.note(
            name,
            sandbox.complaint(
                Kvm::Present,
                &["run", "oci:/mnt/work/bad", "--", "true"],
                125,
            ),
        );
    }
    failures.check(total);
}

#[test]
fn layers_that_reach_outside() {
    const UP: &str = "../../../../../../../../../../";
    let evil = |name: &str, kind: EntryType, target: &str| {
        busybox_layer()
            .unwrap()
            .raw(
                name,
                kind,
                0o644,
                target,
                if kind.is_file() { b"escaped\n" } else { b"" },
            )
            .unwrap()
    };
    let file = |layer: Layer, name: &str| {
        layer
            .raw(name, EntryType::Regular, 0o644, "", b"escaped\n")
            .unwrap()
    };
    let refused = [
        (
            "a name that climbs",
            evil(&format!("{UP}escaped"), EntryType::Regular, ""),
        ),
        (
            "a name that climbs from within",
            evil(&format!("etc/{UP}tmp/escaped"), EntryType::Regular, ""),
        ),
        (
            "a directory that climbs",
            evil(&format!("{UP}escaped-dir"), EntryType::Directory, ""),
        ),
        (
            "a hard link to the outside",
            evil("stolen", EntryType::Link, &format!("{UP}etc/passwd")),
        ),
        (
            "a hard link through a link",
            evil("out", EntryType::Symlink, "/etc")
                .link("stolen", "out/hostname")
                .unwrap(),
        ),
    ];
    // Under the image's own root these lead to places inside it, which real images do; refusing them is as good.
    let contained = [
        (
            "through an absolute link",
            file(evil("out", EntryType::Symlink, "/mnt"), "out/escaped"),
        ),
        (
            "through a link that climbs",
            file(evil("out", EntryType::Symlink, UP), "out/escaped"),
        ),
        (
            "through two links",
            file(
                evil("a", EntryType::Symlink, "/")
                    .symlink("b", "a/tmp")
                    .unwrap(),
                "b/escaped",
            ),
        ),
        (
            "a whiteout through a link",
            file(evil("out", EntryType::Symlink, "/etc"), "out/.wh.hostname"),
        ),
    ];
    let total = refused.len() + contained.len();
    let mut failures = Failures::default();
    let prepare = |layer: Layer| {
        let sandbox = sandbox();
        let content = Content::new(layer.finish().unwrap());
        sandbox
            .put("bad.tar", &content.docker_archive().unwrap())
            .unwrap();
        sandbox
    };
    for (name, layer) in refused {
        failures.note(
            name,
            prepare(layer).complaint(Kvm::Present, &["run", ARCHIVE, "--", "true"], 125),
        );
    }
    for (name, layer) in contained {
        let sandbox = prepare(layer);
        let outcome = sandbox
            .run(Kvm::Present, &["run", ARCHIVE, "--", "true"])
            .unwrap();
        if outcome.run.end == End::Status(0) {
            let outside: Vec<_> = outcome
                .left_behind
                .iter()
                .filter(|name| !name.starts_with("/mnt/root/"))
                .collect();
            failures.note(
                name,
                Ok((!outside.is_empty()).then(|| format!("  outside: {outside:#?}\n"))),
            );
        } else {
            failures.note(
                name,
                sandbox.complaint(Kvm::Present, &["run", ARCHIVE, "--", "true"], 125),
            );
        }
        assert!(
            fs::exists("/etc/hostname").unwrap(),
            "{name} removed a file of the host"
        );
    }
    failures.check(total);
}
