//! Why a connection could not be made, or broke.

use slotmux_protocol::{ContainerId, FrameError, LINK_VERSION};
use std::{error::Error, fmt::Write as _, io, time::Duration};
use tokio_tungstenite::tungstenite::{self, protocol::CloseFrame};

#[derive(Debug, thiserror::Error)]
pub(super) enum LinkFault {
    #[error("connect to {authority}")]
    Connect { authority: String, source: io::Error },
    #[error("open the websocket")]
    Handshake { source: Box<tungstenite::Error> },
    #[error("the address or token of the container cannot be put into a request")]
    Request,
    #[error("no link within {} ms", within.as_millis())]
    Slow { within: Duration },
    #[error("the container speaks link version {theirs}, this pool speaks {LINK_VERSION}")]
    Version { theirs: u32 },
    #[error("container `{answers}` answers at this address")]
    Impostor { answers: ContainerId },
    #[error("the container did not begin with a hello")]
    NoHello,
    #[error("the container said nothing for {} ms", silence.as_millis())]
    Silent { silence: Duration },
    #[error("the container closed the link ({why})")]
    Closed { why: String },
    #[error("the link broke")]
    Broke { source: Box<tungstenite::Error> },
    #[error("a message ends inside a frame")]
    SplitFrame,
    #[error("read a frame")]
    Frame { source: FrameError },
    #[error("the container sent a text")]
    Text,
}

impl LinkFault {
    /// By a close frame, if it came to that.
    pub(super) fn closed(frame: Option<CloseFrame>) -> Self {
        let said = frame.map(|frame| frame.reason.to_string()).filter(|reason| !reason.is_empty());
        Self::Closed { why: said.unwrap_or_else(|| "no reason given".to_owned()) }
    }

    pub(super) fn broke(source: tungstenite::Error) -> Self {
        Self::Broke { source: Box::new(source) }
    }

    /// With its causes, on one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            // Some libraries repeat their source.
            if !text.ends_with(&said) {
                let _ = write!(text, ": {said}");
            }
            cause = error.source();
        }
        text
    }
}
