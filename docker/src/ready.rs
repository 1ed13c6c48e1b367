//! Waits until a container's sandbox-server answers.
//!
//! By its port and not by a file or its log: a container that cannot be reached is not ready.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, io, time::Duration};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

const FIRST_LOOK: Duration = Duration::from_millis(2);
const LOOKS_APART_MAX: Duration = Duration::from_millis(50);
/// For one look: what is not there yet mostly refuses at once.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// A network that is being made loses the first packet, and the kernel sends the next a second later.
/// So the first connections are given up early.
const FIRST_CONNECT: Duration = Duration::from_millis(20);

pub(crate) async fn wait(authority: &str) {
    let (mut apart, mut connect_max) = (FIRST_LOOK, FIRST_CONNECT);
    while !look_within(authority, connect_max).await {
        sleep(apart).await;
        apart = (apart * 2).min(LOOKS_APART_MAX);
        connect_max = (connect_max * 2).min(LOOK_MAX);
    }
}

pub(crate) async fn look(authority: &str) -> bool {
    look_within(authority, LOOK_MAX).await
}

async fn look_within(authority: &str, connect_max: Duration) -> bool {
    match timeout(LOOK_MAX, ask(authority, connect_max)).await {
        Ok(Ok(status)) => status == StatusCode::OK,
        Ok(Err(error)) => {
            tracing::trace!(authority, %error, "not ready");
            false
        }
        Err(_elapsed) => false,
    }
}

async fn ask(authority: &str, connect_max: Duration) -> io::Result<StatusCode> {
    let stream = timeout(connect_max, TcpStream::connect(authority)).await??;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get("/health").header(HOST, authority).body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(io::Error::other)?);
    // A connection that ended has given its answer, or lets the answer fail.
    let drive = async {
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = answer => answer.map(|it| it.status()).map_err(io::Error::other),
        never = drive => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    async fn looked_at(answer: &'static [u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1_024];
            let read = stream.read(&mut asked).await.unwrap();
            assert!(asked[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(look(&authority), server).0
    }

    #[tokio::test]
    async fn only_a_server_that_says_ok_is_ready() {
        assert!(looked_at(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await);
        assert!(!looked_at(b"HTTP/1.1 503 Not Yet\r\ncontent-length: 0\r\n\r\n").await);
        assert!(!looked_at(b"").await);
        assert!(!looked_at(b"nonsense\r\n\r\n").await);
    }
}
