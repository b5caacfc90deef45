//! Pseudo-terminals and job control, as far as nobody has to wait.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general::{
    ICANON, O_NOCTTY, O_NONBLOCK, O_RDWR, O_WRONLY, SIGHUP, SIGINT, SIGTTIN, SIGTTOU, winsize,
};
use husk_abi::linux::ioctl;

use super::job;
use crate::fs::devpts::Devpts;
use crate::fs::{File, FileOps, FileRef, FileSystem, Inode, PollEvents};
use crate::process::testing::{
    adopt, new_process, root_credentials, test_thread, user_credentials,
};
use crate::signal::SigSet;
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

struct Rig {
    t: Arc<Thread>,
    devpts: Arc<Devpts>,
}

fn rig_with(options: &str) -> Rig {
    let t = test_thread();
    let devpts = Devpts::new(t.kernel, options).unwrap();
    Rig { t, devpts }
}

fn rig() -> Rig {
    rig_with("gid=5,mode=620,ptmxmode=666")
}

impl Rig {
    fn file(&self, ops: Arc<dyn FileOps>, inode: Arc<dyn Inode>) -> FileRef {
        File::new(ops, inode, Vec::new(), O_RDWR | O_NONBLOCK)
    }

    /// A master and its number, its slave unlocked.
    fn master(&self) -> Result<(FileRef, u32)> {
        let ops = self.devpts.open_master(&self.t)?;
        let file = self.file(ops, self.devpts.root());
        let (mut number, unlocked) = (0u32, 0i32);
        control(&self.t, &file, ioctl::TIOCGPTN, &raw mut number as u64)?;
        control(
            &self.t,
            &file,
            ioctl::TIOCSPTLCK,
            &raw const unlocked as u64,
        )?;
        Ok((file, number))
    }

    fn slave(&self, t: &Thread, number: u32, flags: u32) -> Result<FileRef> {
        let inode = self.devpts.root().lookup(number.to_string().as_bytes())?;
        let ops = inode.clone().open(t, flags)?;
        Ok(self.file(ops, inode))
    }

    fn pair(&self) -> (FileRef, FileRef) {
        let (master, number) = self.master().unwrap();
        let slave = self.slave(&self.t, number, O_NOCTTY).unwrap();
        (master, slave)
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let root = self.devpts.root();
        root.read_dir(0, &mut |entry| {
            names.push(String::from_utf8(entry.name).unwrap());
            true
        })
        .unwrap();
        names.split_off(3)
    }
}

fn control(t: &Thread, file: &File, request: u32, arg: u64) -> SysResult {
    file.ops.ioctl(t, file, request, arg)
}

fn put(t: &Thread, file: &File, bytes: &[u8]) -> Result<usize> {
    file.ops.write(t, file, &mut IoBuf::kernel_const(bytes), 0)
}

fn get(t: &Thread, file: &File, most: usize) -> Result<String> {
    let mut bytes = alloc::vec![0; most];
    let len = file.ops.read(t, file, &mut IoBuf::kernel(&mut bytes), 0)?;
    Ok(bytes[..len].escape_ascii().to_string())
}

fn poll(t: &Thread, file: &File) -> PollEvents {
    file.ops.poll(t, file, None)
}

fn pending(t: &Thread) -> SigSet {
    t.process.signals.pending()
}

fn has(t: &Thread, signo: u32) -> bool {
    pending(t).contains(signo.cast_signed())
}

#[test]
fn what_one_side_writes_the_other_reads() {
    let rig = rig();
    let t = &rig.t;
    let (master, slave) = rig.pair();
    assert_eq!(get(t, &slave, 9), Err(Errno::EAGAIN));
    assert_eq!(put(t, &master, b"ls\r"), Ok(3));
    assert_eq!(get(t, &slave, 9).unwrap(), r"ls\n");
    assert_eq!(put(t, &slave, b"a\nb\n"), Ok(4));
    assert_eq!(get(t, &master, 6).unwrap(), r"ls\r\na\r");
    assert_eq!(get(t, &master, 99).unwrap(), r"\nb\r\n");
    assert_eq!(get(t, &master, 99), Err(Errno::EAGAIN));
}

