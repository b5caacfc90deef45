//! husk killed at random moments while it loads, pulls and removes images: what is stored is whole, nothing of the rest
//! stays, and the same again works.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use husk_tests::registry::Registry;
use husk_tests::store::{Ground, Random, content};

/// Kills of each kind.
const KILLS: usize = 50;

/// Runs `arguments` once to its end to see how long it takes, `prepare` before that; then again and again, killed
/// somewhere on the way, with `prepare` before and `check` after each.
fn kill_often(
    ground: &Ground,
    seed: u64,
    arguments: &[&str],
    prepare: &dyn Fn(),
    check: &dyn Fn(),
) {
    let mut random = Random::new(seed);
    let spawn = || {
        let mut command = ground.command(arguments);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    prepare();
    let start = Instant::now();
    assert!(spawn().wait().unwrap().success());
    let whole = start.elapsed();
    let (mut killed, mut tries) = (0, 0);
    while killed < KILLS {
        tries += 1;
        assert!(tries < 20 * KILLS, "it always comes to its end");
        prepare();
        let mut child = spawn();
        // The moment is what this test is about; nothing depends on which one it is.
        thread::sleep(Duration::from_secs_f64(
            whole.as_secs_f64() * random.share(),
        ));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        ground.check().unwrap();
        // Whoever comes next cleans up, and nothing that was there is lost.
        ground.ok(&["image", "ls"]).unwrap();
        ground.check().unwrap();
        check();
    }
    eprintln!("{arguments:?}: {killed} of {tries} died of it, in up to {whole:?}");
    ground.ok(&["image", "prune", "--all"]).unwrap();
    ground.check_empty().unwrap();
}

/// The archives of a small image and of a larger one that has a layer in common with it.
fn two_images(ground: &Ground) -> (String, String) {
    let kept = content("kept", 1, 3).unwrap();
    let app = content("app", 4, 150).unwrap();
    let archive = |name: &str, content| ground.archive(name, content).unwrap();
    (archive("kept", &kept), archive("app", &app))
}

#[test]
fn loading() {
    let ground = Ground::new().unwrap();
    let (kept, source) = two_images(&ground);
    let load = ["image", "load", source.as_str()];
    let prepare = || {
        ground.ok(&["image", "prune", "--all"]).unwrap();
        ground.check_empty().unwrap();
        ground.ok(&["image", "load", &kept]).unwrap();
    };
    let check = || {
        ground.ok(&["image", "inspect", "kept"]).unwrap();
        ground.ok(&load).unwrap();
        ground.ok(&["image", "inspect", "app"]).unwrap();
        assert_eq!(ground.check().unwrap().layers.len(), 6);
    };
    kill_often(&ground, 1, &load, &prepare, &check);
}

#[test]
fn pulling() {
    let ground = Ground::new().unwrap();
    let registry = Registry::start(ground.dir(), false).unwrap();
    registry
        .put_image("app", "v1", &content("app", 4, 150).unwrap())
        .unwrap();
    let reference = format!("{}/app:v1", registry.host);
    let pull = ["pull", "--tls-verify=false", reference.as_str()];
    let prepare = || {
        ground.ok(&["image", "prune", "--all"]).unwrap();
        ground.check_empty().unwrap();
    };
    let check = || {
        ground.ok(&pull).unwrap();
        ground.ok(&["image", "inspect", &reference]).unwrap();
        assert_eq!(ground.check().unwrap().layers.len(), 5);
    };
    kill_often(&ground, 2, &pull, &prepare, &check);
}

/// Loads two images that share a layer, and has one removed.
fn removing(seed: u64, arguments: &[&str], named: bool) {
    let ground = Ground::new().unwrap();
    let (kept, source) = two_images(&ground);
    let prepare = || {
        ground.ok(&["image", "load", &kept]).unwrap();
        ground.ok(&["image", "load", &source]).unwrap();
        if !named {
            // It loses its name to another.
            ground
                .ok(&["image", "load", &kept, "--name", "app"])
                .unwrap();
        }
    };
    let check = || {
        ground.ok(&["image", "inspect", "kept"]).unwrap();
        assert_eq!(
            ground.check().unwrap().images.len() == 2,
            ground.check().unwrap().layers.len() == 6
        );
        ground.ok(&["image", "prune"]).unwrap();
        let stored = ground.check().unwrap();
        assert_eq!(
            stored.layers.len(),
            if stored.images.len() == 2 { 6 } else { 2 }
        );
    };
    kill_often(&ground, seed, arguments, &prepare, &check);
}

#[test]
fn removing_by_name() {
    removing(3, &["image", "rm", "app"], true);
}

#[test]
fn pruning() {
    removing(4, &["image", "prune"], false);
}
