use super::*;
use husk_abi::boundary::config::StreamKind;

fn host() -> Host {
    Host {
        memory: MemorySize { bytes: 1 << 30 },
        cpus: 2,
        open_files: (1024, 4096),
        streams: [StreamKind::Null, StreamKind::Pipe, StreamKind::File],
    }
}

fn request() -> Request {
    Request {
        env: Vec::new(),
        workdir: None,
        memory: MemorySize { bytes: 64 << 20 },
        hostname: None,
        entrypoint: None,
        user: None,
        command: Vec::new(),
        trace: None,
        volumes: Vec::new(),
        timeout: None,
        stats: false,
        network: Network::None,
        log_levels: [LogLevel::Warn; ROOMS.len()],
    }
}

/// An image with one file.
fn image(name: &str) -> ImageAtHand {
    let root = std::env::temp_dir().join(format!("husk-plan-{}-{name}", std::process::id()));
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:\nweb:x:33:33::/srv:\n",
    )
    .unwrap();
    ImageAtHand {
        digest: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        config: ImageConfig {
            env: vec!["A=image".to_owned()],
            cmd: vec!["sh".to_owned()],
            working_dir: "/w".to_owned(),
            ..Default::default()
        },
        files: RootFiles::Archive(File::open("/dev/null").unwrap()),
        root: Stack::open(&[root]).unwrap(),
    }
}

fn plan(request: Request, name: &str) -> GuestConfig {
    let plan = request.plan(ID, image(name), &host()).unwrap();
    let root = std::env::temp_dir().join(format!("husk-plan-{}-{name}", std::process::id()));
    std::fs::remove_dir_all(root).unwrap();
    plan.guest
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn the_image_fills_the_gaps() {
    let guest = plan(request(), "gaps");
    assert_eq!(guest.process.args, [b"sh"]);
    assert_eq!(guest.process.cwd, b"/w");
    assert_eq!(guest.hostname, "0123456789ab");
    assert_eq!(
        (guest.process.uid, guest.process.gid, guest.process.umask),
        (0, 0, 0o022)
    );
    assert!(guest.process.env.contains(&b"A=image".to_vec()));
    assert!(
        guest
            .process
            .env
            .contains(&b"HOSTNAME=0123456789ab".to_vec())
    );
    assert!(guest.process.env.contains(&b"HOME=/root".to_vec()));
    assert_eq!(guest.process.capabilities[1].count_ones(), 14);
    assert_eq!(guest.process.capabilities[2], 0);
    assert_eq!(
        guest.process.rlimits,
        [Rlimit {
            resource: 7,
            soft: 1024,
            hard: 4096
        }]
    );
}

#[test]
fn what_is_typed_wins() {
    let request = Request {
        env: vec!["A=typed".into()],
        workdir: Some("/t".into()),
        hostname: Some("box".to_owned()),
        entrypoint: Some("/e".into()),
        user: Some("web".to_owned()),
        command: vec!["x".into()],
        ..request()
    };
    request.check(&host()).unwrap();
    let guest = plan(request, "typed");
    assert_eq!(guest.process.args, [b"/e".to_vec(), b"x".to_vec()]);
    assert_eq!(guest.process.cwd, b"/t");
    assert_eq!((guest.hostname.as_str(), guest.process.uid), ("box", 33));
    assert!(guest.process.env.contains(&b"A=typed".to_vec()));
    assert!(guest.process.env.contains(&b"HOME=/srv".to_vec()));
    assert_eq!(guest.process.capabilities[0].count_ones(), 14);
    assert_eq!(guest.process.capabilities[1], 0);
}

#[test]
fn absurd_requests() {
    let memory = |bytes| Request {
        memory: MemorySize { bytes },
        ..request()
    };
    for bytes in [0, 1, (8 << 20) - 1] {
        assert!(matches!(
            memory(bytes).check(&host()),
            Err(Error::MemoryTooSmall { .. })
        ));
    }
    for bytes in [(1 << 30) + 1, i64::MAX as u64, u64::MAX] {
        let error = memory(bytes).check(&host()).unwrap_err();
        assert!(matches!(error, Error::MemoryTooLarge { .. }));
        assert!(!error.to_string().contains('\n'));
    }
    let long = "h".repeat(65);
    for name in ["", "a b", "-a", "a\0", long.as_str()] {
        let request = Request {
            hostname: Some(name.to_owned()),
            ..request()
        };
        assert!(
            matches!(request.check(&host()), Err(Error::Hostname(_))),
            "{name:?}"
        );
    }
    let relative = Request {
        workdir: Some("w".into()),
        ..request()
    };
    assert!(matches!(
        relative.check(&host()),
        Err(Error::RelativeWorkdir(_))
    ));
}
