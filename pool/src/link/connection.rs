//! The link's task: dials, says hello, reads, writes, listens for silence; and again.

use super::{LinkIdentity, LinkNews, Shared, Tell, fault::LinkFault};
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use slotmux_backend::Address;
use slotmux_protocol::{
    Decoder, LINK_VERSION, encode,
    link::{FromContainer, ServerInfo, SlotReport, ToContainer},
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, WeakUnboundedSender, unbounded_channel},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Heartbeats without a word until a link is dead.
const SILENT_BEATS: u32 = 3;
/// Frames are put together up to this size. A larger frame goes alone.
const MESSAGE_BYTES: usize = 64 << 10;
const FRAMES_AT_ONCE: usize = 256;

type Socket = WebSocketStream<TcpStream>;

pub(super) struct Dialler {
    pub(super) shared: Arc<Shared>,
    pub(super) address: Address,
    pub(super) identity: LinkIdentity,
    pub(super) heartbeat: Duration,
    pub(super) tell: Tell,
}

/// A connection whose hellos are exchanged.
struct Connected {
    socket: Socket,
    /// Holds what came behind the hello.
    decoder: Decoder,
    server: ServerInfo,
    slots: Vec<SlotReport>,
}

impl Dialler {
    pub(super) async fn run(self) {
        tokio::select! {
            () = self.keep_connected() => {}
            () = self.sweep() => {}
        }
    }

    async fn keep_connected(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut told = None;
        while !self.shared.closed.is_cancelled() {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = self.shared.closed.cancelled() => return,
            };
            let fault = match connected {
                Ok(connected) => {
                    (backoff, told) = (BACKOFF_MIN, None);
                    match self.serve(connected).await {
                        Some(fault) => fault,
                        None => return,
                    }
                }
                Err(fault) => fault,
            };
            self.shared.table().down();
            let why = fault.chain();
            if told.as_ref() != Some(&why) && !self.shared.closed.is_cancelled() {
                tracing::debug!(container = %self.shared.container, why, "link down");
                (self.tell)(LinkNews::Down { why: why.clone() });
                told = Some(why);
            }
            tokio::select! {
                () = sleep(backoff) => {}
                () = self.shared.closed.cancelled() => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Answers calls that have waited too long, connected or not.
    async fn sweep(&self) {
        let mut ticks = interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (answers, overdue) = self.shared.table().sweep(Instant::now());
            answers.deliver();
            self.shared.cancel(overdue);
        }
    }

    async fn connect(&self) -> Result<Connected, LinkFault> {
        let within = self.shared.limits.dial_max;
        match timeout(within, self.exchange_hellos()).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(LinkFault::Slow { within }),
        }
    }

    async fn exchange_hellos(&self) -> Result<Connected, LinkFault> {
        let mut socket = self.open_socket().await?;
        socket.send(Message::Binary(self.hello()?)).await.map_err(LinkFault::broke)?;
        let mut decoder = Decoder::new(self.shared.limits.frame_bytes_max);
        loop {
            let message = match socket.next().await {
                Some(message) => message.map_err(LinkFault::broke)?,
                None => return Err(LinkFault::closed(None)),
            };
            match message {
                Message::Binary(bytes) => decoder.push(&bytes),
                Message::Text(_) => return Err(LinkFault::Text),
                Message::Close(frame) => return Err(LinkFault::closed(frame)),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            }
            let first = decoder.next_message().map_err(|source| LinkFault::Frame { source })?;
            let Some(FromContainer::Hello { version, server, slots }) = first else {
                return Err(LinkFault::NoHello);
            };
            if version != LINK_VERSION {
                return Err(LinkFault::Version { theirs: version });
            }
            if server.container != self.shared.container {
                return Err(LinkFault::Impostor { answers: server.container });
            }
            return Ok(Connected { socket, decoder, server, slots });
        }
    }

