//! The conversation with a container: what it says, and what it is told.
//!
//! Invariant: a container that is slow or silent keeps nobody waiting but its own job, and what is
//! kept of what it says is bounded.

use super::core::{Attach, Event, StreamEnd};
use crate::{
    capture::Capture,
    wire::{Deframer, FromContainer},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use slotmux_docker::{Attached, Engine, EngineError, Fault, Hear, Piece, State};
use std::{
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Mutex, mpsc, watch},
    time::sleep,
};

type Output = BoxStream<'static, Result<Piece, EngineError>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// To an engine that is away.
const ATTEMPTS: u32 = 60;
const APART_MIN: Duration = Duration::from_millis(50);
const APART_MAX: Duration = Duration::from_millis(500);

/// Half of a first message cannot be made whole.
const CUT_SHORT: &str = "The agent lost the container before it had told it what to do.";

/// Of a container's messages that cannot be read: more of them are not worth a line each.
const BAD_TOLD_MAX: u32 = 5;

/// What is common to all connections to one grading container.
#[derive(Debug, Clone)]
pub(super) struct Talk {
    pub(super) news: mpsc::Sender<Event>,
    /// What is to be told it, after the first message.
    pub(super) inbox: Arc<Mutex<Unsaid>>,
    /// Whether it was told the first message, whole.
    pub(super) is_told: Arc<AtomicBool>,
    /// Whether it may be told anything: between its start and its beginning there is something to
    /// be done.
    pub(super) may_speak: Arc<watch::Sender<bool>>,
}

/// What is to be told a container, also over the next connection.
#[derive(Debug)]
pub(super) struct Unsaid {
    messages: mpsc::Receiver<Bytes>,
    /// The connection broke while it was said.
    half_said: Option<Bytes>,
}

impl Unsaid {
    pub(super) fn new(messages: mpsc::Receiver<Bytes>) -> Self {
        Self { messages, half_said: None }
    }

    async fn next(&mut self) -> Option<Bytes> {
        match self.half_said.take() {
            Some(message) => Some(message),
            None => self.messages.recv().await,
        }
    }
}

#[derive(Debug)]
pub(super) struct Captures {
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
}

impl Talk {
    /// From the connection to its end.
    pub(super) async fn run(self, engine: Engine, id: String, first: Bytes, attach: Attach) {
        match connect(&engine, &id, Hear::Stdout, attach).await {
            Ok(_) if attach == Attach::Again && !self.is_told.load(Ordering::Relaxed) => {
                self.tell(Event::Attached).await;
                self.tell(Event::StreamEnded(StreamEnd::Faulty(CUT_SHORT.to_owned()))).await;
            }
            Ok(attached) => self.converse(attached, first).await,
            Err(why) => self.tell(Event::NotAttached(why)).await,
        }
    }

    pub(super) async fn converse(self, attached: Attached, first: Bytes) {
        let Attached { output, input } = attached;
        self.tell(Event::Attached).await;
        let mut hear = std::pin::pin!(self.hear(output));
        let mut speak = std::pin::pin!(self.speak(input, first));
        let mut is_mute = false;
        let end = loop {
            tokio::select! {
                end = &mut hear => break end,
                () = &mut speak, if !is_mute => is_mute = true,
            }
        };
        self.tell(Event::StreamEnded(end)).await;
    }

    /// To the end of the stream.
    async fn hear(&self, mut output: Output) -> StreamEnd {
        let mut deframer = Deframer::default();
        let mut bad = 0;
        while let Some(piece) = output.next().await {
            let piece = match piece {
                Ok(Piece::Stdout(piece)) => piece,
                Ok(Piece::Stderr(_)) => continue,
                Err(error) => {
                    tracing::debug!(%error, "a container is not heard any more");
                    return StreamEnd::Ended;
                }
            };
            deframer.push(&piece);
            loop {
                match deframer.next() {
                    Ok(Some(message)) => self.heard(&message, &mut bad).await,
                    Ok(None) => break,
                    Err(error) => return StreamEnd::Faulty(error.to_string()),
                }
            }
        }
        StreamEnd::Ended
    }

