//! What serves HTTP, whatever it serves.

use crate::{fault::Fault, settings::Listen};
use axum::Router;
use slotmux_edge::{ServeSettings, serve};
use std::io;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Routes that are served.
pub(crate) struct Api {
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Api {
    /// Until `closing`, which also ends what waits in there.
    pub(crate) fn start(listener: TcpListener, routes: Router, closing: CancellationToken) -> Self {
        let serving = serve(listener, routes, ServeSettings::default(), closing.clone());
        Self { closing, serving: tokio::spawn(serving) }
    }

    pub(crate) async fn stop(self) {
        self.closing.cancel();
        // It ends by itself, or it panicked, which was logged.
        let _ = self.serving.await;
    }
}

pub(crate) async fn listen(at: Listen) -> Result<TcpListener, Fault> {
    let address = at.address();
    TcpListener::bind(address).await.map_err(|error| {
        let fault = Fault::because(format!("listen on {address}"), &error);
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                fault.hint("another program listens there; choose a port with --listen")
            }
            io::ErrorKind::PermissionDenied => fault.hint("ports below 1024 are for root"),
            io::ErrorKind::AddrNotAvailable => fault.hint("this machine has no such address"),
            _ => fault,
        }
    })
}
