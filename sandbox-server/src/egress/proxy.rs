//! The proxy that a slot talks to: `CONNECT`, and requests with an absolute address.
//!
//! What comes from a slot is hostile. It is bounded in connections, in the size of a head, and in
//! time; of bodies no more is held than a buffer, and who does not read is not read for.

use super::{Egress, connect::ConnectError, idle::Idle, rules::Host};
use axum::body::Body;
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::uri::PathAndQuery,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

const CONNECTIONS_MAX: usize = 64;
const HEAD_WAIT: Duration = Duration::from_secs(15);
const HEAD_BYTES_MAX: usize = 32 << 10;
const IDLE_MAX: Duration = Duration::from_mins(5);
/// After a failed accept, which mostly means that no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What concerns one connection only, whatever `Connection` says.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[derive(Clone)]
pub(super) struct Proxy {
    slot: Arc<str>,
    egress: Egress,
    /// Of the slot's time: everything ends with it.
    end: CancellationToken,
}

/// Shared by a connection and the tunnel that it becomes.
type Seat = Arc<OwnedSemaphorePermit>;

impl Proxy {
    pub(super) fn new(slot: &str, egress: Egress, end: CancellationToken) -> Self {
        Self { slot: slot.into(), egress, end }
    }

    pub(super) async fn serve(self, listener: TcpListener) {
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let end = self.end.clone();
        let accepting = async {
            loop {
                // It is never closed.
                let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let proxy = self.clone();
                        self.spawn(async move { proxy.connection(stream, Arc::new(seat)).await });
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                }
            }
        };
        end.run_until_cancelled(accepting).await;
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        tokio::spawn(async move { end.run_until_cancelled(work).await });
    }

    async fn connection(self, stream: TcpStream, seat: Seat) {
        // Fails when the client is gone already.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| {
            let (proxy, seat) = (self.clone(), Arc::clone(&seat));
            async move { Ok::<_, Infallible>(proxy.answer(request, seat).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Idle::new(stream, IDLE_MAX)), service)
            .with_upgrades();
        // Programs hang up as they like.
        let _ = served.await;
    }

    async fn answer(self, request: Request<Incoming>, seat: Seat) -> Response<Body> {
        let slot = Arc::clone(&self.slot);
        let answered = if request.method() == Method::CONNECT {
            self.tunnel(request, seat).await
        } else {
            self.forward(request).await
        };
        answered.unwrap_or_else(|error| {
            tracing::debug!(%slot, error = %crate::chain(&error), "not let out");
            error.into_response()
        })
    }

    async fn tunnel(self, request: Request<Incoming>, seat: Seat) -> Result<Response<Body>, Fault> {
        let authority = request.uri().authority().ok_or(Fault::NoDestination)?;
        let host = Host::parse(authority.host()).ok_or(Fault::NoDestination)?;
        let port = authority.port_u16().ok_or(Fault::NoDestination)?;
        let stream = self.egress.connect(&host, port).await?;
        self.spawn(async move {
            if let Ok(upgraded) = hyper::upgrade::on(request).await {
                let mut outside = Idle::new(stream, IDLE_MAX);
                // Ends as either end likes.
                let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut outside).await;
            }
            drop(seat);
        });
        Ok(Response::new(Body::empty()))
    }

    async fn forward(self, request: Request<Incoming>) -> Result<Response<Body>, Fault> {
        let (host, port, request) = to_origin(request)?;
        let stream = self.egress.connect(&host, port).await?;
        let stream = TokioIo::new(Idle::new(stream, IDLE_MAX));
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(stream)
            .await
            .map_err(Fault::Broken)?;
        self.spawn(async move {
            // What went wrong is told where the answer is read.
            let _ = connection.await;
        });
        let mut response = sender.send_request(request).await.map_err(Fault::Broken)?;
        drop_hop_by_hop(response.headers_mut());
        Ok(response.map(Body::new))
    }
}

