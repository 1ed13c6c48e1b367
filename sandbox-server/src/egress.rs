//! The way out of a slot whose network is an allow-list: a forward proxy of its own.
//!
//! The slot has a network namespace with nothing but loopback. Its init opens a listening socket in
//! there and hands it to the server, which accepts from outside and connects to what the list
//! allows: `CONNECT` for any protocol, and plain HTTP.
//!
//! Invariant: a connection goes to an address that was itself checked, for a name or address that
//! a rule names, or nowhere; and it ends with the slot.

mod address;
mod connect;
mod idle;
mod proxy;
mod rules;

pub(crate) use rules::{AllowList, RuleError};

use proxy::Proxy;
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where a slot finds it, inside.
pub(crate) const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3_128);
/// Not `ALL_PROXY`: it stands for more than is spoken here.
const VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
const DIRECT_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];
const DIRECT: &str = "localhost,127.0.0.1,::1";

/// What programs look at to find a proxy.
pub(crate) fn variables() -> impl Iterator<Item = (&'static str, String)> {
    let proxied = VARIABLES.iter().map(|name| (*name, format!("http://{ADDRESS}")));
    proxied.chain(DIRECT_VARIABLES.iter().map(|name| (*name, DIRECT.to_owned())))
}

/// For the init of a slot, in its network namespace and before its walls.
pub(crate) fn open_inside() -> io::Result<OwnedFd> {
    let listener = TcpListener::bind(ADDRESS)?;
    Ok(listener.into())
}

/// What the proxies of all slots have in common.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    pub(crate) allowed: Arc<AllowList>,
    /// The server's own, which no slot comes to, whatever is allowed.
    pub(crate) own_port: u16,
}

/// A proxy that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    _end: DropGuard,
}

impl Egress {
    /// Serves a slot by the socket that was opened inside of it.
    pub(crate) fn serve(&self, slot_dir: &Path, listener: OwnedFd) -> io::Result<Serving> {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let end = CancellationToken::new();
        let slot = slot_dir.file_name().unwrap_or_default().to_string_lossy();
        let proxy = Proxy::new(&slot, self.clone(), end.clone());
        tokio::spawn(proxy.serve(listener));
        Ok(Serving { _end: end.drop_guard() })
    }
}
