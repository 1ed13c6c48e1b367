//! A door to the engine that can be shut: what went through it is cut, and nothing comes in. It
//! counts what is asked.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpStream, UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
};

pub(crate) struct Door {
    dir: TempDir,
    is_open: Arc<Mutex<bool>>,
    passing: Arc<Mutex<JoinSet<()>>>,
    /// Requests, and connections.
    pub(crate) asked: Arc<AtomicU32>,
    pub(crate) connected: Arc<AtomicU32>,
    porter: AbortHandle,
}

impl Door {
    pub(crate) fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("engine")).unwrap();
        let is_open = Arc::new(Mutex::new(true));
        let passing = Arc::new(Mutex::new(JoinSet::new()));
        let (asked, connected) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let porter = {
            let (is_open, passing) = (is_open.clone(), passing.clone());
            let (asked, connected) = (asked.clone(), connected.clone());
            tokio::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    // One lock for both: nobody gets in while it is being shut.
                    let mut passing = passing.lock().unwrap();
                    if *is_open.lock().unwrap() {
                        connected.fetch_add(1, Ordering::Relaxed);
                        passing.spawn(pass(client, asked.clone()));
                    }
                }
            })
        };
        Self { dir, is_open, passing, asked, connected, porter: porter.abort_handle() }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    /// Returns when whoever was connected is cut off.
    pub(crate) async fn shut(&self) {
        let mut cut = {
            let mut passing = self.passing.lock().unwrap();
            *self.is_open.lock().unwrap() = false;
            std::mem::take(&mut *passing)
        };
        cut.shutdown().await;
    }

    pub(crate) fn open_again(&self) {
        *self.is_open.lock().unwrap() = true;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

async fn pass(client: UnixStream, asked: Arc<AtomicU32>) {
    let host = env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
    match host.split_once("://").unwrap() {
        ("unix", path) => relay(client, UnixStream::connect(path).await.unwrap(), &asked).await,
        (_, authority) => relay(client, TcpStream::connect(authority).await.unwrap(), &asked).await,
    }
}

/// Whatever breaks, breaks for both.
async fn relay(client: UnixStream, engine: impl AsyncRead + AsyncWrite, asked: &AtomicU32) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_engine, mut to_engine) = split(engine);
    let ask = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let length = from_client.read(&mut bytes).await.unwrap_or(0);
            if length == 0 || to_engine.write_all(&bytes[..length]).await.is_err() {
                return to_engine.shutdown().await;
            }
            asked.fetch_add(requests(&bytes[..length]), Ordering::Relaxed);
        }
    };
    let answer = copy(&mut from_engine, &mut to_client);
    // Whoever has said all may still listen.
    let _ = tokio::join!(ask, answer);
}

/// Clients write the head of a request at once.
fn requests(bytes: &[u8]) -> u32 {
    let verbs = [&b"GET /"[..], b"POST /", b"DELETE /", b"PUT /", b"HEAD /"];
    u32::from(verbs.iter().any(|verb| bytes.starts_with(verb)))
}
