//! `husk pull` from a registry on this machine.

use std::fs;

use husk_tests::End;
use husk_tests::capture::capture;
use husk_tests::registry::{PASSWORD, Registry, USER};
use husk_tests::store::{Ground, complaint, content};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A store, a registry without login, and the reference of an image in it.
fn ground() -> (Ground, Registry, String) {
    let ground = Ground::new().unwrap();
    let registry = Registry::start(ground.dir(), false).unwrap();
    let reference = format!("{}/test/app:v1", registry.host);
    (ground, registry, reference)
}

#[test]
fn pulled_images_run_and_are_pulled_once() {
    let (ground, registry, reference) = ground();
    let digest = registry
        .put_image("test/app", "v1", &content("app", 2, 20).unwrap())
        .unwrap();
    let pull = ["pull", "--tls-verify=false", &reference];
    let text = ground.ok(&pull).unwrap();
    assert_eq!(
        text,
        format!("Digest: {digest}\nStatus: Downloaded newer image for {reference}\n{reference}\n")
    );
    assert_eq!(
        ground
            .ok(&["run", &reference, "--", "cat", "/data/app-1-1"])
            .unwrap(),
        "app 1 1\n"
    );
    let text = ground.ok(&pull).unwrap();
    assert!(text.contains("Status: Image is up to date"), "{text}");
    assert_eq!(
        ground
            .ok(&["pull", "--tls-verify=false", "-q", &reference])
            .unwrap(),
        format!("{reference}\n")
    );

    // By digest, also without a tag, and with a wrong one.
    let by_digest = format!("{}/test/app@{digest}", registry.host);
    assert_eq!(
        ground.ok(&["run", &by_digest, "--", "echo", "x"]).unwrap(),
        "x\n"
    );
    ground.ok(&["image", "rm", &reference]).unwrap();
    ground.check_empty().unwrap();
    ground
        .ok(&["pull", "--tls-verify=false", &by_digest])
        .unwrap();
    assert_eq!(
        ground.ok(&["run", &by_digest, "--", "echo", "x"]).unwrap(),
        "x\n"
    );
    let wrong = format!("{}/test/app@sha256:{}", registry.host, "0".repeat(64));
    ground
        .fails(&["pull", "--tls-verify=false", &wrong], 1)
        .unwrap();

    // Layers that are there are not asked for again: here they could not be had.
    let other = content("app", 3, 20).unwrap();
    registry.put_image("test/app", "v2", &other).unwrap();
    let files = content("app", 2, 20).unwrap().oci_files().unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
        if serde_json::from_slice::<Value>(bytes).is_err() {
            fs::remove_file(registry.blob_path(name.rsplit('/').next().unwrap())).unwrap();
        }
    }
    let next = format!("{}/test/app:v2", registry.host);
    ground.ok(&["pull", "--tls-verify=false", &next]).unwrap();
    assert_eq!(
        ground
            .ok(&["run", &next, "--", "cat", "/data/app-2-1"])
            .unwrap(),
        "app 2 1\n"
    );
    ground.check().unwrap();
}

