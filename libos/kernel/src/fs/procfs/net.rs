//! `/proc/PID/net`.

use super::row::{Row, file};
use super::subject::Subject;
use super::text::Text;
use crate::net::proc;
use crate::{Result, Thread};

/// The files of the directory.
pub(super) const TABLE: &[Row] = &[file("unix", unix)];

fn unix(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(
        text,
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
    );
    for line in proc::unix(subject.kernel) {
        write!(
            text,
            "{:016x}: {:08X} {:08X} {:08X} {:04X} {:02X} {:5}",
            0, line.references, 0, line.flags, line.kind, line.state, line.ino
        );
        if !line.path.is_empty() {
            text.push(b" ");
            text.push(&line.path);
        }
        text.push(b"\n");
    }
    Ok(())
}
