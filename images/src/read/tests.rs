//! Images in every kind of source, and sources that are wrong.

use std::fs;

use super::*;
use crate::merged::Stack;
use crate::progress::NoProgress;
use crate::source::Source;
use crate::testing::*;

/// A source made of bytes, found and unpacked.
#[derive(Default)]
struct Ground {
    scratch: Scratch,
}

impl Ground {
    fn source(&self, transport: &str, content: &[u8], reference: &str) -> Source {
        source_of(&self.scratch, transport, content, reference)
    }

    fn layout(&self, layout: &Layout, tag: &str) -> Source {
        let path = self.scratch.path().join("layout");
        layout.write(&path);
        format!("oci:{}{tag}", path.display()).parse().unwrap()
    }

    /// Finds and unpacks; gives the image and the content of `/f`.
    fn unpack(&self, source: &Source) -> Result<(FoundImage, String), ReadError> {
        let found = find(source, self.scratch.path())?;
        let target = self.scratch.path().join("target");
        crate::unpack::remove_tree(&target).unwrap();
        let mut paths = Vec::new();
        for index in 0..found.diff_ids().len() {
            let layer = target.join(index.to_string());
            fs::create_dir_all(&layer).unwrap();
            let mut unpacker = Unpacker::new(&layer, Stack::open(&paths).unwrap()).unwrap();
            found.apply(index, &mut unpacker, &mut NoProgress)?;
            unpacker.finish().unwrap();
            paths.insert(0, layer);
        }
        let text = Stack::open(&paths)
            .unwrap()
            .read(Path::new("/f"), 100)
            .unwrap();
        Ok((found, String::from_utf8(text.unwrap_or_default()).unwrap()))
    }
}

fn docker(content: &[u8], reference: &str) -> Result<(FoundImage, String), ReadError> {
    let ground = Ground::default();
    ground.unpack(&ground.source("docker-archive", content, reference))
}

/// From a layout directory and from a tar of it, which must agree.
fn oci(layout: &Layout, tag: &str) -> Result<(FoundImage, String), ReadError> {
    let ground = Ground::default();
    let dir = ground.unpack(&ground.layout(layout, tag));
    let tar = ground.unpack(&ground.source("oci-archive", &layout.tar(), tag));
    match (&dir, &tar) {
        (Ok(a), Ok(b)) => assert_eq!((&a.0.digest, &a.1), (&b.0.digest, &b.1)),
        (Err(a), Err(b)) => {
            assert_eq!(
                std::mem::discriminant(a),
                std::mem::discriminant(b),
                "{a} / {b}"
            );
        }
        (Err(e), _) | (_, Err(e)) => panic!("only one failed: {e}"),
    }
    dir
}

