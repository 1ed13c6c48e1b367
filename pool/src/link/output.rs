//! Output of a call while it runs, for whoever asked for it.
//!
//! A link serves many calls, so it never waits for the reader of one: who falls too far behind is
//! told that output is missing, and gets no more of it. The result is whole all the same.

use bytes::Bytes;
use slotmux_protocol::link::OutputStream;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// Not yet read, for each call.
const BEHIND_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Chunk {
        stream: OutputStream,
        bytes: Bytes,
    },
    /// More was printed than was read in time, or the link broke; nothing else comes.
    Cut,
}

#[derive(Debug)]
pub struct OutputSender {
    queue: mpsc::UnboundedSender<Output>,
    behind_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub struct OutputReader {
    queue: mpsc::UnboundedReceiver<Output>,
    behind_bytes: Arc<AtomicUsize>,
}

pub fn output() -> (OutputSender, OutputReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let behind_bytes = Arc::new(AtomicUsize::new(0));
    let reader = OutputReader { queue: receiver, behind_bytes: Arc::clone(&behind_bytes) };
    (OutputSender { queue: sender, behind_bytes }, reader)
}

impl OutputSender {
    /// `false`: nothing more is wanted.
    pub(super) fn send(&self, stream: OutputStream, bytes: Bytes) -> bool {
        let length = bytes.len();
        let behind = self.behind_bytes.fetch_add(length, Ordering::AcqRel);
        if behind + length > BEHIND_BYTES_MAX {
            self.cut();
            return false;
        }
        self.queue.send(Output::Chunk { stream, bytes }).is_ok()
    }

    pub(super) fn cut(&self) {
        // Who does not read any more does not miss anything.
        let _ = self.queue.send(Output::Cut);
    }
}

impl OutputReader {
    /// `None` when the call has ended.
    pub async fn next(&mut self) -> Option<Output> {
        let output = self.queue.recv().await?;
        if let Output::Chunk { bytes, .. } = &output {
            self.behind_bytes.fetch_sub(bytes.len(), Ordering::AcqRel);
        }
        Some(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_too_far_behind_is_told_and_gets_no_more() {
        let (sender, mut reader) = output();
        let half = Bytes::from(vec![b'x'; BEHIND_BYTES_MAX / 2]);
        assert!(sender.send(OutputStream::Stdout, half.clone()));
        assert!(sender.send(OutputStream::Stdout, half.clone()));
        assert!(matches!(reader.next().await, Some(Output::Chunk { .. })));
        assert!(sender.send(OutputStream::Stderr, half.clone()), "what was read does not count");
        assert!(!sender.send(OutputStream::Stdout, Bytes::from_static(b"y")));
        drop(sender);
        assert!(matches!(reader.next().await, Some(Output::Chunk { .. })));
        assert!(matches!(reader.next().await, Some(Output::Chunk { .. })));
        assert_eq!(reader.next().await, Some(Output::Cut));
        assert_eq!(reader.next().await, None);
    }
}