    async fn open_socket(&self) -> Result<Socket, LinkFault> {
        let Address { authority, token } = &self.address;
        let mut request = format!("ws://{authority}/v1/link")
            .into_client_request()
            .map_err(|_| LinkFault::Request)?;
        let mut bearer =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| LinkFault::Request)?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let connect = async {
            let stream = TcpStream::connect(authority.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect
            .await
            .map_err(|source| LinkFault::Connect { authority: authority.clone(), source })?;
        let message_bytes_max = 2 * self.shared.limits.frame_bytes_max + MESSAGE_BYTES;
        let config = WebSocketConfig::default()
            .read_buffer_size(32 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let (socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| LinkFault::Handshake { source: Box::new(error) })?;
        Ok(socket)
    }

    fn hello(&self) -> Result<Bytes, LinkFault> {
        self.frame(&ToContainer::Hello {
            version: LINK_VERSION,
            pool: self.identity.pool.clone(),
            generation: self.identity.generation,
            heartbeat_ms: u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn frame(&self, message: &ToContainer) -> Result<Bytes, LinkFault> {
        let mut frame = BytesMut::new();
        encode(message, self.shared.limits.frame_bytes_max, &mut frame)
            .map_err(|source| LinkFault::Frame { source })?;
        Ok(frame.freeze())
    }

    /// Until the connection breaks, or (`None`) the link is closed and all is written.
    async fn serve(&self, connected: Connected) -> Option<LinkFault> {
        let Connected { socket, decoder, server, slots } = connected;
        let (queue, queued) = unbounded_channel();
        let pings = queue.downgrade();
        let (answers, cancel) = self.shared.table().up(server.clone(), queue, Instant::now());
        answers.deliver();
        self.shared.cancel(cancel);
        (self.tell)(LinkNews::Up { server, slots });
        let (sink, stream) = socket.split();
        let heard = AtomicBool::new(true);
        let read = pin!(self.read(stream, decoder, &heard));
        let write = pin!(self.write(sink, queued));
        let listen = pin!(self.listen(&pings, &heard));
        // Reading first: what came already counts as heard.
        tokio::select! {
            biased;
            fault = read => Some(fault),
            fault = write => fault,
            fault = listen => Some(fault),
        }
    }

    async fn read(
        &self,
        mut stream: SplitStream<Socket>,
        mut decoder: Decoder,
        heard: &AtomicBool,
    ) -> LinkFault {
        loop {
            if let Err(fault) = self.take_frames(&mut decoder) {
                return fault;
            }
            match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => decoder.push(&bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => return LinkFault::Text,
                Some(Ok(Message::Close(frame))) => return LinkFault::closed(frame),
                None => return LinkFault::closed(None),
                Some(Err(error)) => return LinkFault::broke(error),
            }
            heard.store(true, Ordering::Relaxed);
        }
    }

    fn take_frames(&self, decoder: &mut Decoder) -> Result<(), LinkFault> {
        while let Some(message) =
            decoder.next_message().map_err(|source| LinkFault::Frame { source })?
        {
            self.take(message);
        }
        if decoder.pending_bytes() == 0 { Ok(()) } else { Err(LinkFault::SplitFrame) }
    }

    fn take(&self, message: FromContainer) {
        let news = match message {
            FromContainer::Done { call, result } => return self.settle(call.0, Ok(*result)),
            FromContainer::Refused { call, problem } => return self.settle(call.0, Err(*problem)),
            FromContainer::Output { call, stream, bytes } => {
                return self.shared.table().output(call.0, stream, bytes);
            }
            // A second hello says nothing new.
            FromContainer::Pong { .. } | FromContainer::Hello { .. } => return,
            FromContainer::Opened { slot, epoch } => LinkNews::Opened { slot, epoch },
            FromContainer::Shut { slot, epoch, why } => LinkNews::Shut { slot, epoch, why },
            FromContainer::Clean { slot, epoch } => LinkNews::Clean { slot, epoch },
            FromContainer::Dirty { slot, epoch, why } => LinkNews::Dirty { slot, epoch, why },
            FromContainer::Broken { slot, epoch, why } => LinkNews::Broken { slot, epoch, why },
        };
        (self.tell)(news);
    }

    fn settle(&self, call: u64, answer: super::Reply) {
        let answers = self.shared.table().settle(call, answer);
        answers.deliver();
    }

    /// Ends with `None` when nobody can queue any more and all is written.
    async fn write(
        &self,
        mut sink: SplitSink<Socket, Message>,
        mut queued: UnboundedReceiver<Bytes>,
    ) -> Option<LinkFault> {
        let mut frames = Vec::with_capacity(FRAMES_AT_ONCE);
        while queued.recv_many(&mut frames, FRAMES_AT_ONCE).await > 0 {
            for message in together(frames.drain(..)) {
                if let Err(error) = sink.send(Message::Binary(message)).await {
                    return Some(LinkFault::broke(error));
                }
            }
        }
        // A close that cannot be said is a close all the same.
        let _ = timeout(BACKOFF_MAX, sink.close()).await;
        None
    }

    /// Pings at each heartbeat, and ends when the other side has missed too many.
    ///
    /// Beats are counted, not time: after this process itself was stopped for a while, the other
    /// side still has all of them to answer.
    async fn listen(&self, queue: &WeakUnboundedSender<Bytes>, heard: &AtomicBool) -> LinkFault {
        let mut beats = interval(self.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        for seq in 0.. {
            beats.tick().await;
            missed = if heard.swap(false, Ordering::Relaxed) { 0 } else { missed + 1 };
            if missed >= SILENT_BEATS {
                return LinkFault::Silent { silence: self.heartbeat * SILENT_BEATS };
            }
            let Some(queue) = queue.upgrade() else { continue };
            match self.frame(&ToContainer::Ping { seq }) {
                // A receiver that is gone is noticed by its own side.
                Ok(ping) => drop(queue.send(ping)),
                Err(fault) => return fault,
            }
        }
        LinkFault::closed(None)
    }
}

/// Puts small frames together, so that many cost one write.
fn together(frames: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let mut messages: Vec<Bytes> = Vec::new();
    let mut open = BytesMut::new();
    let mut frames = frames.peekable();
    while let Some(frame) = frames.next() {
        if open.is_empty() && frames.peek().is_none() {
            messages.push(frame);
            break;
        }
        if !open.is_empty() && open.len() + frame.len() > MESSAGE_BYTES {
            messages.push(open.split().freeze());
        }
        open.extend_from_slice(&frame);
    }
    if !open.is_empty() {
        messages.push(open.freeze());
    }
    messages
}