#[test]
fn numbers_are_used_again_when_both_sides_are_closed() {
    let rig = rig();
    let (first, a) = rig.master().unwrap();
    let (second, b) = rig.master().unwrap();
    assert_eq!((a, b), (0, 1));
    assert_eq!(rig.names(), ["0", "1"]);
    assert_eq!(rig.t.kernel.ttys.count(), 2);
    let slave = rig.slave(&rig.t, a, O_NOCTTY).unwrap();
    drop(first);
    assert_eq!(rig.names(), ["1"]);
    let (third, c) = rig.master().unwrap();
    assert_eq!(c, 2);
    drop(slave);
    assert_eq!(rig.master().unwrap().1, 0);
    drop((second, third));
    assert_eq!(rig.t.kernel.ttys.count(), 0);
}

#[test]
fn there_are_so_many_and_no_more() {
    let rig = rig_with("max=2");
    let kept: Vec<_> = (0..2).map(|_| rig.master().unwrap()).collect();
    assert_eq!(rig.master().err(), Some(Errno::ENOSPC));
    assert_eq!(rig.t.kernel.ttys.count(), 2);
    drop(kept);
    assert!(rig.master().is_ok());
}

#[test]
fn terminals_of_the_host_have_numbers_of_the_first_instance() {
    let rig = rig();
    let kernel = rig.t.kernel;
    let (kept, _) = rig.master().unwrap();
    kernel.host.number_terminal(kernel, &kernel.host.console);
    assert_eq!(kernel.host.console.terminal.number(), Some(1));
    assert_eq!(rig.master().unwrap().1, 2);
    let other = Devpts::new(kernel, "").unwrap();
    let other = Rig {
        t: rig.t.clone(),
        devpts: other,
    };
    assert_eq!(other.master().unwrap().1, 0);
    drop(kept);
}

#[test]
fn the_device_is_its_makers() {
    let rig = rig();
    rig.t.set_credentials(user_credentials(7, 0));
    let (_master, number) = rig.master().unwrap();
    let inode = rig.devpts.root().lookup(b"0").unwrap();
    let attributes = inode.attributes();
    assert_eq!((attributes.uid, attributes.gid), (7, 5));
    assert_eq!((attributes.mode, attributes.rdev), (0o620, 0x8800));
    assert_eq!(attributes.ino, 3 + u64::from(number));
    assert_eq!(rig.devpts.root().lookup(b"1").err(), Some(Errno::ENOENT));
}

#[test]
fn who_may_open_the_slave() {
    let rig = rig();
    let t = &rig.t;
    let (master, number) = rig.master().unwrap();
    let on = 1i32;
    control(t, &master, ioctl::TIOCSPTLCK, &raw const on as u64).unwrap();
    assert_eq!(rig.slave(t, number, O_NOCTTY).err(), Some(Errno::EIO));
    let off = 0i32;
    control(t, &master, ioctl::TIOCSPTLCK, &raw const off as u64).unwrap();
    let slave = rig.slave(t, number, O_NOCTTY).unwrap();
    control(t, &slave, ioctl::TIOCEXCL, 0).unwrap();
    assert!(rig.slave(t, number, O_NOCTTY).is_ok());
    t.set_credentials(user_credentials(7, 0));
    assert_eq!(rig.slave(t, number, O_NOCTTY).err(), Some(Errno::EBUSY));
}

#[test]
fn ends_of_either_side() {
    let rig = rig();
    let t = &rig.t;
    let (master, slave) = rig.pair();
    put(t, &slave, b"last").unwrap();
    drop(slave);
    assert!(poll(t, &master).contains(PollEvents::IN | PollEvents::HUP));
    assert_eq!(get(t, &master, 9).unwrap(), "last");
    assert_eq!(get(t, &master, 9), Err(Errno::EIO));
    let slave = rig.slave(t, 0, O_NOCTTY).unwrap();
    assert_eq!(get(t, &master, 9), Err(Errno::EAGAIN));
    drop(master);
    assert_eq!(get(t, &slave, 9).unwrap(), "");
    assert_eq!(put(t, &slave, b"x"), Err(Errno::EIO));
    assert!(poll(t, &slave).contains(PollEvents::ERR | PollEvents::HUP | PollEvents::OUT));
    let mut queued = 0i32;
    let at = &raw mut queued as u64;
    assert_eq!(control(t, &slave, ioctl::TIOCOUTQ, at), Err(Errno::EIO));
}