#[test]
fn the_platform_is_chosen() {
    let (ground, registry, reference) = ground();
    let ours = registry
        .put_image("test/app", "ours", &content("ours", 1, 2).unwrap())
        .unwrap();
    let mut foreign = content("foreign", 1, 2).unwrap();
    foreign.config["architecture"] = json!("arm64");
    let theirs = registry.put_image("test/app", "theirs", &foreign).unwrap();
    let entry = |digest: &str, architecture: Option<&str>| {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let size = fs::metadata(registry.blob_path(hex)).unwrap().len();
        let mut entry = json!({ "mediaType": MANIFEST, "digest": digest, "size": size });
        if let Some(architecture) = architecture {
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
        entry
    };
    let index =
        |entries: &[Value]| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    for entries in [
        [entry(&theirs, Some("arm64")), entry(&ours, Some("amd64"))],
        // The configurations tell where the index does not.
        [entry(&theirs, None), entry(&ours, None)],
    ] {
        let digest = registry
            .put_manifest("test/app", "v1", &index(&entries))
            .unwrap();
        let text = ground
            .ok(&["pull", "--tls-verify=false", &reference])
            .unwrap();
        assert!(text.starts_with(&format!("Digest: {digest}\n")), "{text}");
        assert_eq!(
            ground
                .ok(&["run", &reference, "--", "cat", "/data/ours-0-1"])
                .unwrap(),
            "ours 0 1\n"
        );
        // Both digests name it.
        for digest in [&digest, &ours] {
            let reference = format!("{}/test/app@{digest}", registry.host);
            ground.ok(&["image", "inspect", &reference]).unwrap();
        }
        ground.ok(&["image", "rm", &reference]).unwrap();
    }
    registry
        .put_manifest("test/app", "v1", &index(&[entry(&theirs, Some("arm64"))]))
        .unwrap();
    let line = ground
        .fails(&["pull", "--tls-verify=false", &reference], 1)
        .unwrap();
    assert!(line.contains("linux/amd64"), "{line}");
    ground.check_empty().unwrap();
}

#[test]
fn logging_in() {
    let ground = Ground::new().unwrap();
    let registry = Registry::start(ground.dir(), true).unwrap();
    registry
        .put_image("test/app", "v1", &content("app", 1, 2).unwrap())
        .unwrap();
    let reference = format!("{}/test/app:v1", registry.host);
    let home = ground.dir().join("docker");
    fs::create_dir(&home).unwrap();
    let helper = home.join("docker-credential-husk-test");
    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    let pull = |config: &str| {
        fs::write(home.join("config.json"), config).unwrap();
        let mut command = ground.command(&["pull", "-q", "--tls-verify=false", &reference]);
        command.env("DOCKER_CONFIG", &home).env("PATH", &path);
        capture(&command, &[], std::time::Duration::from_secs(60)).unwrap()
    };
    let says = |helper_says: &str| {
        fs::write(
            &helper,
            format!("#!/bin/sh\nread host\necho \"$1 $host\" >&2\n{helper_says}\n"),
        )
        .unwrap();
        fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    says(&format!(
        r#"[ "$1 $host" = "get {}" ] && echo '{{"Username":"{USER}","Secret":"{PASSWORD}"}}'"#,
        registry.host
    ));
    let host = &registry.host;
    let good = [
        // "ada:s3cret"
        format!(r#"{{"auths":{{"{host}":{{"auth":"YWRhOnMzY3JldA=="}}}}}}"#),
        format!(r#"{{"credHelpers":{{"{host}":"husk-test"}}}}"#),
        r#"{"auths":{},"credsStore":"husk-test"}"#.to_owned(),
    ];
    for config in &good {
        let run = pull(config);
        assert_eq!(run.end, End::Status(0), "{config}: {}", run.stderr_text());
        ground.ok(&["image", "rm", &reference]).unwrap();
    }
    // "ada:wrong"
    let wrong = format!(r#"{{"auths":{{"{host}":{{"auth":"YWRhOndyb25n"}}}}}}"#);
    for config in ["{}", &wrong] {
        let line = complaint(&pull(config), 1).unwrap();
        assert!(line.contains("docker login"), "{config}: {line}");
    }
    says("echo credentials not found in native keychain; exit 1");
    assert!(
        complaint(&pull(&good[2]), 1)
            .unwrap()
            .contains("docker login")
    );
    says("echo it is locked; exit 1");
    assert!(
        complaint(&pull(&good[2]), 1)
            .unwrap()
            .contains("it is locked")
    );
    assert!(complaint(&pull("{"), 1).unwrap().contains("config.json"));
    ground.check_empty().unwrap();
}

#[test]
fn what_goes_wrong_is_one_line_and_leaves_nothing() {
    let (ground, registry, reference) = ground();
    let image = content("app", 2, 20).unwrap();
    registry.put_image("test/app", "v1", &image).unwrap();
    let pull = ["pull", "--tls-verify=false", &reference];
    // It has no TLS, and that is not what was asked for.
    let line = ground.fails(&["pull", &reference], 1).unwrap();
    assert!(line.contains("--tls-verify=false"), "{line}");
    for absent in ["test/app:v9", "test/other:v1"] {
        let absent = format!("{}/{absent}", registry.host);
        let line = ground
            .fails(&["pull", "--tls-verify=false", &absent], 1)
            .unwrap();
        assert!(line.contains("has no"), "{line}");
    }
    ground.fails(&["pull", "Not/A:Reference:"], 1).unwrap();
    ground
        .fails(&["pull", "--tls-verify=false", "127.0.0.1:1/x"], 1)
        .unwrap();

    // Every blob in turn: changed, cut, longer, gone.
    let files = image.oci_files().unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
        let path = registry.blob_path(name.rsplit('/').next().unwrap());
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        let longer = [bytes.as_slice(), b" "].concat();
        for spoilt in [
            Some(&changed[..]),
            Some(&bytes[..bytes.len() - 1]),
            Some(&longer),
            None,
        ] {
            match spoilt {
                Some(spoilt) => fs::write(&path, spoilt).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            // A manifest with a space behind it is another document of the same meaning, but not of that digest.
            ground.fails(&pull, 1).unwrap();
            ground.check_empty().unwrap();
        }
        fs::write(&path, bytes).unwrap();
    }
    ground.ok(&pull).unwrap();
    assert_eq!(
        ground.ok(&["run", &reference, "--", "echo", "x"]).unwrap(),
        "x\n"
    );
}
