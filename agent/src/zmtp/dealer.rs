//! One connection of a DEALER to a ROUTER.
//!
//! There is no reconnecting here: what is to be said anew on a new connection is not known to a
//! socket. A heartbeat doubles as a receipt: its answer says that the peer has taken in all that
//! was sent before it.

use super::{
    Address, Identity,
    commands::{self, Command},
    frames::{self, FrameFault, Frames, Traffic},
    greeting::{self, GREETING_BYTES, GreetingFault},
};
use bytes::{Bytes, BytesMut};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};

/// Past this much that the peer has not taken, nothing more is read from it.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// What a buffer keeps for later messages.
const KEPT_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DealerError {
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("not a peer for us")]
    Greeting(#[from] GreetingFault),
    #[error("it is a {0}, and must be a ROUTER")]
    SocketType(String),
    #[error("it refused the connection: {0}")]
    Refused(String),
    #[error("it does not keep to the protocol")]
    Frame(#[from] FrameFault),
    #[error("it sent messages before its READY")]
    Handshake,
    #[error("read")]
    Read(#[source] io::Error),
    #[error("write")]
    Write(#[source] io::Error),
    #[error("it closed the connection")]
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(Vec<Bytes>),
    /// All that was sent before the heartbeat of this number has arrived.
    Receipt(u64),
    /// A sign of life without a message.
    Alive,
}

pub(crate) struct Dealer {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
    unsent: BytesMut,
    frames: Frames,
    /// Of the peer's version: heartbeats came with 3.1.
    minor: u8,
}

impl Dealer {
    /// Connects, greets and shakes hands, all within `patience`.
    pub(crate) async fn connect(
        address: &Address,
        identity: Identity,
        message_bytes_max: usize,
        patience: Duration,
    ) -> Result<Self, DealerError> {
        let opening = async {
            let mut dealer = Self::open(address, message_bytes_max).await?;
            dealer.shake_hands(identity).await?;
            Ok(dealer)
        };
        timeout(patience, opening).await.unwrap_or(Err(DealerError::Slow(patience)))
    }

    async fn open(address: &Address, message_bytes_max: usize) -> Result<Self, DealerError> {
        let (reader, writer): (
            Box<dyn AsyncRead + Send + Unpin>,
            Box<dyn AsyncWrite + Send + Unpin>,
        ) = match address {
            Address::Tcp { host, port } => {
                let stream = tcp(host, *port).await.map_err(DealerError::Connect)?;
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Address::Ipc(path) => {
                let stream = UnixStream::connect(path).await.map_err(DealerError::Connect)?;
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Address::Abstract(name) => {
                let path = format!("\0{name}");
                let stream = UnixStream::connect(path).await.map_err(DealerError::Connect)?;
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
        };
        Ok(Self {
            reader,
            writer,
            buffer: BytesMut::with_capacity(READ_BYTES),
            unsent: BytesMut::new(),
            frames: Frames::new(message_bytes_max),
            minor: 0,
        })
    }

    async fn shake_hands(&mut self, identity: Identity) -> Result<(), DealerError> {
        self.unsent.extend_from_slice(&greeting::greeting());
        frames::put_command(&commands::ready(identity), &mut self.unsent);
        while self.buffer.len() < GREETING_BYTES {
            // It is no ZMTP long before the end of a greeting, if it is none.
            if self.buffer.first().is_some_and(|first| *first != 0xff) {
                return Err(GreetingFault::Signature.into());
            }
            self.exchange().await?;
        }
        let theirs = self.buffer.split_to(GREETING_BYTES);
        let theirs = theirs.first_chunk().ok_or(GreetingFault::Signature)?;
        self.minor = greeting::check(theirs)?;
        let socket_type = loop {
            match self.frames.next(&mut self.buffer)? {
                Some(Traffic::Command(Command::Ready { socket_type })) => break socket_type,
                Some(Traffic::Command(Command::Error { reason })) => {
                    return Err(DealerError::Refused(reason));
                }
                Some(Traffic::Command(_)) => {}
                Some(Traffic::Message(_)) => return Err(DealerError::Handshake),
                None => self.exchange().await?,
            }
        };
        match socket_type {
            Some(kind) if &kind[..] != b"ROUTER" => {
                Err(DealerError::SocketType(String::from_utf8_lossy(&kind).into_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Queues a message of one frame. [`Self::hear`] sends it.
    pub(crate) fn say(&mut self, payload: &[u8]) {
        frames::put_message(payload, &mut self.unsent);
    }

    /// Whether this peer gives receipts.
    pub(crate) fn gives_receipts(&self) -> bool {
        self.minor > 0
    }

    /// Has [`Heard::Receipt`] come once all that was queued so far has arrived.
    pub(crate) fn ask_receipt(&mut self, number: u64) {
        frames::put_command(&commands::ping(&number.to_be_bytes()), &mut self.unsent);
    }

    /// Queued, and not yet taken by the kernel.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// The next thing that the peer says; sends what is queued meanwhile. Can be dropped at any
    /// time, and nothing is lost.
    pub(crate) async fn hear(&mut self) -> Result<Heard, DealerError> {
        loop {
            match self.frames.next(&mut self.buffer)? {
                Some(Traffic::Message(parts)) => return Ok(Heard::Message(parts)),
                Some(Traffic::Command(command)) => return self.obey(command),
                None => self.exchange().await?,
            }
        }
    }

    /// Sends what is queued, and hears nothing meanwhile.
    pub(crate) async fn flush(&mut self) -> Result<(), DealerError> {
        while !self.unsent.is_empty() {
            let written = self.writer.write_buf(&mut self.unsent).await;
            took(written)?;
        }
        self.writer.flush().await.map_err(DealerError::Write)
    }

    fn obey(&mut self, command: Command) -> Result<Heard, DealerError> {
        match command {
            Command::Ping { context } => {
                frames::put_command(&commands::pong(&context), &mut self.unsent);
            }
            Command::Pong { context } => {
                if let Some(number) = context.first_chunk() {
                    return Ok(Heard::Receipt(u64::from_be_bytes(*number)));
                }
            }
            Command::Error { reason } => return Err(DealerError::Refused(reason)),
            Command::Ready { .. } | Command::Other => {}
        }
        Ok(Heard::Alive)
    }

    /// Reads something, or writes something. Both can be given up between any two bytes.
    async fn exchange(&mut self) -> Result<(), DealerError> {
        let (unsent, buffer) = (&mut self.unsent, &mut self.buffer);
        let waiting = unsent.len();
        tokio::select! {
            read = self.reader.read_buf(buffer), if waiting <= UNSENT_BYTES_MAX => {
                if read.map_err(DealerError::Read)? == 0 {
                    return Err(DealerError::Closed);
                }
            }
            written = self.writer.write_buf(unsent), if waiting != 0 => {
                took(written)?;
                if unsent.is_empty() && unsent.capacity() > KEPT_BYTES_MAX {
                    *unsent = BytesMut::new();
                }
            }
        }
        Ok(())
    }
}

fn took(written: io::Result<usize>) -> Result<(), DealerError> {
    match written.map_err(DealerError::Write)? {
        0 => Err(DealerError::Closed),
        _ => Ok(()),
    }
}

/// The first of the host's addresses, of either family, that lets us in.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Fails when the peer is gone already, which reading will tell.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
