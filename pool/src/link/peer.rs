//! A container for tests: a real socket on loopback that says what a test tells it to.

use super::{Link, LinkCall, LinkIdentity, LinkLimits, LinkNews, table::Reply};
use crate::link::Abandoned;
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use slotmux_backend::Address;
use slotmux_protocol::{
    BashArgs, CallLimits, CausedBy, ContainerId, Decoder, Ended, Epoch, ExecutionId, Isolation,
    LINK_VERSION, Network, SlotIndex, ToolCall, ToolResult, Usage, encode,
    link::{Call, CallId, FromContainer, ServerInfo, SlotReport, ToContainer},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// More than any step of a test takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);
const FRAME_MAX: usize = 1 << 30;

pub(crate) struct Server {
    listener: TcpListener,
}

/// One connection of a pool, after its hello.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    decoder: Decoder,
}

pub(crate) fn container() -> ContainerId {
    ContainerId::new("c-1").unwrap()
}

pub(crate) fn info(boot: &str) -> ServerInfo {
    ServerInfo {
        container: container(),
        version: "1".into(),
        boot_id: boot.into(),
        isolation: Isolation::Uid,
        network: Network::Off,
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> Address {
        let authority = self.listener.local_addr().unwrap().to_string();
        Address { authority, token: "s3cret".into() }
    }

    /// A link to this server, and its news.
    pub(crate) fn link(&self, heartbeat: Duration) -> (Link, mpsc::UnboundedReceiver<LinkNews>) {
        self.link_within(LinkLimits::default(), heartbeat)
    }

    pub(crate) fn link_within(
        &self,
        limits: LinkLimits,
        heartbeat: Duration,
    ) -> (Link, mpsc::UnboundedReceiver<LinkNews>) {
        let (told, news) = mpsc::unbounded_channel();
        let identity = LinkIdentity { pool: "p".into(), generation: 3 };
        let tell = Arc::new(move |news| drop(told.send(news)));
        let link =
            Link::dial_within(limits, container(), self.address(), identity, heartbeat, tell);
        (link, news)
    }

    /// The next connection, with the pool's hello read and checked.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = timeout(LONG, self.listener.accept()).await.unwrap().unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/v1/link");
            assert_eq!(request.headers()["authorization"], "Bearer s3cret");
            Ok(response)
        };
        let socket = accept_hdr_async(stream, check).await.unwrap();
        let mut peer = Peer { socket, decoder: Decoder::new(FRAME_MAX) };
        let hello = peer.next().await.unwrap();
        let ToContainer::Hello { version, pool, generation, .. } = hello else {
            panic!("{hello:?}");
        };
        assert_eq!((version, pool.as_str(), generation), (LINK_VERSION, "p", 3));
        peer
    }

    /// Accepts, says hello, and answers every call by `answer` until the pool hangs up. What it
    /// does not answer runs until it is cancelled.
    pub(crate) fn answering(
        self,
        boot: &'static str,
        answer: impl Fn(&Call) -> Option<Reply> + Send + 'static,
    ) {
        tokio::spawn(async move {
            loop {
                let mut peer = self.accept().await;
                peer.hello(boot).await;
                let mut running: HashMap<CallId, Call> = HashMap::new();
                while let Some(message) = peer.next().await {
                    let settled = match message {
                        ToContainer::Call(call) => {
                            let Some(answer) = answer(&call) else {
                                running.insert(call.call, *call);
                                continue;
                            };
                            settled(call.call, answer)
                        }
                        ToContainer::Cancel { call } => {
                            let Some(running) = running.remove(&call) else { continue };
                            settled(call, Ok(cancelled(&running)))
                        }
                        _ => continue,
                    };
                    peer.send(&[settled]).await;
                }
            }
        });
    }
}

impl Peer {
    pub(crate) async fn hello(&mut self, boot: &str) {
        self.hello_with(LINK_VERSION, info(boot), Vec::new()).await;
    }

    pub(crate) async fn hello_with(
        &mut self,
        version: u32,
        server: ServerInfo,
        slots: Vec<SlotReport>,
    ) {
        self.send(&[FromContainer::Hello { version, server, slots }]).await;
    }

    /// All in one WebSocket message.
    pub(crate) async fn send(&mut self, messages: &[FromContainer]) {
        let mut bytes = BytesMut::new();
        for message in messages {
            encode(message, FRAME_MAX, &mut bytes).unwrap();
        }
        self.send_bytes(bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: BytesMut) {
        // A pool that hung up is what some tests are about.
        let _ = self.socket.send(Message::Binary(bytes.freeze())).await;
    }

    pub(crate) async fn close(mut self, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::Policy, reason: reason.into() };
        self.socket.close(Some(frame)).await.unwrap();
    }

    /// The next message, pings included, or `None` when the pool hung up.
    pub(crate) async fn next(&mut self) -> Option<ToContainer> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            assert_eq!(self.decoder.pending_bytes(), 0, "a message splits a frame");
            match timeout(LONG, self.socket.next()).await.unwrap() {
                Some(Ok(Message::Binary(bytes))) => self.decoder.push(&bytes),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn next_but_ping(&mut self) -> Option<ToContainer> {
        loop {
            match self.next().await {
                Some(ToContainer::Ping { .. }) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn next_call(&mut self) -> Call {
        match self.next_but_ping().await {
            Some(ToContainer::Call(call)) => *call,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn settled(call: CallId, answer: Reply) -> FromContainer {
    match answer {
        Ok(result) => FromContainer::Done { call, result: Box::new(result) },
        Err(problem) => FromContainer::Refused { call, problem: Box::new(problem) },
    }
}

pub(crate) fn bash(slot: u16, id: &str, command: &str) -> LinkCall {
    LinkCall {
        slot: SlotIndex(slot),
        epoch: Epoch(7),
        execution_id: ExecutionId::new(id).unwrap(),
        tool: ToolCall::Bash(BashArgs::new(command)),
        limits: CallLimits::default(),
        abandoned: Abandoned::RunOn,
        output: None,
        beating: None,
    }
}

fn cancelled(call: &Call) -> ToolResult {
    let (ended, caused_by) = (Ended::Cancelled, CausedBy::Client);
    ToolResult { success: false, exit_code: None, ended, caused_by, ..done(call, "") }
}

/// A command that went well.
pub(crate) fn done(call: &Call, output: &str) -> ToolResult {
    ToolResult {
        execution_id: call.execution_id.clone(),
        success: true,
        output: output.into(),
        data: None,
        error: String::new(),
        ended: Ended::Exited,
        caused_by: CausedBy::Policy,
        exit_code: Some(0),
        signal: None,
        isolation: Isolation::Uid,
        network: Network::Off,
        usage: Usage::default(),
    }
}
