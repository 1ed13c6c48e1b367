//! What containers print: attached to while they run, or read back from their logs.

use super::{Engine, EngineError, State, error::Doing, talk::Hear};
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{collections::VecDeque, fmt, pin::Pin, time::Duration};
use tokio::time::{Instant, timeout_at};
use tokio::{
    io::{AsyncWrite, sink},
    time::timeout,
};

/// The end of a log is asked for by lines; one has at least a byte.
const LINES_MAX: usize = 1 << 20;
/// For the end of a log: an engine that hangs over it must not keep a death from being told.
const LOG_MAX: Duration = Duration::from_secs(10);

/// For each piece that is left of what has ended.
const REST_MAX: Duration = Duration::from_secs(2);

/// A piece of output, as the container wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// The streams of a container. What is not read makes the container wait.
pub struct Attached {
    pub output: BoxStream<'static, Result<Piece, EngineError>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// The last bytes of what is pushed, and no more of it.
#[derive(Debug)]
pub struct LogTail {
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

impl Engine {
    /// To what it prints from now on; before its start, to all of it. One that has ended has
    /// nothing more to say, and hears nothing.
    pub async fn attach(&self, id: &str) -> Result<Attached, EngineError> {
        // Engines would attach to it, and be silent for ever.
        if self.has_ended(id).await? {
            return Ok(Attached { output: stream::empty().boxed(), input: Box::pin(sink()) });
        }
        let Attached { output, input } = self.talk(id, Hear::StdoutAndStderr).await?;
        let output = if self.has_ended(id).await? {
            // Perhaps before the engine had us attached: what there is comes now, or never.
            let rest = stream::unfold(output, async |mut output| {
                let piece = timeout(REST_MAX, output.next()).await.ok()??;
                Some((piece, output))
            });
            rest.boxed()
        } else {
            output
        };
        Ok(Attached { output, input })
    }

    async fn has_ended(&self, id: &str) -> Result<bool, EngineError> {
        let found = self.find(id).await?;
        Ok(found.is_some_and(|found| matches!(found.state, State::Ended(_))))
    }

    /// The last `bytes_max` bytes of what the container printed, or a little less.
    pub async fn log_end(&self, id: &str, bytes_max: usize) -> Result<String, EngineError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: bytes_max.min(LINES_MAX).to_string(),
            ..Default::default()
        };
        let docker = self.docker().await?;
        let mut log = std::pin::pin!(docker.logs(id, Some(options)));
        let mut tail = LogTail::new(bytes_max);
        let deadline = Instant::now() + LOG_MAX;
        // What has come until then is better than nothing.
        while let Ok(Some(output)) = timeout_at(deadline, log.next()).await {
            tail.push(output.doing("read the container's log")?.as_ref());
        }
        Ok(tail.text())
    }
}

impl LogTail {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), bytes_max }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.bytes_max)..];
        let over = (self.bytes.len() + bytes.len()).saturating_sub(self.bytes_max);
        self.bytes.drain(..over);
        self.bytes.extend(bytes);
    }

    /// No character is cut in two.
    pub fn text(self) -> String {
        let bytes = Vec::from(self.bytes);
        let cut = bytes.iter().take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
        let mut text = String::from_utf8_lossy(&bytes[cut..]).into_owned();
        // A replaced byte is three bytes long; ours is the bound to keep.
        let over = text.len().saturating_sub(self.bytes_max);
        text.drain(..text.ceil_char_boundary(over));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(bytes_max: usize, pieces: &[&[u8]]) -> String {
        let mut tail = LogTail::new(bytes_max);
        for piece in pieces {
            tail.push(piece);
            assert!(tail.bytes.len() <= bytes_max);
        }
        tail.text()
    }

    #[test]
    fn the_end_of_a_log_is_bounded_whatever_its_bytes_and_pieces() {
        assert_eq!(tail(100, &["größe ".as_bytes(), "\u{1f600}".as_bytes()]), "größe \u{1f600}");
        assert_eq!(tail(4, &["größe \u{1f600}".as_bytes()]), "\u{1f600}");
        assert_eq!(tail(3, &["größe \u{1f600}".as_bytes()]), "");
        assert_eq!(tail(0, &[b"x", b""]), "");
        assert_eq!(tail(3, &[b"ab", b"cd", b"e"]), "cde");
        assert!(tail(4, &[b"\xff\xff", b"\xff\xff\xff"]).len() <= 4);
    }
}
