//! Many containers at once, from one image and one state directory.

use std::thread;

use husk_tests::{End, Husk, Image, Job, Runner};

#[test]
fn containers_do_not_see_each_other() {
    let image = Image::busybox().unwrap();
    let husk = Husk::find().unwrap();
    thread::scope(|scope| {
        for number in 0..8 {
            let (image, husk) = (&image, &husk);
            scope.spawn(move || {
                let script = format!(
                    "echo {number} >/tmp/mine; echo {number} >>/etc/passwd; for i in $(seq 30); do (exit $i); done; \
                     cat /tmp/mine; tail -1 /etc/passwd; ls /tmp; ls /proc | grep -c '^[0-9]*$'; exit {number}"
                );
                let run = husk.run(&Job::shell(image, &script)).unwrap();
                // The shell, ls and grep, and perhaps a subshell of the pipeline.
                let printed = run.stdout_text();
                assert!(printed.starts_with(&format!("{number}\n{number}\nmine\n")), "{number}: {run:?}");
                let processes: u32 = printed.lines().last().unwrap().parse().unwrap();
                assert!(processes <= 4, "{number} sees {processes} processes");
                assert_eq!(run.end, End::Status(number));
            });
        }
    });
}

#[test]
fn a_container_leaves_its_image_as_it_was() {
    let image = Image::busybox().unwrap();
    let husk = Husk::find().unwrap();
    let spoil = Job::shell(
        &image,
        "rm -rf /home /etc/group; echo x >/etc/passwd; echo new >/new; chmod 0 /var; exit 3",
    );
    assert_eq!(husk.run(&spoil).unwrap().end, End::Status(3));
    let look = Job::shell(
        &image,
        "ls /; head -1 /etc/passwd; cat /etc/group | wc -l; stat -c %a /var /home/ada",
    );
    let first = husk.run(&look).unwrap();
    assert!(first.stdout_text().contains("root:x:0:0"), "{first:?}");
    assert!(!first.stdout_text().contains("new"), "{first:?}");
}
