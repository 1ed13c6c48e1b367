//! The Link, from the container's side. See [`slotmux_protocol::link`] for its rules.
//!
//! Invariant: frames are acted on in the order they came; what takes time (a call, a reset) takes
//! its place at once and goes on in a task of its own.

use crate::{
    server::Server,
    slot::{CHUNKS_MAX, Chunk, Request, Scope, Shut, Slot},
    stop::Stop,
};
use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::Response,
};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use slotmux_protocol::{
    CausedBy, Code, Decoder, Epoch, LINK_VERSION, Network, Problem, SlotIndex, encode,
    link::{Call, CallId, FromContainer, ServerInfo, ToContainer},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Results that wait for a slow pool. Beyond, calls wait with theirs.
const OUTGOING_MAX: usize = 1_024;
/// Of each stream of a call. Both together, with each byte replaced as no UTF-8, fit a frame.
const KEPT_BYTES_MAX: u32 = 2 << 20;
/// Frames put into one WebSocket message.
const COALESCED_MAX: usize = 64;
/// Heartbeats missed before the other side is taken for dead.
const HEARTBEATS_MISSED: u32 = 3;
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Of the pool process that the current link belongs to. A newer one takes over.
static GENERATION: AtomicU64 = AtomicU64::new(0);

pub(crate) async fn upgrade(
    State(server): State<Arc<Server>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let max = server.settings.limits.body_bytes_max;
    upgrade.max_message_size(max * 2).max_frame_size(max * 2).on_upgrade(async move |socket| {
        let why = serve(&server, socket).await;
        tracing::info!(why, "link closed");
    })
}

/// Until the link ends; says why it did.
async fn serve(server: &Arc<Server>, socket: WebSocket) -> &'static str {
    let (to_pool, mut from_pool) = socket.split();
    let mut decoder = Decoder::new(server.settings.limits.body_bytes_max);
    let hello = timeout(HELLO_PATIENCE, next_message(&mut from_pool, &mut decoder)).await;
    let Ok(Some(ToContainer::Hello { version, pool, generation, heartbeat_ms })) = hello else {
        return "no hello";
    };
    if version != LINK_VERSION {
        let text = format!("link version {LINK_VERSION} is spoken here, not {version}");
        close(to_pool, &text).await;
        return "another version";
    }
    if GENERATION.fetch_max(generation, Ordering::SeqCst) > generation {
        close(to_pool, "a newer pool process has taken this container over").await;
        return "an older pool process";
    }
    tracing::info!(pool, generation, "pool linked");
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let link = Link {
        server: Arc::clone(server),
        outgoing,
        calls: Arc::default(),
        ended: CancellationToken::new(),
        generation,
    };
    let hello = link.hello();
    let writer =
        tokio::spawn(write(to_pool, hello, queue, server.news.subscribe(), link.ended.clone()));
    server.links.send_modify(|links| *links += 1);
    let why = link.read(&mut from_pool, &mut decoder, heartbeat_ms).await;
    if !server.ended.is_cancelled() {
        // What it could not send any more is asked for again.
        link.ended.cancel();
    }
    // The calls have theirs until they have said how they ended; the writer ends after the last.
    drop(link);
    let _ = writer.await;
    server.links.send_modify(|links| *links -= 1);
    why
}

async fn close(mut to_pool: SplitSink<WebSocket, Message>, reason: &str) {
    let frame = CloseFrame { code: close_code::POLICY, reason: reason.into() };
    // The other side may be gone already.
    let _ = to_pool.send(Message::Close(Some(frame))).await;
}

