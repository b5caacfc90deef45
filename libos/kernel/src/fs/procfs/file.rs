//! An open file of `/proc`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::node::Node;
use super::row::{Generate, Store};
use super::subject::Subject;
use super::text::Text;
use crate::fs::{File, FileOps};
use crate::sync::Mutex;
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// The most a write may hold.
const WRITE_LIMIT: usize = 4096;

/// Contents as of the last read from the start, so that a reader in pieces sees one state.
#[derive(Debug)]
pub(super) struct ProcFile {
    node: Arc<Node>,
    subject: Subject,
    generate: Generate,
    store: Option<Store>,
    contents: Mutex<Option<Vec<u8>>>,
}

impl ProcFile {
    pub fn new(node: Arc<Node>, generate: Generate, store: Option<Store>) -> Arc<Self> {
        Arc::new(Self {
            subject: node.subject().opened(),
            node,
            generate,
            store,
            contents: Mutex::new(None),
        })
    }
}

impl FileOps for ProcFile {
    fn read(&self, t: &Thread, _file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let mut contents = self.contents.lock();
        let bytes = match contents.take() {
            Some(bytes) if offset > 0 => bytes,
            _ => {
                let mut text = Text::default();
                (self.generate)(t, &self.subject, &mut text)?;
                text.into_bytes()
            }
        };
        let bytes = contents.insert(bytes);
        let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
        buf.put(&bytes[start..])
    }

    fn write(&self, t: &Thread, _file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let store = self.store.ok_or(Errno::EIO)?;
        let mut bytes = alloc::vec![0; buf.remaining().min(WRITE_LIMIT)];
        let len = buf.take(&mut bytes)?;
        store(t, self.node.subject(), &bytes[..len])?;
        Ok(len)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