#[test]
fn queues_are_bounded() {
    let rig = rig();
    let t = &rig.t;
    let (master, slave) = rig.pair();
    let many = [b'x'; 8000];
    let fill = |file: &File| {
        let mut sum = 0;
        while let Ok(len) = put(t, file, &many) {
            sum += len;
        }
        assert_eq!(put(t, file, b"x"), Err(Errno::EAGAIN));
        assert!(!poll(t, file).contains(PollEvents::OUT));
        sum
    };
    let written = fill(&slave);
    assert_eq!(written, 64 << 10);
    // One read of a full queue does not let go of those who wait to write.
    assert_eq!(get(t, &master, 9000).unwrap().len(), 4095);
    assert!(!poll(t, &slave).contains(PollEvents::OUT));
    for _ in 0..4 {
        get(t, &master, 9000).unwrap();
    }
    assert!(poll(t, &slave).contains(PollEvents::OUT));
    // Nobody reads what is typed: it is bounded too, and so is what waits to be echoed. Without the line that is there it
    // would only overflow.
    put(t, &master, b"\n").unwrap();
    assert!(fill(&master) >= 64 << 10);
}

#[test]
fn settings_and_size_are_the_pair_s() {
    let rig = rig();
    let t = &rig.t;
    let (master, slave) = rig.pair();
    let mut settings = super::settings::Settings::default().to_termios();
    settings.c_lflag &= !ICANON;
    settings.c_cflag = 0;
    control(t, &master, ioctl::TCSETS, &raw const settings as u64).unwrap();
    control(t, &slave, ioctl::TCGETS, &raw mut settings as u64).unwrap();
    assert_eq!((settings.c_lflag & ICANON, settings.c_cflag), (0, 0xb0));
    let mut size = winsize {
        ws_row: 3,
        ws_col: 4,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    control(t, &slave, ioctl::TIOCSWINSZ, &raw const size as u64).unwrap();
    size.ws_row = 0;
    control(t, &master, ioctl::TIOCGWINSZ, &raw mut size as u64).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (3, 4));
    assert_eq!(control(t, &slave, ioctl::TIOCGPTN, 0), Err(Errno::ENOTTY));
    assert_eq!(control(t, &slave, ioctl::TCFLSH, 3), Err(Errno::EINVAL));
}

#[test]
fn a_leader_s_first_terminal_becomes_its_own() {
    let rig = rig();
    let t = &rig.t;
    let (master, number) = rig.master().unwrap();
    let get_group = |t: &Thread, file: &File| {
        let mut group = 0u32;
        control(t, file, ioctl::TIOCGPGRP, &raw mut group as u64).map(|_| group)
    };
    let slave = rig.slave(t, number, O_NOCTTY).unwrap();
    assert_eq!(get_group(t, &slave), Err(Errno::ENOTTY));
    assert_eq!(get_group(t, &master), Ok(0));
    rig.slave(t, number, O_WRONLY).unwrap();
    assert_eq!(get_group(t, &slave), Err(Errno::ENOTTY));
    rig.slave(t, number, 0).unwrap();
    assert_eq!(get_group(t, &slave), Ok(t.process.pid));
    assert_eq!(get_group(t, &master), Ok(t.process.pid));
    // Another leader cannot have it, unless by force.
    let other = new_process(t.kernel, user_credentials(7, 0)).unwrap();
    let take = |force| control(&other, &slave, ioctl::TIOCSCTTY, force);
    assert_eq!(take(0), Err(Errno::EPERM));
    assert_eq!(take(1), Err(Errno::EPERM));
    other.set_credentials(root_credentials());
    assert_eq!(take(1), Ok(0));
    assert_eq!(get_group(t, &slave), Err(Errno::ENOTTY));
    assert_eq!(get_group(&other, &slave), Ok(other.process.pid));
    assert_eq!(control(&other, &slave, ioctl::TIOCNOTTY, 0), Ok(0));
    assert!(has(&other, SIGHUP));
    assert_eq!(
        control(&other, &slave, ioctl::TIOCNOTTY, 0),
        Err(Errno::ENOTTY)
    );
}

