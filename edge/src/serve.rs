//! Connections: accepted, bounded, and ended in an orderly way.

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

/// After a failed accept, which mostly means that no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeSettings {
    /// Further clients wait in the listener's backlog.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, also on an idle connection.
    pub head_wait: Duration,
    /// How long requests may go on after the shutdown began.
    pub grace: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            head_wait: Duration::from_mins(5),
            grace: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown`, then lets running requests end within the grace period.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServeSettings,
    shutdown: CancellationToken,
) {
    let seats = Arc::new(Semaphore::new(settings.connections_max));
    let connections = TaskTracker::new();
    // Ends what is left after the grace period.
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &seats) => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, seat)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                let connection = async move {
                    connection(stream, router, settings.head_wait, shutdown).await;
                    drop(seat);
                };
                let cut = cut.clone();
                connections.spawn(async move { cut.run_until_cancelled(connection).await });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(settings.grace, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests cut off at shutdown");
        cut.cancel();
        connections.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Fails when the client is gone already, which reading will tell.
    let _ = stream.set_nodelay(true);
    Ok((stream, seat))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    head_wait: Duration,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_wait)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients hang up as they like.
        tracing::debug!(%error, "connection ended");
    }
}
