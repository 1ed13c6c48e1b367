//! Over real connections: what only shows there.

use super::fake::FakePool;
use crate::{
    api::{ApiSettings, ServeSettings, serve},
    link::peer::LONG,
};
use serde_json::json;
use slotmux_protocol::v1::EventKind;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

async fn served(pool: &FakePool, settings: ServeSettings) -> Served {
    let shutdown = CancellationToken::new();
    let api = ApiSettings { closing: shutdown.clone(), ..ApiSettings::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = pool.app(api).0;
    let server = tokio::spawn(serve(listener, router, settings, shutdown.clone()));
    Served { address, shutdown, server }
}

impl Served {
    async fn send(&self, head: &str, body: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let text = format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        BufReader::new(stream)
    }

    async fn ended(self) {
        timeout(LONG, self.server).await.unwrap().unwrap();
    }
}

/// Lines until one that begins so.
async fn line(stream: &mut BufReader<TcpStream>, beginning: &str) -> String {
    loop {
        let mut line = String::new();
        let read = timeout(LONG, stream.read_line(&mut line)).await.unwrap().unwrap();
        assert!(read > 0, "the stream ended before `{beginning}`");
        if line.starts_with(beginning) {
            return line.trim_end().to_owned();
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, wait).await.unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_the_call_it_cannot_name() {
    let pool = FakePool::start().await;
    let served = served(&pool, ServeSettings::default()).await;
    let lease = pool.grant("t");
    let pulse = pool.route(lease).pulse;
    let body = json!({"tool": "bash", "args": {"command": "hang"}}).to_string();
    let stream = served.send("POST /v1/leases/lease-1/execute", &body).await;
    until(|| pulse.running() == 1).await;
    drop(stream);
    // The container was told, and has answered.
    until(|| pulse.running() == 0).await;
    assert_eq!(pool.calls(), 0);
}

#[tokio::test]
async fn a_call_that_its_client_can_name_runs_on_and_keeps_the_lease_alive() {
    let pool = FakePool::start().await;
    let served = served(&pool, ServeSettings::default()).await;
    let lease = pool.grant("t");
    let pulse = pool.route(lease).pulse;
    let named = |command: &str, id: &str| {
        json!({"tool": "bash", "args": {"command": command}, "execution_id": id}).to_string()
    };
    let head = "POST /v1/leases/lease-1/execute";
    let stream = served.send(head, &named("hang", "mine")).await;
    until(|| pulse.running() == 1).await;
    drop(stream);
    // A later call is sent after whatever the hanging up caused.
    let mut later = served.send(head, &named("ls", "another")).await;
    line(&mut later, "HTTP").await;
    assert_eq!(pulse.running(), 1);
}

#[tokio::test]
async fn events_are_streamed_filtered_and_end_with_the_server() {
    let pool = FakePool::start().await;
    let served = served(&pool, ServeSettings::default()).await;
    let mut all = served.send("GET /v1/events", "").await;
    let mut mine = served.send("GET /v1/events?lease_id=lease-2", "").await;
    until(|| pool.listeners() == 2).await;
    let (first, second) = (pool.grant("a"), pool.grant("b"));
    pool.happen(1, EventKind::LeaseAcquired, Some(first));
    pool.happen(2, EventKind::LeaseRevoked, Some(second));
    assert_eq!(line(&mut all, "event:").await, "event: lease_acquired");
    assert_eq!(line(&mut all, "event:").await, "event: lease_revoked");
    assert_eq!(line(&mut mine, "event:").await, "event: lease_revoked");
    assert_eq!(line(&mut mine, "id:").await, "id: 2");
    let wrong = served.send("GET /v1/events?lease_id=2", "").await;
    assert!(line(&mut { wrong }, "HTTP").await.starts_with("HTTP/1.1 422"));
    served.shutdown.cancel();
    timeout(LONG, all.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    served.ended().await;
}

#[tokio::test]
async fn running_requests_end_before_the_server_and_new_ones_are_not_taken() {
    let pool = FakePool::start().await;
    let served = served(&pool, ServeSettings::default()).await;
    let lease = pool.grant("t");
    let body = json!({"tool": "bash", "args": {"command": "hang"}}).to_string();
    let mut stream = served.send("POST /v1/leases/lease-1/execute", &body).await;
    until(|| pool.calls() == 1).await;
    served.shutdown.cancel();
    let refused = async {
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, refused).await.unwrap();
    pool.end(lease, crate::routes::LeaseEnd::Released);
    assert!(line(&mut stream, "HTTP").await.starts_with("HTTP/1.1 200"));
    served.ended().await;
}

#[tokio::test]
async fn requests_that_outlast_the_grace_period_are_cut_off() {
    let pool = FakePool::start().await;
    let settings = ServeSettings { grace: Duration::ZERO, ..ServeSettings::default() };
    let served = served(&pool, settings).await;
    pool.grant("t");
    let body = json!({"tool": "bash", "args": {"command": "hang"}}).to_string();
    let mut stream = served.send("POST /v1/leases/lease-1/execute", &body).await;
    until(|| pool.calls() == 1).await;
    served.shutdown.cancel();
    served.ended().await;
    // Nothing was answered.
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_seat() {
    let pool = FakePool::start().await;
    let settings = ServeSettings { connections_max: 1, ..ServeSettings::default() };
    let served = served(&pool, settings).await;
    let mut first = served.send("GET /health", "").await;
    line(&mut first, "HTTP").await;
    let mut second = served.send("GET /health", "").await;
    let waited = timeout(Duration::from_millis(50), second.fill_buf()).await;
    assert!(waited.is_err(), "served beside the first");
    drop(first);
    assert!(line(&mut second, "HTTP").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_though_the_client_goes_on_sending() {
    let pool = FakePool::start().await;
    let served = served(&pool, ServeSettings::default()).await;
    let body = "x".repeat((16 << 20) + 1);
    let mut stream = served.send("POST /v1/leases", &body).await;
    assert!(line(&mut stream, "HTTP").await.starts_with("HTTP/1.1 413"));
}
