//! `/proc/sysvipc`.

use alloc::format;
use alloc::string::String;

use super::Namespace;
use super::objects::{Object, Perm};

impl Namespace {
    /// `/proc/sysvipc/msg`.
    #[must_use]
    pub fn show_queues(&self) -> String {
        let mut text = String::from(
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
        );
        for queue in self.queues.lock().iter() {
            let Perm {
                key,
                uid,
                gid,
                cuid,
                cgid,
                mode,
                changed,
            } = *queue.common().perm.lock();
            let state = queue.state.lock();
            text += &format!(
                "{key:10} {:10}  {mode:4o}  {:10} {:10} {:5} {:5} {uid:5} {gid:5} {cuid:5} {cgid:5} {:10} {:10} {changed:10}\n",
                queue.common().id,
                state.bytes,
                state.len(),
                state.sender,
                state.receiver,
                state.sent,
                state.received,
            );
        }
        text
    }

    /// `/proc/sysvipc/sem`.
    #[must_use]
    pub fn show_sets(&self) -> String {
        let mut text = String::from(
            "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
        );
        for set in self.sets.lock().iter() {
            let Perm {
                key,
                uid,
                gid,
                cuid,
                cgid,
                mode,
                changed,
            } = *set.common().perm.lock();
            let state = set.state.lock();
            text += &format!(
                "{key:10} {:10}  {mode:4o} {:10} {uid:5} {gid:5} {cuid:5} {cgid:5} {:10} {changed:10}\n",
                set.common().id,
                state.semaphores.len(),
                state.operated,
            );
        }
        text
    }

    /// `/proc/sysvipc/shm`.
    #[must_use]
    pub fn show_segments(&self) -> String {
        let mut text = String::from(
            "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
        );
        for segment in self.segments.lock().iter() {
            let Perm {
                key,
                uid,
                gid,
                cuid,
                cgid,
                mode,
                changed,
            } = *segment.common().perm.lock();
            let attachments = segment.attachments();
            let state = segment.state.lock();
            text += &format!(
                "{key:10} {:10}  {mode:4o} {:21} {:5} {:5}  {attachments:5} {uid:5} {gid:5} {cuid:5} {cgid:5} {:10} {:10} {changed:10} {:21} {:21}\n",
                segment.common().id,
                segment.size_bytes,
                segment.creator,
                state.last,
                state.attached,
                state.detached,
                segment.resident() * 4096,
                0,
            );
        }
        text
    }
}