    async fn heard(&self, message: &[u8], bad: &mut u32) {
        match FromContainer::read(message) {
            Ok(Some(message)) => self.tell(Event::Heard(message)).await,
            Ok(None) => {}
            Err(error) => {
                *bad += 1;
                if *bad <= BAD_TOLD_MAX {
                    tracing::warn!(%error, "a container's message is skipped");
                }
            }
        }
    }

    async fn speak(&self, mut input: Input, first: Bytes) {
        // Its sender is here.
        let _ = self.may_speak.subscribe().wait_for(|it| *it).await;
        if !self.is_told.load(Ordering::Relaxed) {
            if let Err(error) = say(&mut input, &first).await {
                tracing::debug!(%error, "a container was not told what to do");
                return;
            }
            self.is_told.store(true, Ordering::Relaxed);
        }
        drop(first);
        let mut inbox = self.inbox.lock().await;
        while let Some(message) = inbox.next().await {
            if let Err(error) = say(&mut input, &message).await {
                inbox.half_said = Some(message);
                tracing::debug!(%error, "a container does not listen any more");
                return;
            }
        }
    }

    async fn tell(&self, event: Event) {
        // Without a reader the job is over.
        let _ = self.news.send(event).await;
    }
}

/// With a command that speaks no protocol: all of its input, then all that it prints.
pub(super) async fn transcribe(
    engine: Engine,
    id: String,
    stdin: Bytes,
    captures: Arc<std::sync::Mutex<Captures>>,
    attach: Attach,
    news: mpsc::Sender<Event>,
) {
    let attached = match connect(&engine, &id, Hear::StdoutAndStderr, attach).await {
        Ok(attached) => attached,
        Err(why) => return drop(news.send(Event::NotAttached(why)).await),
    };
    let Attached { mut output, mut input } = attached;
    let _ = news.send(Event::Attached).await;
    let write = async {
        // One that was cut off has read what it could.
        if attach == Attach::First && say(&mut input, &stdin).await.is_ok() {
            // A command need not read to the end.
            let _ = input.shutdown().await;
        }
    };
    let read = async {
        while let Some(Ok(piece)) = output.next().await {
            let mut captures = captures.lock().unwrap_or_else(PoisonError::into_inner);
            match piece {
                Piece::Stdout(bytes) => captures.stdout.push(&bytes),
                Piece::Stderr(bytes) => captures.stderr.push(&bytes),
            }
        }
    };
    let (mut read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    let mut is_written = false;
    loop {
        tokio::select! {
            () = &mut read => break,
            () = &mut write, if !is_written => is_written = true,
        }
    }
    let _ = news.send(Event::StreamEnded(StreamEnd::Ended)).await;
}

async fn say(input: &mut Input, message: &[u8]) -> std::io::Result<()> {
    input.write_all(message).await?;
    input.flush().await
}

async fn connect(
    engine: &Engine,
    id: &str,
    hear: Hear,
    attach: Attach,
) -> Result<Attached, String> {
    let mut apart = APART_MIN;
    let mut attempt = 1;
    loop {
        let error = match ended(engine, id, attach).await {
            Ok(true) => return Err("it has ended".to_owned()),
            Ok(false) => match engine.talk(id, hear).await {
                Ok(attached) => return Ok(attached),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let is_over = matches!(error.fault, Fault::Said { .. } | Fault::Address(_));
        if is_over || attempt == ATTEMPTS {
            return Err(super::calls::chain(&error));
        }
        attempt += 1;
        sleep(apart).await;
        apart = (apart * 2).min(APART_MAX);
    }
}

/// Engines would attach to what has ended, and be silent for ever.
async fn ended(engine: &Engine, id: &str, attach: Attach) -> Result<bool, EngineError> {
    if attach == Attach::First {
        return Ok(false);
    }
    let found = engine.find(id).await?;
    Ok(found.is_none_or(|it| matches!(it.state, State::Ended(_) | State::Leaving)))
}
