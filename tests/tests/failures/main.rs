//! What fails below a container. One program, because most of it waits: for a libOS that never answers, for disks that fill up.

mod broken_libos;
mod file_errors;
