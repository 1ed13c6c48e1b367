//! Containers that speak the link over loopback, and have nothing in their slots.

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use slotmux_backend::{
    Address,
    fake::{FakeBackend, FakeRuntime},
};
use slotmux_pool::{PoolConfig, ProfileConfig};
use slotmux_protocol::{
    ContainerId, Decoder, Epoch, Isolation, LINK_VERSION, Network, ProfileName, SlotIndex, encode,
    link::{FromContainer, ServerInfo, SlotReport, SlotState, ToContainer},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

const FRAME_MAX: usize = 16 << 20;
pub(crate) const SLOTS: u16 = 64;

/// A runtime whose containers all answer on one port; the token says which is meant.
pub(crate) struct Town {
    pub(crate) runtime: FakeRuntime,
    servers: Servers,
}

#[derive(Clone, Default)]
struct Servers(Arc<Mutex<HashMap<ContainerId, Server>>>);

struct Server {
    boot: u64,
    slots: Vec<SlotState>,
}

impl Town {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind loopback");
        let authority = listener.local_addr().expect("a bound port").to_string();
        let servers = Servers::default();
        tokio::spawn(accept(listener, servers.clone()));
        let runtime = FakeRuntime::new(move |container| Address {
            authority: authority.clone(),
            token: container.to_string(),
        });
        Self { runtime, servers }
    }

    pub(crate) fn backend(&self) -> Arc<FakeBackend> {
        Arc::new(self.runtime.backend())
    }

    /// The sandbox-server of a container is killed and started anew.
    pub(crate) fn reboot(&self, container: &ContainerId) {
        self.servers.with(container, |server| {
            server.boot += 1;
            server.slots.fill(SlotState::Clean { fence: Epoch(0) });
        });
    }
}

pub(crate) fn config(slots: u16, containers_max: u32) -> PoolConfig {
    let name = ProfileName::new("default").expect("a name");
    let mut profile = ProfileConfig::new(name, slots, containers_max);
    profile.backoff_min = Duration::from_millis(10);
    PoolConfig::new("town", vec![profile])
}

impl Servers {
    fn with<T>(&self, container: &ContainerId, work: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let clean = SlotState::Clean { fence: Epoch(0) };
        let new = || Server { boot: 1, slots: vec![clean; usize::from(SLOTS)] };
        work(servers.entry(container.clone()).or_insert_with(new))
    }
}

async fn accept(listener: TcpListener, servers: Servers) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, servers.clone()));
    }
}

async fn serve(stream: TcpStream, servers: Servers) {
    let mut token = String::new();
    stream.set_nodelay(true).expect("a socket");
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let header = request.headers()["authorization"].to_str().unwrap_or_default();
        header.trim_start_matches("Bearer ").clone_into(&mut token);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, check).await else { return };
    let container = ContainerId::new(&token).expect("the token is the name");
    let mut decoder = Decoder::new(FRAME_MAX);
    let mut boot = 0;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        decoder.push(&bytes);
        let mut answers = BytesMut::new();
        while let Ok(Some(message)) = decoder.next_message::<ToContainer>() {
            let answer = servers.with(&container, |server| {
                if boot == 0 {
                    boot = server.boot;
                }
                // A connection to a process that is no more.
                (boot == server.boot).then(|| server.answer(message, &container))
            });
            let Some(answer) = answer else { return };
            if let Some(answer) = answer {
                encode(&answer, FRAME_MAX, &mut answers).expect("it fits");
            }
        }
        if !answers.is_empty() && socket.send(Message::Binary(answers.freeze())).await.is_err() {
            return;
        }
    }
}

impl Server {
    fn answer(&mut self, message: ToContainer, container: &ContainerId) -> Option<FromContainer> {
        match message {
            ToContainer::Hello { .. } => Some(FromContainer::Hello {
                version: LINK_VERSION,
                server: ServerInfo {
                    container: container.clone(),
                    version: "1".into(),
                    boot_id: self.boot.to_string(),
                    isolation: Isolation::Namespaces,
                    network: Network::Off,
                },
                slots: (0..)
                    .zip(&self.slots)
                    .map(|(slot, state)| SlotReport { slot: SlotIndex(slot), state: state.clone() })
                    .collect(),
            }),
            ToContainer::Open { slot, holder } => {
                let epoch = holder.lease.epoch();
                let state = &mut self.slots[usize::from(slot.0)];
                match state {
                    SlotState::Clean { fence } if epoch > *fence => {
                        *state = SlotState::Open { holder };
                        Some(FromContainer::Opened { slot, epoch })
                    }
                    SlotState::Open { holder: open } if *open == holder => {
                        Some(FromContainer::Opened { slot, epoch })
                    }
                    _ => Some(FromContainer::Shut { slot, epoch, why: "not clean".into() }),
                }
            }
            ToContainer::Reset { slot, epoch } => {
                self.slots[usize::from(slot.0)] = SlotState::Clean { fence: epoch };
                Some(FromContainer::Clean { slot, epoch })
            }
            ToContainer::Ping { seq } => Some(FromContainer::Pong { seq }),
            ToContainer::Call(_) | ToContainer::Cancel { .. } | ToContainer::Shutdown { .. } => {
                None
            }
        }
    }
}
