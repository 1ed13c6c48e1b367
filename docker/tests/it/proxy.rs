//! A door to the engine that can be shut: what went through it is cut, and nothing comes in. It
//! counts who came.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

const LIMIT: Duration = Duration::from_mins(1);

/// Calls whose answers go on.
const LONG: [&str; 3] = ["/events?", "/wait?", "/build?"];
type Begun = watch::Sender<[u32; LONG.len()]>;

pub(crate) struct Door {
    dir: TempDir,
    open: watch::Sender<bool>,
    passing: Arc<Mutex<JoinSet<()>>>,
    /// How many of each of `LONG` the engine has begun to answer, since the start.
    begun: watch::Receiver<[u32; LONG.len()]>,
    connections: Arc<AtomicU32>,
    porter: AbortHandle,
}

impl Door {
    pub(crate) fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("engine")).unwrap();
        let (open, is_open) = watch::channel(true);
        let (begins, begun) = watch::channel([0; LONG.len()]);
        let passing = Arc::new(Mutex::new(JoinSet::new()));
        let connections = Arc::<AtomicU32>::default();
        let porter = {
            let (passing, begins) = (passing.clone(), Arc::new(begins));
            let connections = connections.clone();
            tokio::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    // One lock for both: nobody gets in while it is being shut.
                    let mut passing = passing.lock().unwrap();
                    if *is_open.borrow() {
                        connections.fetch_add(1, Ordering::Relaxed);
                        passing.spawn(pass(client, begins.clone()));
                    }
                }
            })
        };
        Self { dir, open, passing, begun, connections, porter: porter.abort_handle() }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    /// That were let in since the start.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
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
        self.begun(0, count).await;
    }

    /// Waits until so many calls wait for an end.
    pub(crate) async fn waits(&self, count: u32) {
        self.begun(1, count).await;
    }

    /// That were begun since the start.
    pub(crate) fn builds(&self) -> u32 {
        self.begun.borrow()[2]
    }

    async fn begun(&self, which: usize, count: u32) {
        let mut begun = self.begun.clone();
        let heard = begun.wait_for(|it| it[which] >= count);
        timeout(LIMIT, heard).await.expect("a long call in time").unwrap();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

async fn pass(client: UnixStream, begins: Arc<Begun>) {
    let host = env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
    match host.split_once("://").unwrap() {
        ("unix", path) => relay(client, UnixStream::connect(path).await.unwrap(), &begins).await,
        (_, authority) => {
            relay(client, TcpStream::connect(authority).await.unwrap(), &begins).await;
        }
    }
}

/// Whatever breaks, breaks for both.
async fn relay(client: UnixStream, engine: impl AsyncRead + AsyncWrite + Unpin, begins: &Begun) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_engine, mut to_engine) = split(engine);
    // Which of `LONG` was asked for.
    let asked = Mutex::new(None);
    let there = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            // A call begins a piece, for it waits for the answer of the one before.
            let text = String::from_utf8_lossy(&bytes[..count]);
            let line = text.lines().next().unwrap_or_default();
            if line.ends_with(" HTTP/1.1") {
                *asked.lock().unwrap() = LONG.iter().position(|long| line.contains(long));
            }
            if to_engine.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        // Who has said everything may still listen.
        if to_engine.shutdown().await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let back = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_engine.read(&mut bytes).await {
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
            if let Some(which) = asked.lock().unwrap().take() {
                begins.send_modify(|begun| begun[which] += 1);
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