/// `None`: the link is broken, or speaks nonsense.
async fn next_message(
    from_pool: &mut (impl StreamExt<Item = Result<Message, axum::Error>> + Unpin),
    decoder: &mut Decoder,
) -> Option<ToContainer> {
    loop {
        match decoder.next_message() {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "link out of step");
                return None;
            }
        }
        match from_pool.next().await?.ok()? {
            Message::Binary(bytes) => decoder.push(&bytes),
            Message::Close(_) => return None,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

async fn write(
    mut to_pool: SplitSink<WebSocket, Message>,
    hello: FromContainer,
    mut queue: mpsc::Receiver<FromContainer>,
    mut news: broadcast::Receiver<FromContainer>,
    ended: CancellationToken,
) {
    let mut batch = vec![hello];
    loop {
        let mut bytes = BytesMut::new();
        for message in batch.drain(..) {
            if let Err(error) = encode(&message, usize::MAX, &mut bytes) {
                tracing::error!(error = %crate::chain(&error), "answer not encoded");
            }
        }
        let sent = tokio::select! {
            sent = to_pool.send(Message::Binary(bytes.freeze())) => sent,
            // The other side may have stopped reading.
            () = ended.cancelled() => return,
        };
        if sent.is_err() {
            return ended.cancel();
        }
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            count = queue.recv_many(&mut batch, COALESCED_MAX) => {
                if count == 0 {
                    return;
                }
            }
            Ok(message) = news.recv() => batch.push(message),
        }
    }
}

#[derive(Clone)]
struct Link {
    server: Arc<Server>,
    outgoing: mpsc::Sender<FromContainer>,
    calls: Arc<Mutex<HashMap<CallId, Stop>>>,
    ended: CancellationToken,
    generation: u64,
}

impl Link {
    fn hello(&self) -> FromContainer {
        let server = &self.server;
        FromContainer::Hello {
            version: LINK_VERSION,
            server: ServerInfo {
                container: server.settings.container.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                boot_id: server.boot_id.clone(),
                isolation: server.isolation,
                network: server.settings.network,
            },
            slots: server.slots.iter().map(|slot| slot.report()).collect(),
        }
    }

