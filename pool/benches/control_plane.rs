//! The control plane alone: acquire and release by 64 clients at a time, over HTTP on keep-alive
//! connections and through the handle, with the journal on a real disk and without one.
//! Containers are on loopback; their reset is instant. Clients and pool share the machine.
//!
//! `cargo bench -p slotmux-pool --bench control_plane`

#[expect(dead_code, reason = "tests use more of it")]
#[path = "../tests/it/town.rs"]
mod town;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use slotmux_pool::{
    Pool, PoolHandle, Shutdown,
    api::{ApiSettings, ServeSettings, router, serve},
    journal::JournalMode,
};
use slotmux_protocol::{
    TrajectoryId,
    v1::{AcquireRequest, AcquireResponse},
};
use std::{error::Error, net::SocketAddr, path::Path, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use town::{SLOTS, Town, config};

const AT_A_TIME: u32 = 64;
const CONTAINERS: u32 = 4;
const TIME: Duration = Duration::from_secs(4);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("start a runtime");
    // Beside the build, not in a /tmp that may be memory.
    let target = env!("CARGO_TARGET_TMPDIR");
    let directory = tempfile::tempdir_in(target).expect("make a directory");
    report_fsync(directory.path());
    for (name, way) in [("handle", Way::Handle), ("http", Way::Http)] {
        let file = JournalMode::File(directory.path().join(format!("{name}.redb")));
        for journal in [JournalMode::Off, file] {
            let label = if journal == JournalMode::Off { "off" } else { "fsynced" };
            report(name, label, runtime.block_on(run(way, journal)));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Handle,
    Http,
}

/// What one client saw.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    errors: usize,
}

async fn run(way: Way, journal: JournalMode) -> Tally {
    let town = Town::new().await;
    let mut config = config(SLOTS, CONTAINERS);
    config.journal = journal;
    config.profiles[0].containers_min = CONTAINERS;
    let pool = Pool::start(config, town.backend()).await.expect("start a pool");
    for _ in 0..CONTAINERS {
        let warm = pool.acquire(request("warm")).await.expect("a slot");
        pool.release(warm[0].lease_id).await.expect("a release");
    }
    let tally = match way {
        Way::Handle => by_handle(&pool).await,
        Way::Http => over_http(&pool).await,
    };
    pool.shutdown(Shutdown::StopContainers).await;
    tally
}

async fn by_handle(pool: &PoolHandle) -> Tally {
    let client = |number| {
        let pool = pool.clone();
        let request = request(&format!("client-{number}"));
        repeat(async move || {
            let leases = pool.acquire(request.clone()).await?;
            Ok(pool.release(leases[0].lease_id).await?)
        })
    };
    let clients: Vec<_> = (0..AT_A_TIME).map(|number| tokio::spawn(client(number))).collect();
    gather(clients).await
}

async fn over_http(pool: &PoolHandle) -> Tally {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind loopback");
    let address = listener.local_addr().expect("a bound port");
    let (api, shutdown) = (ApiSettings::default(), CancellationToken::new());
    let served =
        serve(listener, router(pool.clone(), api), ServeSettings::default(), shutdown.clone());
    let served = tokio::spawn(served);
    let clients: Vec<_> =
        (0..AT_A_TIME).map(|number| tokio::spawn(http_client(address, number))).collect();
    let tally = gather(clients).await;
    shutdown.cancel();
    served.await.expect("it is served to the end");
    tally
}

async fn http_client(address: SocketAddr, number: u32) -> Tally {
    let connection = Connection::open(address).await;
    let mut connection = connection.expect("a connection");
    let body = serde_json::to_vec(&request(&format!("client-{number}"))).expect("it is JSON");
    let body = Bytes::from(body);
    repeat(async move || {
        let (status, answer) = connection.send(Method::POST, "/v1/leases", body.clone()).await?;
        if status != StatusCode::CREATED {
            return Err(format!("acquire: {status}").into());
        }
        let AcquireResponse { leases } = serde_json::from_slice(&answer)?;
        let path = format!("/v1/leases/{}", leases[0].lease_id);
        let (status, _) = connection.send(Method::DELETE, &path, Bytes::new()).await?;
        if status != StatusCode::NO_CONTENT {
            return Err(format!("release: {status}").into());
        }
        Ok(())
    })
    .await
}

/// One keep-alive connection.
struct Connection(http1::SendRequest<Full<Bytes>>);

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "slotmux")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// One pair after the other, until the time is over.
async fn repeat(mut pair: impl AsyncFnMut() -> Result<()>) -> Tally {
    let end = Instant::now() + TIME;
    let mut tally = Tally::default();
    while Instant::now() < end {
        let start = Instant::now();
        match pair().await {
            Ok(()) => tally.latencies.push(start.elapsed()),
            Err(_) => tally.errors += 1,
        }
    }
    tally
}

async fn gather(clients: Vec<tokio::task::JoinHandle<Tally>>) -> Tally {
    let mut all = Tally::default();
    for client in clients {
        let tally = client.await.expect("a client");
        all.latencies.extend(tally.latencies);
        all.errors += tally.errors;
    }
    all
}

fn request(name: &str) -> AcquireRequest {
    AcquireRequest {
        trajectory_id: TrajectoryId::new(name).expect("a name"),
        profile: None,
        wait_s: None,
        ttl_s: None,
        priority: None,
        count: None,
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn report(way: &str, journal: &str, Tally { mut latencies, errors }: Tally) {
    latencies.sort();
    let at = |part: usize| {
        let latency = latencies.get(latencies.len() * part / 1000);
        latency.copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = latencies.len() as f64 / TIME.as_secs_f64();
    println!(
        "control_plane way={way} journal={journal} at_a_time={AT_A_TIME} pairs_per_s={rate:.0} \
         p50_ms={:.2} p99_ms={:.2} errors={errors}",
        at(500),
        at(990)
    );
}

/// What the disk does: the floor under every journalled figure.
#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn report_fsync(directory: &Path) {
    use std::io::{Seek, Write};
    const TURNS: u32 = 200;
    let mut file = std::fs::File::create(directory.join("fsync")).expect("a file");
    let start = Instant::now();
    for _ in 0..TURNS {
        file.rewind().expect("a seek");
        file.write_all(&[0x5a; 4_096]).expect("a write");
        file.sync_data().expect("a sync");
    }
    let each = start.elapsed() / TURNS;
    println!("fsync of 4 KiB: {:.3} ms", each.as_secs_f64() * 1e3);
}
