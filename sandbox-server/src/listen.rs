//! Connections: accepted, bounded, and ended in an orderly way.
//!
//! Invariant: whoever connects and then says nothing, or says it slowly, holds his seat for no
//! longer than `head_wait`. An upgraded connection (the Link) gives its seat back.

mod door;
mod holders;
mod peer;

use door::Refused;
pub(crate) use door::{Door, Slots};
pub(crate) use peer::is_own;

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

/// After a failed accept, which mostly means that no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Of a request's head, and of what is read of a body at once.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// How long, and for how many pieces of its request, one that is refused keeps its seat.
const REFUSED_WAIT: Duration = Duration::from_millis(500);
const REFUSED_READS_MAX: usize = 16;
/// At a time; others are hung up on.
const TURNED_AWAY_MAX: usize = 32;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Seats {
    /// Further clients wait in the listener's backlog.
    pub(crate) connections_max: usize,
    /// How long a client may take to send the head of a request, also on an idle connection: a
    /// little longer than clients keep one (aiohttp: 15 s), so that it is they who close it.
    pub(crate) head_wait: Duration,
}

impl Default for Seats {
    fn default() -> Self {
        Self { connections_max: 1_024, head_wait: Duration::from_secs(16) }
    }
}

/// Accepts until `draining`; ends when every request that was begun by then is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    seats: Seats,
    door: Door,
    draining: CancellationToken,
) {
    let free = Arc::new(Semaphore::new(seats.connections_max));
    let connections = TaskTracker::new();
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let mut fails = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &free) => accepted,
            () = draining.cancelled() => break,
        };
        match accepted {
            Ok((stream, seat)) => {
                fails = false;
                let (router, draining) = (router.clone(), draining.clone());
                let (door, turned_away) = (door.clone(), Arc::clone(&turned_away));
                connections.spawn(async move {
                    match door.admit(&stream).await {
                        Ok(()) => connection(stream, router, seats.head_wait, draining).await,
                        Err(refused) => {
                            // Who is not let in keeps nobody's seat; and is told so if there is
                            // time for it.
                            drop(seat);
                            if let Ok(_place) = turned_away.try_acquire() {
                                turn_away(stream, refused).await;
                            }
                        }
                    }
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                // Once for each time of trouble: it may go on for long.
                if !fails {
                    tracing::warn!(%error, "connections cannot be accepted");
                }
                fails = true;
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    () = draining.cancelled() => break,
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let seat = Arc::clone(free).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small and somebody waits for each. Fails when the client is gone already.
    let _ = stream.set_nodelay(true);
    Ok((stream, seat))
}

/// It hung up before it was accepted: the next one may do better.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Says why, whatever it came to ask: nothing of it is looked at.
async fn turn_away(mut stream: TcpStream, refused: Refused) {
    tracing::warn!(why = %refused, "connection refused");
    let body = serde_json::json!({ "success": false, "error": refused.to_string() }).to_string();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closed with something unread, a connection loses what was said last.
        let mut scrap = [0; 4_096];
        for _ in 0..REFUSED_READS_MAX {
            if stream.read(&mut scrap).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Who is refused may hang up as he likes, or not at all.
    let _ = timeout(REFUSED_WAIT, said).await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    head_wait: Duration,
    draining: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_wait)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients hang up as they like.
        tracing::debug!(error = %crate::chain(&error), "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::task::JoinHandle;

    const LIMIT: Duration = Duration::from_secs(20);

    struct Served {
        address: SocketAddr,
        draining: CancellationToken,
        serving: JoinHandle<()>,
        go: CancellationToken,
    }

    /// `/` answers at once, `/slow` when `go` says so.
    async fn served(connections_max: usize, head_wait: Duration) -> Served {
        let go = CancellationToken::new();
        let gate = go.clone();
        let slow = async move || {
            gate.cancelled().await;
            "slow"
        };
        let router = Router::new().route("/", get(async || "fast")).route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let draining = CancellationToken::new();
        let seats = Seats { connections_max, head_wait };
        let serving = tokio::spawn(serve(listener, router, seats, Door::Open, draining.clone()));
        Served { address, draining, serving, go }
    }

    impl Served {
        async fn send(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            stream
        }
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // A reset is an end as well.
        let _ = timeout(LIMIT, stream.read_to_string(&mut text)).await.expect("it is closed");
        text
    }

    const FAST: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: h\r\n\r\n";

    #[tokio::test]
    async fn half_a_head_is_let_go_and_gives_its_seat_to_who_waits() {
        let served = served(1, Duration::from_millis(100)).await;
        let half = served.send("GET / HTT").await;
        let waiting = served.send(FAST).await;
        assert!(rest(waiting).await.ends_with("fast"));
        assert!(!rest(half).await.contains("fast"));
    }

    #[tokio::test]
    async fn a_slow_answer_outlasts_the_wait_for_heads() {
        let served = served(2, Duration::from_millis(20)).await;
        let slow = served.send(SLOW).await;
        // Let go after that time, and after the slow one had as much.
        rest(served.send("GET").await).await;
        served.go.cancel();
        assert!(rest(slow).await.ends_with("slow"));
    }

    #[tokio::test]
    async fn over_the_limit_clients_wait_until_a_seat_is_free() {
        let served = served(2, LIMIT).await;
        let held = [served.send(SLOW).await, served.send(SLOW).await];
        let mut late = served.send(FAST).await;
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(100), late.read(&mut byte)).await.is_err());
        drop(held);
        served.go.cancel();
        assert!(rest(late).await.ends_with("fast"));
    }

    #[tokio::test]
    async fn draining_answers_what_was_begun_and_closes_what_is_idle() {
        let served = served(8, LIMIT).await;
        let idle = served.send("").await;
        let mut used = served.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut byte = [0];
        used.read_exact(&mut byte).await.unwrap();
        let slow = served.send(SLOW).await;
        // Accepted in order: when this is answered the slow one has been accepted.
        rest(served.send(FAST).await).await;
        served.draining.cancel();
        rest(idle).await;
        rest(used).await;
        let refused = async {
            while TcpStream::connect(served.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, refused).await.expect("nobody is accepted any more");
        assert!(!served.serving.is_finished());
        served.go.cancel();
        assert!(rest(slow).await.ends_with("slow"));
        timeout(LIMIT, served.serving).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn a_head_over_the_limit_is_refused() {
        let served = served(1, LIMIT).await;
        let head = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(200 << 10));
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // It may be refused while it is still being sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let text = rest(stream).await;
        assert!(text.is_empty() || text.contains("431"), "{text}");
        assert!(rest(served.send(FAST).await).await.ends_with("fast"));
    }
}
