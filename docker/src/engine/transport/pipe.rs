//! One connection, of whatever kind.

use super::{
    super::address::{Address, Authority},
    tls,
};
use futures_util::future::BoxFuture;
use hyper::{
    Uri,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use slotmux_backend::Cause;
use std::{
    fmt, io,
    io::IoSlice,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tower_service::Service;

/// For a connection to come up.
const CONNECT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
#[error("no connection by {way}")]
pub(super) struct ConnectError {
    way: String,
    source: Cause,
}

#[derive(Clone)]
pub(super) struct Connector {
    address: Arc<Address>,
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

pub(super) struct Pipe(TokioIo<Box<dyn Both>>);

impl Connector {
    pub(super) fn new(address: Address) -> Self {
        Self { address: Arc::new(address) }
    }

    async fn connect(&self) -> Result<Pipe, ConnectError> {
        let connected = timeout(CONNECT_MAX, open(&self.address)).await;
        let connected = connected.unwrap_or_else(|elapsed| Err(elapsed.into()));
        connected
            .map(|stream| Pipe(TokioIo::new(stream)))
            .map_err(|source| ConnectError { way: self.to_string(), source })
    }
}

async fn open(address: &Address) -> Result<Box<dyn Both>, Cause> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(to) => Ok(Box::new(tcp(to).await?)),
        Address::Tls { to, certificates } => {
            let stream = tcp(to).await?;
            Ok(Box::new(tls::wrap(stream, &to.host, certificates).await?))
        }
    }
}

async fn tcp(to: &Authority) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((&*to.host, to.port)).await?;
    // Calls are small, and each waits for its answer.
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.address {
            Address::Unix(path) => write!(f, "socket `{}`", path.display()),
            Address::Tls { to, .. } => write!(f, "tls to `{}`, port {}", to.host, to.port),
            Address::Tcp(to) => write!(f, "tcp to `{}`, port {}", to.host, to.port),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Pipe;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Pipe, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    /// There is one engine, whatever the call names.
    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
