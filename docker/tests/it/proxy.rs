//! A door to the engine that can be shut: what went through it is cut, and nothing comes in.

use std::{
    env,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

const LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Door {
    dir: TempDir,
    open: watch::Sender<bool>,
    passing: Arc<Mutex<JoinSet<()>>>,
    /// Streams of events that the engine has begun to answer, since the start.
    listening: watch::Receiver<u32>,
    porter: AbortHandle,
}

impl Door {
    pub(crate) fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("engine")).unwrap();
        let (open, is_open) = watch::channel(true);
        let (listens, listening) = watch::channel(0);
        let passing = Arc::new(Mutex::new(JoinSet::new()));
        let porter = {
            let (passing, listens) = (passing.clone(), Arc::new(listens));
            tokio::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    // One lock for both: nobody gets in while it is being shut.
                    let mut passing = passing.lock().unwrap();
                    if *is_open.borrow() {
                        passing.spawn(pass(client, listens.clone()));
                    }
                }
            })
        };
        Self { dir, open, passing, listening, porter: porter.abort_handle() }
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
            self.open.send_replace(false);
            std::mem::take(&mut *passing)
        };
        cut.shutdown().await;
    }

    pub(crate) fn open_again(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many streams of events were begun.
    pub(crate) async fn listens(&self, count: u32) {
        let mut listening = self.listening.clone();
        let heard = listening.wait_for(|it| *it >= count);
        timeout(LIMIT, heard).await.expect("a stream of events in time").unwrap();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

async fn pass(client: UnixStream, listens: Arc<watch::Sender<u32>>) {
    let host = env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
    match host.split_once("://").unwrap() {
        ("unix", path) => relay(client, UnixStream::connect(path).await.unwrap(), &listens).await,
        (_, authority) => {
            relay(client, TcpStream::connect(authority).await.unwrap(), &listens).await;
        }
    }
}

/// Whatever breaks, breaks for both.
async fn relay(
    mut client: UnixStream,
    mut engine: impl AsyncRead + AsyncWrite + Unpin,
    listens: &watch::Sender<u32>,
) {
    let mut bytes = vec![0; 64 << 10];
    let Ok(asked) = client.read(&mut bytes).await else { return };
    let is_events = bytes.starts_with(b"GET ") && {
        let line = String::from_utf8_lossy(&bytes[..asked]);
        line.lines().next().is_some_and(|line| line.contains("/events?"))
    };
    if engine.write_all(&bytes[..asked]).await.is_err() {
        return;
    }
    // Of other calls there may be more to come before there is an answer.
    if is_events {
        let Ok(answered) = engine.read(&mut bytes).await else { return };
        if client.write_all(&bytes[..answered]).await.is_err() {
            return;
        }
        listens.send_modify(|count| *count += 1);
    }
    let (mut from_client, mut to_client) = split(client);
    let (mut from_engine, mut to_engine) = split(engine);
    tokio::select! {
        _ = copy(&mut from_client, &mut to_engine) => {}
        _ = copy(&mut from_engine, &mut to_client) => {}
    }
}