/// The request as the server at its destination gets it.
fn to_origin(mut request: Request<Incoming>) -> Result<(Host, u16, Request<Incoming>), Fault> {
    let uri = request.uri();
    if uri.scheme_str() != Some("http") {
        return Err(Fault::NotAbsolute);
    }
    let host = uri.host().and_then(Host::parse).ok_or(Fault::NoDestination)?;
    let port = uri.port_u16().unwrap_or(80);
    // What is asked for decides, and not what the client says besides.
    let named = if port == 80 { host.to_string() } else { format!("{host}:{port}") };
    let named = HeaderValue::try_from(named).map_err(|_| Fault::NoDestination)?;
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    drop_hop_by_hop(request.headers_mut());
    request.headers_mut().insert(header::HOST, named);
    *request.version_mut() = hyper::Version::HTTP_11;
    Ok((host, port, request))
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // How long a body is has been understood already.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("this is the proxy of a slot: it takes CONNECT and http:// addresses")]
    NotAbsolute,
    #[error("the request names no host and port that could be connected to")]
    NoDestination,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the destination's answer")]
    Broken(#[source] hyper::Error),
}

impl Fault {
    fn into_response(self) -> Response<Body> {
        let status = match &self {
            Self::NotAbsolute | Self::NoDestination => StatusCode::BAD_REQUEST,
            Self::Connect(ConnectError::Refused(_) | ConnectError::OwnServer { .. }) => {
                StatusCode::FORBIDDEN
            }
            Self::Connect(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
        };
        let text = format!("slotmux: {}\n", crate::chain(&self));
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::AllowList;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    const LIMIT: Duration = Duration::from_secs(20);

    /// A proxy that lets out to `origin`, and its address.
    async fn proxy(rules: Vec<String>) -> (std::net::SocketAddr, CancellationToken) {
        let allowed = Arc::new(AllowList::parse(&rules).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let egress = Egress { allowed, own_port: 1 };
        tokio::spawn(Proxy::new("slot_0", egress, end.clone()).serve(listener));
        (address, end)
    }

    async fn says(address: std::net::SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_is_forwarded_as_its_address_says_and_without_what_is_for_the_proxy() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = origin.local_addr().unwrap();
        let (address, _end) = proxy(vec![to.to_string()]).await;
        let serving = tokio::spawn(async move {
            let (mut stream, _) = origin.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = "HTTP/1.1 200 OK\r\nx-secret: 1\r\nconnection: close, x-secret\r\n\
                          content-length: 2\r\n\r\nhi";
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let request = format!(
            "GET http://{to}/a?b=c HTTP/1.1\r\nhost: other.example\r\nproxy-authorization: x\r\n\
             x-hop: 1\r\nconnection: close, x-hop\r\n\r\n"
        );
        let answer = says(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
        assert!(!answer.contains("x-secret"), "{answer}");
        let head = serving.await.unwrap();
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {to}\r\n")), "{head}");
        assert!(!head.contains("x-hop") && !head.contains("proxy-"), "{head}");
    }

    #[tokio::test]
    async fn what_is_not_allowed_or_not_understood_is_refused_with_its_reason() {
        let (address, _end) = proxy(vec!["x.example:8080".to_owned()]).await;
        for (request, status, text) in [
            (
                "CONNECT y.example:443 HTTP/1.1\r\nhost: y\r\nconnection: close\r\n\r\n",
                "403",
                "x.example:8080",
            ),
            (
                "CONNECT x.example:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                "403",
                "x.example:443",
            ),
            (
                "GET http://169.254.169.254/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                "403",
                "169.254.169.254",
            ),
            ("GET / HTTP/1.1\r\nhost: x.example\r\nconnection: close\r\n\r\n", "400", "proxy"),
            (
                "GET https://x.example:8080/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                "400",
                "proxy",
            ),
            ("CONNECT x.example HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "400", ""),
            ("nonsense\r\n\r\n", "400", ""),
        ] {
            let answer = says(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains(text), "{request}: {answer}");
        }
        let large =
            format!("GET http://x/ HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(4 * HEAD_BYTES_MAX));
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be refused while it is still being sent.
        let _ = stream.write_all(large.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn a_tunnel_carries_both_ways_and_ends_with_the_slot() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = origin.local_addr().unwrap();
        let (address, end) = proxy(vec![to.to_string()]).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let connect = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
        stream.write_all(connect.as_bytes()).await.unwrap();
        let (mut outside, _) = timeout(LIMIT, origin.accept()).await.unwrap().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200"));
        for (from, to) in [(&mut stream, &mut outside)] {
            from.write_all(b"there").await.unwrap();
            let mut said = [0; 5];
            to.read_exact(&mut said).await.unwrap();
            to.write_all(&said).await.unwrap();
            from.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"there");
        }
        end.cancel();
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it ends inside");
        let _ = timeout(LIMIT, outside.read_to_end(&mut rest)).await.expect("it ends outside");
        assert!(rest.is_empty());
        let refused = async { while TcpStream::connect(address).await.is_ok() {} };
        timeout(LIMIT, refused).await.expect("nobody is accepted any more");
    }

    #[tokio::test]
    async fn connections_are_bounded_and_those_that_are_tunnels_count() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = origin.local_addr().unwrap();
        let (address, _end) = proxy(vec![to.to_string()]).await;
        let connect = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(connect.as_bytes()).await.unwrap();
            let (outside, _) = timeout(LIMIT, origin.accept()).await.unwrap().unwrap();
            held.push((stream, outside));
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(connect.as_bytes()).await.unwrap();
        assert!(timeout(Duration::from_millis(100), origin.accept()).await.is_err());
        held.pop();
        timeout(LIMIT, origin.accept()).await.unwrap().unwrap();
    }
}