/// A session with its terminal, and a child of its leader in a group of its own.
fn session(rig: &Rig) -> (FileRef, FileRef, Arc<Thread>, Arc<Thread>) {
    let leader = new_process(rig.t.kernel, root_credentials()).unwrap();
    let (master, number) = rig.master().unwrap();
    let slave = rig.slave(&leader, number, 0).unwrap();
    let child = new_process(rig.t.kernel, root_credentials()).unwrap();
    adopt(&leader.process, &child.process);
    child
        .process
        .controlling
        .set(leader.process.controlling.get());
    (master, slave, leader, child)
}

#[test]
fn background_processes_are_stopped() {
    let rig = rig();
    let (_master, slave, leader, child) = session(&rig);
    assert_eq!(get(&leader, &slave, 9), Err(Errno::EAGAIN));
    assert_eq!(get(&child, &slave, 9), Err(Errno::ERESTARTSYS));
    assert!(has(&child, SIGTTIN) && !has(&leader, SIGTTIN));
    // Writing is allowed, changing is not.
    assert_eq!(put(&child, &slave, b"x"), Ok(1));
    let settings = super::settings::Settings::default().to_termios();
    let at = &raw const settings as u64;
    assert_eq!(
        control(&child, &slave, ioctl::TCSETS, at),
        Err(Errno::ERESTARTSYS)
    );
    assert!(has(&child, SIGTTOU));
    // A group nobody could continue is not stopped.
    let orphan = new_process(rig.t.kernel, root_credentials()).unwrap();
    orphan
        .process
        .controlling
        .set(leader.process.controlling.get());
    assert_eq!(get(&orphan, &slave, 9), Err(Errno::EIO));
    let group = orphan.process.pid;
    let at = &raw const group as u64;
    assert_eq!(
        control(&orphan, &slave, ioctl::TIOCSPGRP, at),
        Err(Errno::ENOTTY)
    );
}

#[test]
fn the_foreground_changes() {
    let rig = rig();
    let (master, slave, leader, child) = session(&rig);
    let set = |group: i32| {
        let at = &raw const group as u64;
        control(&leader, &slave, ioctl::TIOCSPGRP, at)
    };
    assert_eq!(set(-1), Err(Errno::EINVAL));
    assert_eq!(set(4_000_000), Err(Errno::ESRCH));
    let elsewhere = rig.t.process.pid.cast_signed();
    assert_eq!(set(elsewhere), Err(Errno::EPERM));
    assert_eq!(set(child.process.pid.cast_signed()), Ok(0));
    put(&leader, &master, b"\x03").unwrap();
    assert!(has(&child, SIGINT) && !has(&leader, SIGINT));
    // What a key sends, the master can send; nothing else.
    for (signo, expected) in [(SIGINT, Ok(0)), (SIGHUP, Err(Errno::EINVAL))] {
        assert_eq!(
            control(&leader, &master, ioctl::TIOCSIG, signo.into()),
            expected
        );
    }
}

#[test]
fn a_hangup_is_the_leader_s_business() {
    let rig = rig();
    let (master, slave, leader, child) = session(&rig);
    drop(master);
    assert!(has(&leader, SIGHUP) && !has(&child, SIGHUP));
    assert!(leader.process.controlling.get().is_none());
    assert!(child.process.controlling.get().is_none());
    assert_eq!(get(&leader, &slave, 9).unwrap(), "");
}

#[test]
fn who_leads_takes_the_terminal_along() {
    let rig = rig();
    let (_master, slave, leader, child) = session(&rig);
    let group = child.process.pid;
    let at = &raw const group as u64;
    control(&leader, &slave, ioctl::TIOCSPGRP, at).unwrap();
    job::process_ends(&leader.process);
    assert!(has(&child, SIGHUP));
    assert!(child.process.controlling.get().is_none());
    // It is no terminal's session any more, so nothing stops it.
    assert_eq!(get(&child, &slave, 9), Err(Errno::EAGAIN));
}
