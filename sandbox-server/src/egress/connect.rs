//! From the name of a host to a connection with an address that was checked.

use super::{
    Egress,
    rules::{Host, Refused},
};
use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore, task::spawn_blocking, time::timeout};

const RESOLVE_WAIT: Duration = Duration::from_secs(10);
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Of a name's addresses, those that are tried.
const ADDRESSES_MAX: usize = 4;
/// Of all slots. A lookup takes a thread for as long as it takes, also when nobody waits any more.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{host}:{port} is this sandbox-server, which slots do not call")]
    OwnServer { host: Host, port: u16 },
    #[error("{0} cannot be resolved")]
    Unresolved(String, #[source] io::Error),
    #[error("{host}:{port} cannot be connected to")]
    Unreachable { host: Host, port: u16, source: io::Error },
}

impl Egress {
    pub(super) async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, ConnectError> {
        let rule = self.allowed.permits_host(host, port)?;
        let ips = match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => resolve(name)
                .await
                .map_err(|error| ConnectError::Unresolved(name.clone(), error))?,
        };
        self.connect_to(&ips, host, rule, port).await
    }

    /// Tries those of the addresses that may be reached.
    async fn connect_to(
        &self,
        ips: &[IpAddr],
        host: &Host,
        rule: &str,
        port: u16,
    ) -> Result<TcpStream, ConnectError> {
        let none = io::Error::other("it has no addresses");
        let mut last = ConnectError::Unresolved(host.to_string(), none);
        for ip in ips.iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(ip.to_canonical(), port);
            if let Err(refused) = self.allowed.permits_address(host, rule, address.ip(), port) {
                last = refused.into();
                continue;
            }
            if port == self.own_port && crate::listen::is_own(address) {
                last = ConnectError::OwnServer { host: host.clone(), port };
                continue;
            }
            let connected = timeout(CONNECT_WAIT, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    // Whoever is at the other end waits. Fails when it is gone already.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(source) => {
                    last = ConnectError::Unreachable { host: host.clone(), port, source };
                }
            }
        }
        Err(last)
    }
}

async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let name = name.to_owned();
    let looked_up = async {
        let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
        let looking = spawn_blocking(move || {
            let _permit = permit;
            // With a dot at its end no search domain is tried: it is the name that was checked.
            let found = (format!("{name}."), 0).to_socket_addrs();
            found.or_else(|_| (name, 0).to_socket_addrs())
        });
        let found = looking.await.map_err(io::Error::other)??;
        Ok(found.map(|it| it.ip()).collect())
    };
    let found = timeout(RESOLVE_WAIT, looked_up).await;
    found.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::AllowList;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    fn egress(rules: &[&str], own_port: u16) -> Egress {
        let rules: Vec<_> = rules.iter().map(|it| (*it).to_owned()).collect();
        Egress { allowed: Arc::new(AllowList::parse(&rules).unwrap()), own_port }
    }

    #[tokio::test]
    async fn a_name_that_means_a_closed_address_now_is_refused_and_an_open_one_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = Host::parse("rebound.example").unwrap();
        let rule = format!("rebound.example:{port}");
        let ips = ["169.254.169.254", "10.0.0.1", "127.0.0.1"].map(|it| it.parse().unwrap());
        let closed = egress(&[&rule], 1);
        let error = closed.connect_to(&ips, &name, &rule, port).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(Refused::NotPublic { .. })), "{error:?}");
        let loopback = format!("127.0.0.1:{port}");
        let open = egress(&[&rule, &loopback], 1);
        let stream = open.connect_to(&ips, &name, &rule, port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn the_server_itself_is_never_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::ffff:127.0.0.1", "127.0.0.9"] {
            let egress = egress(&[&format!("127.0.0.0/8:{port}")], port);
            let host = Host::parse(&format!("[{ip}]")).or_else(|| Host::parse(ip)).unwrap();
            let error = egress.connect(&host, port).await.unwrap_err();
            assert!(matches!(error, ConnectError::OwnServer { .. }), "{ip}: {error:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_listed_is_not_even_looked_up() {
        let host = Host::parse("name.invalid").unwrap();
        let error = egress(&["x.org"], 1).connect(&host, 443).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(Refused::NotListed { .. })), "{error:?}");
        let error = egress(&["name.invalid"], 1).connect(&host, 443).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unresolved(..)), "{error:?}");
    }
}