fn message<T>(result: Result<T, ReadError>) -> String {
    let Err(error) = result else {
        panic!("should have failed");
    };
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn layer(content: &str) -> Vec<u8> {
    Tar::new().file("f", content).end()
}

fn plain(content: &str) -> (Vec<u8>, Vec<u8>, &'static str) {
    (layer(content), layer(content), LAYER)
}

#[test]
fn docker_archives_of_both_flavours() {
    let layers = [layer("lower"), layer("upper")];
    let old = docker_archive(&layers);
    let (image, text) = docker(&old, "").unwrap();
    assert_eq!(
        (text.as_str(), image.names.first().map(String::as_str)),
        ("upper", Some("t:latest"))
    );
    assert_eq!(image.digest, sha256(&config_json("amd64", &layers)));
    assert_eq!(image.config.cmd, ["sh"]);

    let config = config_json("amd64", &layers);
    let names: Vec<String> = layers.iter().map(|l| sha256(l).blob_path()).collect();
    let config_name = sha256(&config).blob_path();
    let manifest = format!(
        r#"[{{"Config":"{config_name}","RepoTags":null,"Layers":["{}","{}"]}}]"#,
        names[0], names[1]
    );
    let new = Tar::new()
        .dir("blobs/")
        .file(&names[0], &layers[0])
        .file(&names[1], &layers[1])
        .file(&config_name, &config)
        .file("manifest.json", manifest)
        .end();
    let (image, text) = docker(&new, "").unwrap();
    assert_eq!((text.as_str(), image.names.len()), ("upper", 0));

    for packed in [gzip(&old), zstd(&new)] {
        assert_eq!(docker(&packed, "").unwrap().1, "upper");
    }
}

/// A manifest of the items given and the files around it.
fn docker_with(manifest: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let add = |tar: Tar, (name, bytes): &(&str, &[u8])| tar.file(name, bytes);
    files
        .iter()
        .fold(Tar::new(), add)
        .file("manifest.json", manifest)
        .end()
}

#[test]
fn linked_and_compressed_layers() {
    let layers = [layer("1"), layer("2"), layer("2")];
    let config = config_json("amd64", &layers);
    let manifest = r#"[{"Config":"c.json","RepoTags":[],"Layers":["a/layer.tar.gz","b/layer.tar","c/layer.tar"]}]"#;
    let archive = Tar::new()
        .symlink("c/layer.tar", "../b/layer.tar")
        .file("a/layer.tar.gz", gzip(&layers[0]))
        .file("b/layer.tar", zstd(&layers[1]))
        .file("c.json", &config)
        .file("manifest.json", manifest)
        .end();
    assert_eq!(docker(&archive, "").unwrap().1, "2");
    for target in [
        "../../b/layer.tar",
        "../c/layer.tar",
        "../nowhere",
        "/etc/passwd",
    ] {
        let archive = Tar::new()
            .symlink("c/layer.tar", target)
            .file("c.json", config_json("amd64", &layers[..1]))
            .file(
                "manifest.json",
                r#"[{"Config":"c.json","Layers":["c/layer.tar"]}]"#,
            )
            .end();
        assert!(
            matches!(docker(&archive, ""), Err(ReadError::Missing { .. })),
            "{target}"
        );
    }
}

#[test]
fn choosing_in_a_docker_archive() {
    let (one, two) = ([layer("one")], [layer("two")]);
    let manifest = r#"[{"Config":"1.json","RepoTags":["x:1","docker.io/library/one:latest"],"Layers":["1"]},
        {"Config":"2.json","RepoTags":null,"Layers":["2"]}]"#;
    let archive = docker_with(
        manifest,
        &[
            ("1", &one[0]),
            ("2", &two[0]),
            ("1.json", &config_json("amd64", &one)),
            ("2.json", &config_json("amd64", &two)),
        ],
    );
    let text = message(docker(&archive, ""));
    assert!(text.contains("append one of :x:1, :@1"), "{text}");
    let (image, text) = docker(&archive, ":one").unwrap();
    assert_eq!(text, "one");
    assert_eq!(
        image.names.first().map(String::as_str),
        Some("docker.io/library/one:latest")
    );
    assert_eq!(docker(&archive, ":x:1").unwrap().1, "one");
    assert_eq!(docker(&archive, ":@1").unwrap().1, "two");
    for absent in [":x", ":@2", ":two"] {
        let text = message(docker(&archive, absent));
        assert!(
            text.contains("has no image") && text.contains("x:1, @1"),
            "{text}"
        );
    }
    let none = docker_with("[]", &[]);
    assert!(matches!(docker(&none, ""), Err(ReadError::NoImage { .. })));
}

