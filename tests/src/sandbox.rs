//! husk alone on a machine of its own: private mounts and processes, so that whatever it leaves behind is seen and is
//! surely its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cache::Scratch;
use crate::capture::{Captured, End, capture};
use crate::husk::Husk;
use crate::image::Image;

/// What husk finds in place of `/dev/kvm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kvm {
    /// The machine's own.
    #[default]
    Present,
    /// No such file.
    Missing,
    /// A device that is not KVM.
    Wrong,
    /// No right to open it.
    Forbidden,
}

/// What a run in the sandbox did.
#[derive(Debug)]
pub struct Outcome {
    /// husk's output and status.
    pub run: Captured,
    /// Names that are there after the run and were not before, each with where it was seen.
    pub left_behind: Vec<String>,
}

/// Prepares the mounts, lets husk unpack a good image, lists, runs the case, lists again.
///
/// Listed are husk's root directory, all places for temporary files, control groups named after husk, processes, and
/// the names that the hostile archives try to write.
const SCRIPT: &str = r#"
set -eu
mount --make-rprivate /
# The control groups below this sandbox's own only.
grep -E ' - cgroup2? ' /proc/self/mountinfo | while read -r _ _ _ _ dir _ rest; do
    read -r type source options <<<"${rest#*- }"
    umount "$dir"
    options=$(sed -E 's/^(rw|ro),?//' <<<"$options")
    mount -t "$type" -o "${options:-rw}" "$source" "$dir"
done
mount -t tmpfs none /mnt
mkdir /mnt/work /mnt/bin /mnt/root
mount --bind "$WORK" /mnt/work
cp "$HUSK" /mnt/bin/husk
cp "$IMAGE" /mnt/bin/good.tar
for dir in /tmp /run /dev/shm; do
    mkdir -p $dir
    mount -t tmpfs -o mode=1777 none $dir
done
cd /mnt/work
[ "$KVM" != forbidden ] || chown 65534:65534 /mnt/root
# With good input first: what husk keeps of that, and its directories, are no leftovers.
/mnt/bin/husk --root /mnt/root run docker-archive:/mnt/bin/good.tar -- true >prime 2>&1 </dev/null || echo "status $?" >>prime
[ "$KVM" != forbidden ] || chown -R 65534:65534 /mnt/root
list() {
    find /mnt/root /tmp /run /dev/shm | sort
    find /sys/fs/cgroup -type d | sort
    for name in / /mnt /etc /home /root /var; do
        find $name -maxdepth 1 -name 'escaped*' | sort
    done
    # With nothing but the shell itself, so that it sees no helper of its own.
    for process in /proc/[0-9]*; do
        [ $process != /proc/$$ ] || continue
        line=process
        while IFS= read -r -d '' word; do line="$line $word"; done <$process/cmdline || continue
        echo "$line"
    done 2>/dev/null
}
as=
case $KVM in
missing)
    # A fresh /dev without it.
    mkdir /mnt/dev
    mount -t tmpfs none /mnt/dev
    for node in null zero full random urandom tty; do
        touch /mnt/dev/$node
        mount --bind /dev/$node /mnt/dev/$node
    done
    mkdir /mnt/dev/shm
    mount --move /mnt/dev /dev
    ;;
wrong) mount --bind /dev/null /dev/kvm ;;
forbidden) as="setpriv --reuid 65534 --regid 65534 --clear-groups" ;;
esac
list >before
status=0
$as /mnt/bin/husk --root /mnt/root "$@" >stdout 2>stderr </dev/null || status=$?
echo $status >status
list >after
"#;

