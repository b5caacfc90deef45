//! Semaphores: `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::objects::{Common, NOWAIT, Object, READ, WRITE};
use super::undo::Undo;
use super::wire::{self, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SEMID_BYTES, Struct};
use super::{Namespace, now};
use crate::sync::{Interruptible, SpinLock, WaitError, WaitQueue};
use crate::syscall::{Hex, Int, Len, Ptr};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread, time};

/// Semaphores of a set; this and the next three are `kernel.sem`.
pub const MAX_OF_SET: usize = 32000;
/// Semaphores of all sets.
pub const MAX_IN_ALL: usize = 1_024_000_000;
/// Operations of a call.
pub const MAX_OPERATIONS: usize = 500;
/// Sets.
pub const MAX_SETS: usize = 32000;
/// Largest value, and largest adjustment at a process's end.
pub const MAX_VALUE: i32 = 32767;

const SEM_UNDO: i16 = 0x1000;
const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Semaphore {
    pub value: i32,
    /// Who changed it last.
    pub pid: u32,
}

/// One operation (`struct sembuf`).
#[derive(Clone, Copy, Debug)]
struct Operation {
    at: usize,
    change: i16,
    flags: i16,
}

impl Operation {
    fn waits(self) -> bool {
        u64::from(self.flags.cast_unsigned()) & NOWAIT == 0
    }