#[test]
fn wrong_digests_in_a_docker_archive() {
    let layers = [layer("x")];
    let config = config_json("amd64", &layers);
    let name = format!("{}.json", sha256(&config).hex());
    let manifest = format!(r#"[{{"Config":"{name}","Layers":["l"]}}]"#);
    let other = config_json("amd64", &[layer("y")]);
    let bad_config = docker_with(&manifest, &[("l", &layers[0]), (&name, &other)]);
    assert!(matches!(
        docker(&bad_config, ""),
        Err(ReadError::Digest { .. })
    ));
    let bad_layer = docker_with(&manifest, &[("l", &layer("y")), (&name, &config)]);
    let error = docker(&bad_layer, "");
    assert!(matches!(error, Err(ReadError::DiffId { .. })));
    let text = message(error);
    assert!(
        text.contains("layer 1 of 1") && text.contains(&sha256(&layers[0]).to_string()),
        "{text}"
    );
    // What stands after the end marker counts too.
    let longer = [layers[0].clone(), vec![0; 512]].concat();
    let padded = docker_with(&manifest, &[("l", &longer), (&name, &config)]);
    assert!(matches!(docker(&padded, ""), Err(ReadError::DiffId { .. })));
    // In the newer flavour the name of a layer is its digest.
    let blob = sha256(&layers[0]).blob_path();
    let manifest = format!(r#"[{{"Config":"{name}","Layers":["{blob}"]}}]"#);
    let bad_blob = docker_with(&manifest, &[(&blob, &layer("y")), (&name, &config)]);
    assert!(matches!(
        docker(&bad_blob, ""),
        Err(ReadError::Digest { .. })
    ));
    let manifest = format!(r#"[{{"Config":"{name}","Layers":["l","l"]}}]"#);
    let count = docker_with(&manifest, &[("l", &layers[0]), (&name, &config)]);
    assert!(matches!(
        docker(&count, ""),
        Err(ReadError::LayerCount { .. })
    ));
}

#[test]
fn layer_media_types() {
    let base = "application/vnd.oci.image.layer";
    let docker_base = "application/vnd.docker.image.rootfs";
    let good = [
        (format!("{base}.v1.tar"), layer("x")),
        (format!("{base}.v1.tar+gzip"), gzip(&layer("x"))),
        (format!("{base}.v1.tar+zstd"), zstd(&layer("x"))),
        (
            format!("{base}.nondistributable.v1.tar+gzip"),
            gzip(&layer("x")),
        ),
        (format!("{docker_base}.diff.tar.gzip"), gzip(&layer("x"))),
        (format!("{docker_base}.diff.tar"), layer("x")),
        (
            format!("{docker_base}.foreign.diff.tar.gzip"),
            gzip(&layer("x")),
        ),
        (format!("{docker_base}.diff.tar.zstd"), zstd(&layer("x"))),
        // Mislabelled: the content decides.
        (format!("{base}.v1.tar+gzip"), zstd(&layer("x"))),
    ];
    for (media_type, stored) in good {
        let mut layout = Layout::default();
        let image = layout.image("amd64", &[(layer("x"), stored, &media_type)], "");
        layout.index.push(image);
        assert_eq!(oci(&layout, "").unwrap().1, "x", "{media_type}");
    }
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "text/plain",
        "",
    ] {
        let mut layout = Layout::default();
        let image = layout.image("amd64", &[(layer("x"), layer("x"), media_type)], "");
        layout.index.push(image);
        assert!(matches!(oci(&layout, ""), Err(ReadError::MediaType { .. })));
    }
}

#[test]
fn platforms() {
    let mut layout = Layout::default();
    let arm = layout.image("arm64", &[plain("arm")], &platform("arm64"));
    let amd = layout.image("amd64", &[plain("amd")], &platform("amd64"));
    let attestation = layout.image(
        "",
        &[],
        r#","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
    );
    let inner = layout.nested(&[arm.clone(), attestation, amd.clone()], "");
    let outer = layout.nested(&[inner], &tagged("v1"));
    layout.index = vec![outer];
    let (image, text) = oci(&layout, "").unwrap();
    assert_eq!(
        (text.as_str(), image.names.first().map(String::as_str)),
        ("amd", Some("v1"))
    );
    layout.index = vec![arm.clone(), amd];
    assert_eq!(oci(&layout, "").unwrap().1, "amd");

    layout.index = vec![arm];
    let text = message(oci(&layout, ""));
    assert!(
        text.contains("is for linux/arm64, not for linux/amd64"),
        "{text}"
    );
    // Without a platform in the descriptor the configuration tells.
    let mut layout = Layout::default();
    let unlabelled = layout.image("s390x", &[plain("s")], "");
    layout.index.push(unlabelled);
    assert!(message(oci(&layout, "")).contains("linux/s390x"));
    // The descriptor may lie; the configuration is what runs.
    let mut layout = Layout::default();
    let lying = layout.image("riscv64", &[plain("s")], &platform("amd64"));
    layout.index.push(lying);
    assert!(message(oci(&layout, "")).contains("linux/riscv64"));
    let mut layout = Layout::default();
    let mut index = layout.nested(&[], "");
    for _ in 0..6 {
        index = layout.nested(&[index], "");
    }
    layout.index.push(index);
    assert!(matches!(
        oci(&layout, ""),
        Err(ReadError::IndexDepth { .. })
    ));
    let config = config_json("arm", &[]);
    let arm = docker_with(r#"[{"Config":"c","Layers":[]}]"#, &[("c", &config)]);
    assert!(message(docker(&arm, "")).contains("linux/arm,"));
}

#[test]
fn choosing_in_a_layout() {
    let mut layout = Layout::default();
    let one = layout.image("amd64", &[plain("one")], &tagged("v1"));
    let full = r#","annotations":{"io.containerd.image.name":"docker.io/library/two:latest","org.opencontainers.image.ref.name":"latest"}"#;
    let two = layout.image("amd64", &[plain("two")], full);
    layout.index = vec![one.clone(), two];
    let text = message(oci(&layout, ""));
    assert!(
        text.contains(":docker.io/library/two:latest, :v1"),
        "{text}"
    );
    assert_eq!(oci(&layout, ":v1").unwrap().1, "one");
    for tag in [":latest", ":two", ":docker.io/library/two:latest"] {
        assert_eq!(oci(&layout, tag).unwrap().1, "two", "{tag}");
    }
    assert!(matches!(
        oci(&layout, ":v2"),
        Err(ReadError::NoSuchReference { .. })
    ));
    // Two names of one image are one image.
    layout.index = vec![one.clone(), one.replace("\"v1\"", "\"v2\"")];
    assert_eq!(oci(&layout, "").unwrap().1, "one");
    // Two nameless images of one platform cannot be told apart.
    let mut layout = Layout::default();
    let images = ["a", "b"].map(|text| layout.image("amd64", &[plain(text)], ""));
    layout.index = images.to_vec();
    assert!(matches!(oci(&layout, ""), Err(ReadError::Ambiguous { .. })));
    layout.index = Vec::new();
    assert!(matches!(oci(&layout, ""), Err(ReadError::NoImage { .. })));
}

#[test]
fn wrong_digests_in_a_layout() {
    // Blobs in order: configuration, layer, manifest, nested index.
    let build = || {
        let mut layout = Layout::default();
        let stored = (layer("x"), gzip(&layer("x")), LAYER);
        let image = layout.image("amd64", &[stored], "");
        let nested = layout.nested(&[image], "");
        layout.index.push(nested);
        layout
    };
    assert_eq!(oci(&build(), "").unwrap().1, "x");
    for damaged in 0..4 {
        let mut layout = build();
        let bytes = &mut layout.files[damaged].1;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let text = message(oci(&layout, ""));
        let name = layout.files[damaged].0.clone();
        assert!(
            text.contains(&name) && text.contains("is corrupt: expected sha256:"),
            "{text}"
        );
        let mut layout = build();
        layout.files[damaged].1.push(b' ');
        assert!(
            matches!(oci(&layout, ""), Err(ReadError::Size { .. })),
            "{damaged}"
        );
        let mut layout = build();
        layout.files.remove(damaged);
        assert!(
            matches!(oci(&layout, ""), Err(ReadError::Missing { .. })),
            "{damaged}"
        );
    }
    // The stored bytes fit their descriptor, the expanded ones not the configuration.
    let mut layout = Layout::default();
    let image = layout.image("amd64", &[(layer("x"), gzip(&layer("y")), LAYER)], "");
    layout.index.push(image);
    assert!(matches!(oci(&layout, ""), Err(ReadError::DiffId { .. })));
    // Damage in the middle of the compressed data is told as what it is.
    let mut layout = build();
    let middle = layout.files[1].1.len() / 2;
    layout.files[1].1[middle] ^= 0xff;
    assert!(matches!(oci(&layout, ""), Err(ReadError::Digest { .. })));
}

#[test]
fn sources_that_are_none() {
    let ground = Ground::default();
    let dir = ground.scratch.path().display().to_string();
    let find = |text: String| {
        find(&text.parse().unwrap(), ground.scratch.path())
            .err()
            .unwrap()
    };
    assert!(matches!(
        find(format!("docker-archive:{dir}/no")),
        ReadError::Open { .. }
    ));
    assert!(matches!(
        find(format!("docker-archive:{dir}")),
        ReadError::NotAFile { .. }
    ));
    assert!(matches!(
        find("oci-archive:/dev/null".into()),
        ReadError::NotAFile { .. }
    ));
    assert!(matches!(
        find(format!("oci:{dir}")),
        ReadError::Missing { .. }
    ));
    let no_tar = message(docker(b"hello", ""));
    assert!(no_tar.contains("cut off"), "{no_tar}");
    assert!(message(docker(&[b'x'; 2048], "")).contains("not a tar file"));
    assert!(matches!(
        docker(&Tar::new().end(), ""),
        Err(ReadError::Missing { .. })
    ));
    for manifest in ["", "{", "{}", "[1]", r#"[{"Config":7}]"#] {
        let archive = docker_with(manifest, &[]);
        assert!(
            matches!(docker(&archive, ""), Err(ReadError::Json { .. })),
            "{manifest}"
        );
    }
    let archive = docker_with(&" ".repeat(9 << 20), &[]);
    assert!(matches!(
        docker(&archive, ""),
        Err(ReadError::TooLong { .. })
    ));
    let archive = docker_with(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#, &[]);
    assert!(matches!(
        docker(&archive, ""),
        Err(ReadError::Missing { .. })
    ));
    for digest in ["sha256:../../../../etc/passwd", "md5:00", ""] {
        let layout = Layout {
            index: vec![format!(
                r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":3}}"#
            )],
            ..Layout::default()
        };
        assert!(
            matches!(oci(&layout, ""), Err(ReadError::Json { .. })),
            "{digest}"
        );
    }
}