/// Puts the sandbox into a control group of its own in each hierarchy, which is the root of all it sees of them, and
/// removes those afterwards.
const OUTSIDE: &str = r#"
set -eu
own=husk-tests-$$
groups=$(grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d ' ' -f 5)
enter() {
    for dir in $groups; do
        mkdir "$dir/$own"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -f "$dir/$file" ] || cat "$dir/$file" >"$dir/$own/$file"
        done
        echo $1 >"$dir/$own/cgroup.procs"
    done
}
leave() {
    for dir in $groups; do
        echo $1 >"$dir/cgroup.procs"
        find "$dir/$own" -depth -type d -exec rmdir {} +
    done
}
enter $$
status=0
unshare --cgroup --mount --pid --fork --kill-child --mount-proc bash -c "$SCRIPT" sandbox "$@" || status=$?
leave $$
exit $status
"#;

/// A place to run husk in.
pub struct Sandbox {
    work: Scratch,
    husk: Husk,
    image: Image,
}

impl Sandbox {
    /// A new one. `image` is the good image; inside, [`Self::put`] files are at `/mnt/work/NAME` and the image's docker
    /// archive is `/mnt/bin/good.tar`.
    pub fn new(husk: &Husk, image: &Image) -> Result<Self> {
        Ok(Self {
            work: Scratch::new("sandbox")?,
            husk: husk.clone(),
            image: image.clone(),
        })
    }

    /// The host directory that is `/mnt/work` inside.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// Provides a file.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(self.work().join(name), bytes)?)
    }

    /// Runs `husk ARGUMENTS` there.
    pub fn run(&self, kvm: Kvm, arguments: &[&str]) -> Result<Outcome> {
        let limit = Duration::from_secs(60);
        let mut command = Command::new("bash");
        command
            .args(["-c", OUTSIDE, "sandbox"])
            .args(arguments)
            .env("SCRIPT", SCRIPT)
            .env("WORK", self.work())
            .env("HUSK", fs::canonicalize(self.husk.binary())?)
            .env("IMAGE", self.image.docker_archive())
            .env("KVM", format!("{kvm:?}").to_lowercase());
        let outer = capture(&command, &[], limit)?;
        if let End::TimedOut(_) = outer.end {
            return Ok(Outcome {
                run: outer,
                left_behind: Vec::new(),
            });
        }
        ensure!(
            outer.end == End::Status(0),
            "the sandbox itself failed: {}",
            outer.stderr_text()
        );
        let read = |name: &str| {
            fs::read(self.work().join(name)).with_context(|| format!("the sandbox wrote no {name}"))
        };
        let text =
            |name: &str| read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let before = text("before")?;
        let known: Vec<&str> = before.lines().collect();
        let left_behind = text("after")?
            .lines()
            .filter(|line| !known.contains(line))
            .map(str::to_owned)
            .collect();
        let status = text("status")?.trim().parse().context("no status")?;
        let run = Captured {
            stdout: read("stdout")?,
            stderr: read("stderr")?,
            end: End::Status(status),
            wall: outer.wall,
        };
        Ok(Outcome { run, left_behind })
    }

    /// Runs `husk ARGUMENTS`, which are bad input, and describes what is wrong with how husk took it: it must end with
    /// `status`, say one line that begins with `husk: `, and leave nothing behind.
    pub fn complaint(&self, kvm: Kvm, arguments: &[&str], status: i32) -> Result<Option<String>> {
        let outcome = self.run(kvm, arguments)?;
        let stderr = outcome.run.stderr_text();
        let mut wrong = String::new();
        if outcome.run.end != End::Status(status) {
            wrong += &format!("  ends by {:?}, not status {status}\n", outcome.run.end);
        }
        if stderr.lines().count() != 1 || !stderr.starts_with("husk: ") || !stderr.ends_with('\n') {
            wrong += &format!("  not one line that begins with `husk: `: {stderr:?}\n");
        }
        if !outcome.run.stdout.is_empty() {
            wrong += &format!(
                "  writes to its standard output: {:?}\n",
                outcome.run.stdout_text()
            );
        }
        if !outcome.left_behind.is_empty() {
            wrong += &format!("  leaves behind: {:#?}\n", outcome.left_behind);
        }
        Ok((!wrong.is_empty()).then_some(wrong))
    }
}