    async fn read(
        &self,
        from_pool: &mut (impl StreamExt<Item = Result<Message, axum::Error>> + Unpin),
        decoder: &mut Decoder,
        heartbeat_ms: u64,
    ) -> &'static str {
        let patience = Duration::from_millis(heartbeat_ms.max(10)) * HEARTBEATS_MISSED;
        loop {
            let message = tokio::select! {
                message = timeout(patience, next_message(from_pool, decoder)) => message,
                () = self.ended.cancelled() => return "nothing can be sent",
                () = self.server.ended.cancelled() => return "the server has ended",
            };
            let message = match message {
                Err(_silence) => return "the pool is silent",
                Ok(None) => return "the pool has hung up",
                Ok(Some(message)) => message,
            };
            if GENERATION.load(Ordering::SeqCst) > self.generation {
                return "a newer pool process has taken over";
            }
            if self.act(message).await.is_err() {
                return "nothing can be sent";
            }
        }
    }

    async fn act(&self, message: ToContainer) -> Result<(), Closed> {
        match message {
            ToContainer::Hello { .. } => Ok(()),
            ToContainer::Open { slot, holder } => {
                let epoch = holder.lease.epoch();
                let opened = match self.server.slot(slot) {
                    Some(it) => it.open(holder),
                    None => Err(no_such(slot)),
                };
                self.send(match opened {
                    Ok(()) => FromContainer::Opened { slot, epoch },
                    Err(why) => FromContainer::Shut { slot, epoch, why },
                })
                .await
            }
            ToContainer::Reset { slot, epoch } => self.reset(slot, epoch).await,
            ToContainer::Call(call) => self.call(*call).await,
            ToContainer::Cancel { call } => {
                if let Some(stop) = self.calls().get(&call) {
                    stop.stop(CausedBy::Client);
                }
                Ok(())
            }
            ToContainer::Ping { seq } => self.send(FromContainer::Pong { seq }).await,
            ToContainer::Shutdown { grace_ms } => {
                // The first one stands.
                let _ = self.server.grace.set(Duration::from_millis(grace_ms));
                // At once: the frames that follow come after it.
                self.server.draining.cancel();
                self.server.stop.cancel();
                Ok(())
            }
        }
    }

    async fn reset(&self, index: SlotIndex, epoch: Epoch) -> Result<(), Closed> {
        let shut = match self.server.slot(index) {
            Some(slot) => slot.shut(epoch, CausedBy::Client).map(|shut| (Arc::clone(slot), shut)),
            None => Err(no_such(index)),
        };
        match shut {
            Err(why) => self.send(FromContainer::Dirty { slot: index, epoch, why }).await,
            Ok((_, Shut::CleanAlready)) => {
                self.send(FromContainer::Clean { slot: index, epoch }).await
            }
            Ok((slot, Shut::ToBeEmptied)) => {
                let link = self.clone();
                tokio::spawn(async move {
                    let answer = match slot.empty(epoch).await {
                        Ok(()) => FromContainer::Clean { slot: index, epoch },
                        Err(why) => FromContainer::Dirty { slot: index, epoch, why },
                    };
                    // A closed link: the report of the next one says it.
                    let _ = link.send(answer).await;
                });
                Ok(())
            }
        }
    }

    async fn call(&self, call: Call) -> Result<(), Closed> {
        let id = call.call;
        match self.begin(call) {
            Err(problem) => {
                self.send(FromContainer::Refused { call: id, problem: Box::new(problem) }).await
            }
            Ok(()) => Ok(()),
        }
    }

    fn begin(&self, call: Call) -> Result<(), Problem> {
        let Call { call: id, slot, epoch, execution_id, tool, limits, stream } = call;
        if self.server.draining.is_cancelled() {
            return Err(Problem::new(Code::ShuttingDown, "the container is shutting down"));
        }
        let slot: &Arc<Slot> =
            self.server.slot(slot).ok_or_else(|| Problem::new(Code::UnknownSlot, no_such(slot)))?;
        let max = self.server.settings.limits.timeout_ms_max;
        if limits.timeout_ms > max {
            let text = format!("a call has at most {} seconds", max / 1_000);
            return Err(Problem::new(Code::Invalid, text).at("timeout_s"));
        }
        if limits.head_bytes_max.saturating_add(limits.tail_bytes_max) > KEPT_BYTES_MAX {
            let text = format!("at most {KEPT_BYTES_MAX} bytes of a stream are kept");
            return Err(Problem::new(Code::Invalid, text).at("limits"));
        }
        let request = Request {
            scope: Scope::Lease(epoch),
            execution_id: Some(execution_id.clone()),
            tool,
            limits,
            network: Network::On,
        };
        let mut begun = slot.begin(request)?;
        if let Some(stop) = begun.stop() {
            self.calls().insert(id, stop);
        }
        let link = self.clone();
        let chunks = stream.then(|| {
            let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
            begun.stream_to(sender);
            chunks
        });
        tokio::spawn(async move {
            let passed = link.pass(id, chunks);
            let (answer, ()) = tokio::join!(begun.answer(), passed);
            link.calls().remove(&id);
            let isolation = link.server.isolation;
            let message = match answer {
                Ok(outcome) => {
                    let result = Box::new(outcome.to_result(execution_id, isolation));
                    FromContainer::Done { call: id, result }
                }
                Err(problem) => FromContainer::Refused { call: id, problem: Box::new(problem) },
            };
            // A closed link: the pool asks again, and the slot remembers.
            let _ = link.send(message).await;
        });
        Ok(())
    }

    /// Output of a call that runs. A pool that does not take it holds up the command.
    async fn pass(&self, call: CallId, chunks: Option<mpsc::Receiver<Chunk>>) {
        let Some(mut chunks) = chunks else { return };
        while let Some(Chunk { stream, data }) = chunks.recv().await {
            let output = FromContainer::Output { call, stream: stream.into(), bytes: data };
            if self.send(output).await.is_err() {
                return;
            }
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, Stop>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, message: FromContainer) -> Result<(), Closed> {
        self.outgoing.send(message).await.map_err(|_| Closed)
    }
}

struct Closed;

fn no_such(slot: SlotIndex) -> String {
    format!("there is no {slot} in this container")
}
