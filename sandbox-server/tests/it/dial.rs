//! A pool's side of the Link, as plain as can be.

use crate::server::{LIMIT, Server};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use slotmux_protocol::{
    BashArgs, CallLimits, Code, Decoder, Epoch, ExecutionId, LINK_VERSION, LeaseId, ProfileName,
    SlotIndex, ToolCall, ToolResult, TrajectoryId, encode,
    link::{Call, CallId, FromContainer, Holder, ToContainer},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Bytes, Message, client::IntoClientRequest},
};

pub(crate) struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    decoder: Decoder,
    /// The other side's words when it closed the link.
    pub(crate) closed_because: Option<String>,
    next_call: u64,
    early: Vec<(CallId, ToolResult)>,
}

impl Link {
    pub(crate) async fn dial(server: &Server) -> Self {
        Self::try_dial(server).await.unwrap()
    }

    pub(crate) async fn try_dial(server: &Server) -> Result<Self, String> {
        let url = format!("ws://{}/v1/link", server.authority);
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = &server.token {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
        }
        let (socket, _) = connect_async_with_config(request, None, true)
            .await
            .map_err(|error| error.to_string())?;
        let decoder = Decoder::new(64 << 20);
        Ok(Self { socket, decoder, closed_because: None, next_call: 1_000_000, early: Vec::new() })
    }

    /// Linked, with every slot open for epoch 1.
    pub(crate) async fn leased(server: &Server, slots: u16) -> Self {
        let mut link = Self::dial(server).await;
        link.hello(1).await;
        for slot in 0..slots {
            link.open(slot, 1).await;
        }
        link
    }

    pub(crate) async fn send_hello(&mut self, generation: u64) {
        let pool = "pool".to_owned();
        let hello =
            ToContainer::Hello { version: LINK_VERSION, pool, generation, heartbeat_ms: 60_000 };
        self.send(hello).await;
    }

    pub(crate) async fn hello(&mut self, generation: u64) -> FromContainer {
        self.send_hello(generation).await;
        self.next().await
    }

    pub(crate) async fn send(&mut self, message: ToContainer) {
        let mut bytes = BytesMut::new();
        encode(&message, usize::MAX, &mut bytes).unwrap();
        // A link that was closed meanwhile shows when it is read.
        let _ = self.socket.send(Message::Binary(bytes.freeze())).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &'static [u8]) {
        let _ = self.socket.send(Message::Binary(Bytes::from_static(bytes))).await;
    }

    pub(crate) async fn send_text(&mut self, text: &'static str) {
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> FromContainer {
        self.try_next().await.expect("the link is closed")
    }

    /// `None`: the link is closed.
    pub(crate) async fn try_next(&mut self) -> Option<FromContainer> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            let message = timeout(LIMIT, self.socket.next()).await.expect("nothing comes");
            match message?.ok()? {
                Message::Binary(bytes) => self.decoder.push(&bytes),
                Message::Close(frame) => {
                    self.closed_because = frame.map(|it| it.reason.to_string());
                    return None;
                }
                _ => {}
            }
        }
    }

    pub(crate) async fn open(&mut self, slot: u16, epoch: u64) {
        self.send(ToContainer::Open { slot: SlotIndex(slot), holder: holder(epoch) }).await;
        let opened = FromContainer::Opened { slot: SlotIndex(slot), epoch: Epoch(epoch) };
        assert_eq!(self.next().await, opened);
    }

    /// The slot cannot be opened for this epoch.
    pub(crate) async fn shut(&mut self, slot: u16, epoch: u64) {
        self.send(ToContainer::Open { slot: SlotIndex(slot), holder: holder(epoch) }).await;
        let answer = self.next().await;
        let FromContainer::Shut { why, .. } = &answer else { panic!("{answer:?}") };
        assert!(!why.is_empty());
    }

    pub(crate) async fn reset_to_clean(&mut self, slot: u16, epoch: u64) {
        let (slot, epoch) = (SlotIndex(slot), Epoch(epoch));
        self.send(ToContainer::Reset { slot, epoch }).await;
        assert_eq!(self.next().await, FromContainer::Clean { slot, epoch });
    }

    pub(crate) async fn call(&mut self, call: u64, slot: u16, epoch: u64, command: &str) {
        self.call_as(&format!("execution-{call}"), call, slot, epoch, command).await;
    }

    pub(crate) async fn call_as(
        &mut self,
        execution: &str,
        call: u64,
        slot: u16,
        epoch: u64,
        command: &str,
    ) {
        let call = call_of(execution, call, slot, epoch, command, CallLimits::default());
        self.send(ToContainer::Call(Box::new(call))).await;
    }

    pub(crate) async fn call_within(
        &mut self,
        call: u64,
        slot: u16,
        epoch: u64,
        command: &str,
        limits: CallLimits,
    ) {
        let call = call_of(&format!("execution-{call}"), call, slot, epoch, command, limits);
        self.send(ToContainer::Call(Box::new(call))).await;
    }

    /// Of one call; results of one slot may overtake one another on their way.
    pub(crate) async fn done_of(&mut self, call: u64) -> ToolResult {
        loop {
            if let Some(at) = self.early.iter().position(|it| it.0 == CallId(call)) {
                return self.early.remove(at).1;
            }
            let done = self.done().await;
            self.early.push(done);
        }
    }

    pub(crate) async fn done(&mut self) -> (CallId, ToolResult) {
        match self.next().await {
            FromContainer::Done { call, result } => (call, *result),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn run(&mut self, slot: u16, epoch: u64, command: &str) -> ToolResult {
        self.next_call += 1;
        let call = self.next_call;
        self.call(call, slot, epoch, command).await;
        let (done, result) = self.done().await;
        assert_eq!(done, CallId(call));
        result
    }

    pub(crate) async fn refused(&mut self, slot: u16, epoch: u64, code: Code) {
        self.next_call += 1;
        let call = self.next_call;
        self.call(call, slot, epoch, "touch refused").await;
        let answer = self.next().await;
        let FromContainer::Refused { call: of, problem } = &answer else { panic!("{answer:?}") };
        assert_eq!((*of, problem.code), (CallId(call), code), "{problem:?}");
    }
}

pub(crate) fn holder(epoch: u64) -> Holder {
    Holder {
        lease: LeaseId(Epoch(epoch)),
        trajectory: TrajectoryId::new("trajectory").unwrap(),
        profile: ProfileName::new("default").unwrap(),
        ttl_ms: 60_000,
    }
}

pub(crate) fn call_of(
    execution: &str,
    call: u64,
    slot: u16,
    epoch: u64,
    command: &str,
    limits: CallLimits,
) -> Call {
    Call {
        call: CallId(call),
        slot: SlotIndex(slot),
        epoch: Epoch(epoch),
        execution_id: ExecutionId::new(execution).unwrap(),
        tool: ToolCall::Bash(BashArgs::new(command)),
        limits,
        stream: false,
    }
}
