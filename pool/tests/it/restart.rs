//! A pool that comes back: its leases are still held, with the journal and without it.

use crate::{
    handle::{LONG, event, one, request, start},
    town::{Town, config},
};
use slotmux_pool::{Pool, PoolConfig, Shutdown, StartError, journal::JournalMode};
use slotmux_protocol::{
    Code,
    v1::{AcquireRequest, EventKind},
};
use std::path::Path;
use tokio::time::timeout;

fn journalled(directory: &Path) -> PoolConfig {
    let mut config = config(64, 1);
    config.journal = JournalMode::File(directory.join("journal.redb"));
    config
}

#[tokio::test]
async fn held_leases_are_still_held_and_released_ones_are_not() {
    for is_lost in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let town = Town::new().await;
        let pool = start(&town, journalled(directory.path())).await;
        let gang = AcquireRequest { count: Some(3), ..request("gang") };
        let held = pool.acquire(gang.clone()).await.unwrap();
        let released = one(&pool, "done").await;
        pool.release(released.lease_id).await.unwrap();
        pool.shutdown(Shutdown::KeepContainers).await;
        if is_lost {
            std::fs::remove_file(directory.path().join("journal.redb")).unwrap();
        }

        let pool = start(&town, journalled(directory.path())).await;
        let again = timeout(LONG, pool.acquire(gang)).await.unwrap().unwrap();
        let ids = |leases: &[slotmux_protocol::v1::Lease]| {
            let mut ids: Vec<_> =
                leases.iter().map(|it| (it.lease_id, it.container.clone(), it.slot)).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&again), ids(&held), "journal lost: {is_lost}");
        assert_eq!(pool.lease(released.lease_id).await.unwrap_err().code, Code::UnknownLease);
        let rest = AcquireRequest { count: Some(61), ..request("rest") };
        let rest = timeout(LONG, pool.acquire(rest)).await.unwrap().unwrap();
        for lease in &rest {
            assert!(lease.epoch > released.epoch);
            assert!(held.iter().all(|it| it.slot != lease.slot));
        }
        for lease in &held {
            assert!(pool.routes().is_live(lease.lease_id));
        }
    }
}

#[tokio::test]
async fn a_container_that_ended_meanwhile_has_its_leases_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let town = Town::new().await;
    let pool = start(&town, journalled(directory.path())).await;
    let lease = one(&pool, "a").await;
    pool.shutdown(Shutdown::KeepContainers).await;
    town.runtime.kill(&lease.container);
    let pool = start(&town, journalled(directory.path())).await;
    assert_eq!(pool.lease(lease.lease_id).await.unwrap_err().code, Code::LeaseRevoked);
    assert_ne!(one(&pool, "a").await.container, lease.container);
}

#[tokio::test]
async fn a_server_that_restarted_meanwhile_has_its_leases_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let town = Town::new().await;
    let pool = start(&town, journalled(directory.path())).await;
    let lease = one(&pool, "a").await;
    pool.shutdown(Shutdown::KeepContainers).await;
    town.reboot(&lease.container);
    let pool = start(&town, journalled(directory.path())).await;
    let mut events = pool.events();
    if pool.lease(lease.lease_id).await.is_ok() {
        event(&mut events, EventKind::LeaseRevoked).await;
    }
    assert_eq!(pool.lease(lease.lease_id).await.unwrap_err().code, Code::LeaseRevoked);
}

#[tokio::test]
async fn two_pools_do_not_share_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    let town = Town::new().await;
    let _pool = start(&town, journalled(directory.path())).await;
    let Err(StartError::Journal(error)) =
        Pool::start(journalled(directory.path()), town.backend()).await
    else {
        panic!("it started");
    };
    assert!(error.to_string().contains("in use by another pool"), "{error}");
}