    fn undoes(self) -> bool {
        self.flags & SEM_UNDO != 0
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub semaphores: Vec<Semaphore>,
    /// When one was last operated on.
    pub operated: i64,
    /// Who sleeps: a number of the sleeper, the semaphore, and whether for zero.
    sleepers: Vec<(u64, usize, bool)>,
    next_sleeper: u64,
    /// Who has adjustments for it.
    pub undoers: Vec<Weak<Undo>>,
}

/// A set of semaphores.
#[derive(Debug)]
pub struct Set {
    pub(super) common: Common,
    pub(super) state: SpinLock<State>,
    pub(super) changed: WaitQueue,
}

impl Object for Set {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn namespace(t: &Thread) -> Arc<Namespace> {
    t.namespaces().ipc.clone()
}

fn get(t: &Thread, id: i32) -> Result<Arc<Set>> {
    namespace(t).sets.lock().get(id)
}

/// `semget(2)`.
///
/// # Errors
/// `EINVAL`, `EACCES`, `EEXIST`, `ENOENT`, `ENOSPC`.
pub fn semget(t: &Thread, key: Int, count: Int, flags: Hex) -> SysResult {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let namespace = namespace(t);
    let [of_set, in_all, _, of_sets] = namespace.limits.semaphores;
    if count > of_set {
        return Err(Errno::EINVAL);
    }
    let credentials = t.credentials();
    let mut sets = namespace.sets.lock();
    let used: usize = sets
        .iter()
        .map(|set| set.state.lock().semaphores.len())
        .sum();
    let fits = |set: &Set| {
        let has = set.state.lock().semaphores.len();
        if count > has {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    };
    let make = |common| {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if used + count > in_all {
            return Err(Errno::ENOSPC);
        }
        Ok(Set {
            common,
            state: SpinLock::new(State {
                semaphores: alloc::vec![Semaphore::default(); count],
                ..State::default()
            }),
            changed: WaitQueue::new(),
        })
    };
    let id = sets.find_or_make(&credentials, key, flags, of_sets, fits, make)?;
    Ok(id as usize)
}

/// `semop(2)`.
///
/// # Errors
/// As [`semtimedop`].
pub fn semop(t: &Thread, id: Int, operations: Ptr, count: Len) -> SysResult {
    semtimedop(t, id, operations, count, UserAddr(0))
}

fn read_operations(from: UserAddr, count: usize) -> Result<Vec<Operation>> {
    let operation = |words: [i16; 3]| Operation {
        at: usize::from(words[0].cast_unsigned()),
        change: words[1],
        flags: words[2],
    };
    let words = from.read_array::<[i16; 3]>(count)?;
    Ok(words.into_iter().map(operation).collect())
}

/// Why operations cannot be carried out now.
#[derive(Debug, PartialEq, Eq)]
enum Blocked {
    /// This one has to wait.
    By(usize),
    Fails(Errno),
}

/// Carries out all `operations`, or none. `adjustments` are what the process's end would add now, in the order of the
/// semaphores, if any operation is to be undone.
fn carry_out(
    semaphores: &mut [Semaphore],
    adjustments: Option<&mut [i16]>,
    operations: &[Operation],
    pid: u32,
) -> core::result::Result<(), Blocked> {
    let mut values: Vec<(usize, i32)> = Vec::with_capacity(operations.len());
    let value_of = |values: &[(usize, i32)], at: usize| {
        let changed = values.iter().rev().find(|(other, _)| *other == at);
        changed.map_or(semaphores[at].value, |(_, value)| *value)
    };
    let mut undone: Vec<(usize, i32)> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let now = value_of(&values, operation.at);
        let change = i32::from(operation.change);
        let result = now + change;
        if (change == 0 && now != 0) || result < 0 {
            return Err(Blocked::By(index));
        }
        if result > MAX_VALUE {
            return Err(Blocked::Fails(Errno::ERANGE));
        }
        if operation.undoes()
            && let Some(adjustments) = &adjustments
        {
            let known = undone.iter().rev().find(|(at, _)| *at == operation.at);
            let before = known.map_or(i32::from(adjustments[operation.at]), |(_, all)| *all);
            let all = before - change;
            if !(-MAX_VALUE - 1..=MAX_VALUE).contains(&all) {
                return Err(Blocked::Fails(Errno::ERANGE));
            }
            undone.push((operation.at, all));
        }
        values.push((operation.at, result));
    }
    for (at, value) in values {
        semaphores[at] = Semaphore { value, pid };
    }
    if let Some(adjustments) = adjustments {
        for (at, all) in undone {
            adjustments[at] = all as i16;
        }
    }
    Ok(())
}

/// `semtimedop(2)`.
///
/// # Errors
/// `EINVAL`, `E2BIG`, `EFAULT`, `EFBIG`, `EACCES`, `EAGAIN`, `EIDRM`, `EINTR`, `ERANGE`.
pub fn semtimedop(t: &Thread, id: Int, from: Ptr, count: Len, timeout: Ptr) -> SysResult {
    let timeout = match timeout.read_opt()? {
        Some(time) => Some(time::timespec_ns(&time)?),
        None => None,
    };
    if count < 1 || id < 0 {
        return Err(Errno::EINVAL);
    }
    if count > namespace(t).limits.semaphores[2] {
        return Err(Errno::E2BIG);
    }
    let operations = read_operations(from, count)?;
    let deadline = timeout.map(|ns| husk_hal::clock::now_ns().saturating_add(ns));
    let set = get(t, id)?;
    let size = set.state.lock().semaphores.len();
    if operations.iter().any(|operation| operation.at >= size) {
        return Err(Errno::EFBIG);
    }
    let alters = operations.iter().any(|operation| operation.change != 0);
    let wanted = if alters { WRITE } else { READ };
    set.common.check(&t.credentials(), wanted)?;
    let undo = operations
        .iter()
        .any(|operation| operation.undoes())
        .then(|| t.undo());

    let mut sleeper = None;
    let attempt = || -> Option<Result<()>> {
        let mut adjusting = undo.as_ref().map(|undo| undo.lock());
        let mut state = set.state.lock();
        if let Err(errno) = set.common.check_alive() {
            return Some(Err(errno));
        }
        let adjustments = match (&mut adjusting, &undo) {
            (Some(adjusting), Some(undo)) => Some(adjusting.of(&set, &mut state, undo)),
            _ => None,
        };
        let done = carry_out(
            &mut state.semaphores,
            adjustments,
            &operations,
            t.process.pid,
        );
        if let Some(number) = sleeper.take() {
            state.sleepers.retain(|(other, ..)| *other != number);
        }
        match done {
            Ok(()) => {
                state.operated = now();
                Some(Ok(()))
            }
            Err(Blocked::Fails(errno)) => Some(Err(errno)),
            Err(Blocked::By(index)) if !operations[index].waits() => Some(Err(Errno::EAGAIN)),
            Err(Blocked::By(index)) => {
                let operation = operations[index];
                let number = state.next_sleeper;
                state.next_sleeper += 1;
                sleeper = Some(number);
                let for_zero = operation.change == 0;
                state.sleepers.push((number, operation.at, for_zero));
                None
            }
        }
    };
    let done = set.changed.wait(t, Interruptible::Yes, deadline, attempt);
    if let Some(number) = sleeper {
        let mut state = set.state.lock();
        state.sleepers.retain(|(other, ..)| *other != number);
    }
    done.map_err(|error| match error {
        WaitError::TimedOut => Errno::EAGAIN,
        WaitError::Interrupted => Errno::EINTR,
    })??;
    if alters {
        set.changed.wake_all();
    }
    Ok(0)
}

/// `semctl(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EACCES`, `EPERM`, `ERANGE`, `EIDRM`.
pub fn semctl(t: &Thread, id: Int, at: Int, command: Int, argument: Hex) -> SysResult {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let buf = UserAddr(argument);
    match command {
        IPC_INFO | SEM_INFO => info(t, command, buf),
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => stat(t, id, command, buf),
        GETALL | GETVAL | GETPID | GETNCNT | GETZCNT | SETALL => values(t, id, at, command, buf),
        SETVAL => set_value(t, id, at, argument as i32),
        IPC_SET => {
            let (_, perm) = wire::read::<SEMID_BYTES>(buf)?;
            let set = get(t, id)?;
            set.common.check_owner(&t.credentials())?;
            set.common.change(perm)?;
            Ok(0)
        }
        IPC_RMID => {
            let set = get(t, id)?;
            set.common.check_owner(&t.credentials())?;
            let removed = namespace(t).sets.lock().remove(&set);
            drop(removed);
            set.changed.wake_all();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn values(t: &Thread, id: i32, at: i32, command: i32, buf: UserAddr) -> SysResult {
    let set = get(t, id)?;
    let wanted = if command == SETALL { WRITE } else { READ };
    set.common.check(&t.credentials(), wanted)?;
    let count = set.state.lock().semaphores.len();
    if command == GETALL {
        let all: Vec<u8> = {
            let state = set.state.lock();
            let values = state.semaphores.iter();
            values
                .flat_map(|one| (one.value as u16).to_ne_bytes())
                .collect()
        };
        buf.write_bytes(&all)?;
        return Ok(0);
    }
    if command == SETALL {
        let new = buf.read_array::<u16>(count)?;
        if new.iter().any(|value| i32::from(*value) > MAX_VALUE) {
            return Err(Errno::ERANGE);
        }
        set.common.check_alive()?;
        set.replace(
            new.iter().map(|value| i32::from(*value)).enumerate(),
            t.process.pid,
        );
        return Ok(0);
    }
    let at = usize::try_from(at)
        .ok()
        .filter(|at| *at < count)
        .ok_or(Errno::EINVAL)?;
    let state = set.state.lock();
    let sleeping = |for_zero: bool| {
        let all = state.sleepers.iter();
        all.filter(|(_, on, zero)| *on == at && *zero == for_zero)
            .count()
    };
    Ok(match command {
        GETVAL => state.semaphores[at].value as usize,
        GETPID => state.semaphores[at].pid as usize,
        GETNCNT => sleeping(false),
        _ => sleeping(true),
    })
}

fn set_value(t: &Thread, id: i32, at: i32, value: i32) -> SysResult {
    if !(0..=MAX_VALUE).contains(&value) {
        return Err(Errno::ERANGE);
    }
    let set = get(t, id)?;
    let count = set.state.lock().semaphores.len();
    let at = usize::try_from(at)
        .ok()
        .filter(|at| *at < count)
        .ok_or(Errno::EINVAL)?;
    set.common.check(&t.credentials(), WRITE)?;
    set.replace(core::iter::once((at, value)), t.process.pid);
    Ok(0)
}

impl Set {
    /// Sets values; nothing that was done to these before is undone any more.
    fn replace(&self, new: impl Iterator<Item = (usize, i32)>, pid: u32) {
        let mut changed = Vec::new();
        let undoers: Vec<_> = {
            let mut state = self.state.lock();
            for (at, value) in new {
                state.semaphores[at] = Semaphore { value, pid };
                changed.push(at);
            }
            state.undoers.iter().filter_map(Weak::upgrade).collect()
        };
        self.common.perm.lock().changed = now();
        for undo in undoers {
            undo.lock().forget(self, &changed);
        }
        self.changed.wake_all();
    }
}

fn info(t: &Thread, command: i32, buf: UserAddr) -> SysResult {
    const BYTES: usize = 40;
    /// `SEMUSZ`: bytes of an undo structure, as it once was.
    const UNDO_BYTES: i32 = 20;
    let namespace = namespace(t);
    let (highest, sets, used) = {
        let sets = namespace.sets.lock();
        let used: usize = sets
            .iter()
            .map(|set| set.state.lock().semaphores.len())
            .sum();
        (sets.highest(), sets.len(), used)
    };
    let [of_set, all, operations, of_sets] = namespace.limits.semaphores.map(|limit| limit as i32);
    let (first, last) = if command == SEM_INFO {
        (sets as i32, used as i32)
    } else {
        (UNDO_BYTES, MAX_VALUE)
    };
    let mut out = Struct::default();
    for value in [all, of_sets, all, all, of_set] {
        out.int(value);
    }
    for value in [operations, operations, first, MAX_VALUE, last] {
        out.int(value);
    }
    out.write(buf, BYTES)?;
    Ok(highest)
}

fn stat(t: &Thread, id: i32, command: i32, buf: UserAddr) -> SysResult {
    let namespace = namespace(t);
    let set = if command == IPC_STAT {
        namespace.sets.lock().get(id)?
    } else {
        namespace.sets.lock().at(id)?
    };
    if command != SEM_STAT_ANY {
        set.common.check(&t.credentials(), READ)?;
    }
    let perm = *set.common.perm.lock();
    let mut out = Struct::of(&perm, set.common.id);
    {
        let state = set.state.lock();
        out.long(state.operated.cast_unsigned());
        out.long(0);
        out.long(perm.changed.cast_unsigned());
        out.long(0);
        out.long(state.semaphores.len() as u64);
    }
    out.write(buf, SEMID_BYTES)?;
    Ok(if command == IPC_STAT {
        0
    } else {
        set.common.id as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(at: usize, change: i16, flags: i16) -> Operation {
        Operation { at, change, flags }
    }

    #[test]
    fn all_or_nothing() {
        let mut set = [Semaphore { value: 1, pid: 7 }; 2];
        let take = |at| operation(at, -1, 0);
        let both = [take(0), take(1), take(0)];
        let done = carry_out(&mut set, None, &both, 9);
        assert_eq!(done, Err(Blocked::By(2)));
        assert_eq!([set[0].value, set[1].pid as i32], [1, 7]);
        let done = carry_out(&mut set, None, &[take(0), operation(0, 0, 0), take(1)], 9);
        assert_eq!(done, Ok(()));
        assert_eq!([set[0].value, set[1].value, set[0].pid as i32], [0, 0, 9]);
        let much = [operation(0, 32767, 0), operation(0, 1, 0)];
        let done = carry_out(&mut set, None, &much, 9);
        assert_eq!(done, Err(Blocked::Fails(Errno::ERANGE)));
        assert_eq!(
            carry_out(&mut set, None, &[take(1)], 9),
            Err(Blocked::By(0))
        );
    }

    #[test]
    fn adjustments() {
        let mut set = [Semaphore::default(); 2];
        let mut adjustments = [0i16; 2];
        let add = |at, change| operation(at, change, SEM_UNDO);
        let all = [add(0, 5), operation(0, 3, 0), add(0, -2), add(1, 1)];
        carry_out(&mut set, Some(&mut adjustments), &all, 1).unwrap();
        assert_eq!((set[0].value, adjustments), (6, [-3, -1]));
        let much = [
            add(1, 32766),
            add(0, -1),
            add(1, -32767),
            add(1, 32767),
            add(1, 0),
        ];
        assert_eq!(
            carry_out(&mut set, Some(&mut adjustments), &much[..1], 1),
            Ok(())
        );
        assert_eq!(adjustments[1], -32767);
        set[1].value = 0;
        let done = carry_out(&mut set, Some(&mut adjustments), &[add(1, 2)], 1);
        assert_eq!(done, Err(Blocked::Fails(Errno::ERANGE)));
    }
}
