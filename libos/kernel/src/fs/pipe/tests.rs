use super::{PIPE_BUF, Pipe, PipeEnd, write_room};
use crate::Errno;
use crate::user::IoBuf;
use alloc::sync::Arc;

fn ends() -> (Arc<Pipe>, Arc<PipeEnd>, Arc<PipeEnd>) {
    let pipe = Arc::new(Pipe::new());
    let reader = PipeEnd::new(&pipe, true, false);
    let writer = PipeEnd::new(&pipe, false, true);
    (pipe, reader, writer)
}

fn write(pipe: &Pipe, bytes: &[u8]) -> crate::SysResult {
    pipe.try_write(&mut IoBuf::kernel_const(bytes), false)
}

fn read(pipe: &Pipe, len: usize) -> Option<crate::SysResult> {
    pipe.try_read(&mut IoBuf::kernel(&mut vec![0; len]))
}

#[test]
fn small_writes_are_whole_or_not_at_all() {
    let (pipe, _reader, _writer) = ends();
    let large = vec![1; 65536 - 100];
    assert_eq!(write(&pipe, &large), Ok(large.len()));
    assert_eq!(write(&pipe, &[2; 101]), Ok(0));
    assert_eq!(write(&pipe, &[2; 99]), Ok(99));
    // More than PIPE_BUF may be cut.
    assert_eq!(write(&pipe, &[3; PIPE_BUF + 1]), Ok(1));
    assert_eq!(write(&pipe, &[4; PIPE_BUF + 1]), Ok(0));
    assert_eq!(pipe.level(), 65536);
    assert_eq!(write_room(&IoBuf::kernel_const(&[0; 9000]), true), PIPE_BUF);
}

#[test]
fn end_of_file_only_without_writers() {
    let (pipe, _reader, writer) = ends();
    assert_eq!(read(&pipe, 10), None);
    assert_eq!(write(&pipe, b"abc"), Ok(3));
    drop(writer);
    assert_eq!(read(&pipe, 10), Some(Ok(3)));
    assert_eq!(read(&pipe, 10), Some(Ok(0)));
}

#[test]
fn the_last_to_leave_empties_it() {
    let (pipe, reader, writer) = ends();
    write(&pipe, b"left behind").unwrap();
    drop(reader);
    assert!(!pipe.has_readers());
    assert_eq!(pipe.level(), 11);
    drop(writer);
    assert_eq!((pipe.level(), pipe.room()), (0, 65536));
}

#[test]
fn capacity_is_kept_against_contents() {
    let (pipe, _reader, _writer) = ends();
    write(&pipe, &[0; 5000]).unwrap();
    assert_eq!(pipe.ring.lock().set_capacity(4096), Err(Errno::EBUSY));
    assert_eq!(pipe.ring.lock().set_capacity(8192), Ok(()));
}
