//! The control plane without HTTP: acquire and release through the handle, with the journal on a
//! real disk, and containers on loopback whose reset is instant.
//!
//! `cargo bench -p slotmux-pool --bench control_plane`

#[expect(dead_code, reason = "tests use more of it")]
#[path = "../tests/it/town.rs"]
mod town;

use slotmux_pool::{Pool, PoolHandle, Shutdown, journal::JournalMode};
use slotmux_protocol::{TrajectoryId, v1::AcquireRequest};
use std::time::Duration;
use tokio::time::Instant;
use town::{SLOTS, Town, config};

const AT_A_TIME: u32 = 64;
const CONTAINERS: u32 = 4;
const TIME: Duration = Duration::from_secs(4);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("start a runtime");
    // Beside the build, not in a /tmp that may be memory.
    let target = env!("CARGO_TARGET_TMPDIR");
    let directory = tempfile::tempdir_in(target).expect("make a directory");
    for journal in [JournalMode::Off, JournalMode::File(directory.path().join("journal.redb"))] {
        let name = if journal == JournalMode::Off { "off" } else { "fsynced" };
        let latencies = runtime.block_on(run(journal));
        report(name, latencies);
    }
}

async fn run(journal: JournalMode) -> Vec<Duration> {
    let town = Town::new().await;
    let mut config = config(SLOTS, CONTAINERS);
    config.journal = journal;
    config.profiles[0].containers_min = CONTAINERS;
    let pool = Pool::start(config, town.backend()).await.expect("start a pool");
    let warm = pool.acquire(request("warm")).await.expect("a slot");
    pool.release(warm[0].lease_id).await.expect("a release");
    let clients: Vec<_> =
        (0..AT_A_TIME).map(|number| tokio::spawn(client(pool.clone(), number))).collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.expect("a client"));
    }
    pool.shutdown(Shutdown::StopContainers).await;
    latencies
}

async fn client(pool: PoolHandle, number: u32) -> Vec<Duration> {
    let name = format!("client-{number}");
    let end = Instant::now() + TIME;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let leases = pool.acquire(request(&name)).await.expect("a slot");
        pool.release(leases[0].lease_id).await.expect("a release");
        latencies.push(start.elapsed());
    }
    latencies
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
fn report(journal: &str, mut latencies: Vec<Duration>) {
    latencies.sort();
    let at = |part: usize| latencies[latencies.len() * part / 1000].as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = latencies.len() as f64 / TIME.as_secs_f64();
    println!(
        "control plane, journal {journal}: {rate:.0} pairs/s at {AT_A_TIME} at a time, \
         p50 {:.2} ms, p99 {:.2} ms",
        at(500),
        at(990)
    );
}
