//! The pool when its disk is full. What needs no such disk is in `pool/tests/it`.

use super::{Pool, PoolHandle, Shutdown};
use crate::journal::disk::Disk;
use slotmux_protocol::{
    Code, Problem, TrajectoryId,
    v1::{AcquireRequest, Lease},
};
use std::time::Duration;
use tokio::time::timeout;
use town::{Town, config};

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../../tests/it/town.rs"]
mod town;

const LONG: Duration = Duration::from_secs(20);

fn gang(trajectory: &str, count: u32) -> AcquireRequest {
    AcquireRequest {
        trajectory_id: TrajectoryId::new(trajectory).unwrap(),
        count: Some(count),
        profile: None,
        wait_s: None,
        ttl_s: None,
        priority: None,
    }
}

async fn acquire(pool: &PoolHandle, request: AcquireRequest) -> Result<Vec<Lease>, Problem> {
    timeout(LONG, pool.acquire(request)).await.unwrap()
}

async fn wait_for_free_slots(pool: &PoolHandle, count: u32) {
    let all_free = async {
        while pool.status().await.unwrap().profiles["default"].slots.free != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, all_free).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_who_asks_and_nobody_holds_a_slot() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path().join("journal.redb"));
    let town = Town::new().await;
    let pool = Pool::start_with(config(1, 1), town.backend(), disk.open().unwrap()).await.unwrap();
    let before = acquire(&pool, gang("before", 1)).await.unwrap().remove(0);

    disk.fill();
    assert!(pool.lease(before.lease_id).await.is_ok(), "what is held stays held");
    pool.release(before.lease_id).await.unwrap();
    for who in ["b", "b", "c"] {
        let problem = acquire(&pool, gang(who, 1)).await.unwrap_err();
        assert_eq!((problem.code, problem.status), (Code::JournalUnavailable, 503));
        wait_for_free_slots(&pool, 1).await;
        let held = pool.release_trajectory(&TrajectoryId::new(who).unwrap()).await.unwrap();
        assert!(!held, "{who} holds a slot that it was refused");
    }

    disk.make_room();
    let after = acquire(&pool, gang("b", 1)).await.unwrap().remove(0);
    assert!(after.epoch > before.epoch);
    pool.shutdown(Shutdown::KeepContainers).await;
    let (_, recovered) = disk.open().unwrap();
    let leases: Vec<_> = recovered.leases.iter().map(|it| it.lease).collect();
    assert_eq!(leases, [after.lease_id], "and the journal knows it");
}

#[tokio::test]
async fn a_gang_that_could_not_be_written_gives_all_of_its_slots_back() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path().join("journal.redb"));
    let town = Town::new().await;
    let mut config = config(8, 1);
    config.profiles[0].containers_min = 1;
    let pool = Pool::start_with(config, town.backend(), disk.open().unwrap()).await.unwrap();
    wait_for_free_slots(&pool, 8).await;
    disk.fill();
    let problem = acquire(&pool, gang("a", 5)).await.unwrap_err();
    assert_eq!(problem.code, Code::JournalUnavailable);
    wait_for_free_slots(&pool, 8).await;
    disk.make_room();
    let leases = acquire(&pool, gang("b", 8)).await.unwrap();
    assert_eq!(leases.len(), 8);
}
