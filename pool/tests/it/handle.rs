//! Leases through the handle.

use crate::town::{Town, config};
use slotmux_pool::{Pool, PoolConfig, PoolHandle, Shutdown};
use slotmux_protocol::{
    Code, TrajectoryId,
    v1::{self, AcquireRequest, EventKind, Seconds},
};
use std::time::Duration;
use tokio::{sync::broadcast, time::timeout};

pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) fn request(trajectory: &str) -> AcquireRequest {
    AcquireRequest {
        trajectory_id: TrajectoryId::new(trajectory).unwrap(),
        profile: None,
        wait_s: None,
        ttl_s: None,
        priority: None,
        count: None,
    }
}

pub(super) async fn start(town: &Town, config: PoolConfig) -> PoolHandle {
    Pool::start(config, town.backend()).await.unwrap()
}

pub(super) async fn one(pool: &PoolHandle, trajectory: &str) -> v1::Lease {
    timeout(LONG, pool.acquire(request(trajectory))).await.unwrap().unwrap().remove(0)
}

pub(super) async fn event(
    events: &mut broadcast::Receiver<v1::Event>,
    kind: EventKind,
) -> v1::Event {
    loop {
        let event = timeout(LONG, events.recv()).await.unwrap().unwrap();
        if event.kind == kind {
            return event;
        }
    }
}

#[tokio::test]
async fn a_slot_is_acquired_renewed_released_and_given_again() {
    let town = Town::new().await;
    let pool = start(&town, config(64, 1)).await;
    let lease = one(&pool, "a").await;
    assert_eq!(lease.isolation, slotmux_protocol::Isolation::Namespaces);
    assert!(pool.routes().is_live(lease.lease_id));
    let again = one(&pool, "a").await;
    assert_eq!(again.lease_id, lease.lease_id, "asked again, it is the same");
    let renewed = pool.renew(lease.lease_id, Some(Seconds::from_millis(900_000))).await.unwrap();
    assert_eq!(renewed.ttl_s.as_millis(), 900_000);
    pool.release(lease.lease_id).await.unwrap();
    assert_eq!(pool.release(lease.lease_id).await.unwrap_err().code, Code::LeaseReleased);
    assert!(!pool.routes().is_live(lease.lease_id));
    let next = one(&pool, "a").await;
    assert!(next.epoch > lease.epoch);
    let held = TrajectoryId::new("a").unwrap();
    assert!(pool.release_trajectory(&held).await.unwrap());
    assert!(!pool.release_trajectory(&held).await.unwrap());
}

#[tokio::test]
async fn a_dropped_acquire_holds_nothing() {
    let town = Town::new().await;
    let pool = start(&town, config(64, 1)).await;
    let gang = |who: &str| AcquireRequest { count: Some(64), ..request(who) };
    let all = pool.acquire(gang("all")).await.unwrap();
    assert_eq!(all.len(), 64);
    let waits = tokio::spawn({
        let (pool, gang) = (pool.clone(), gang("waits"));
        async move { pool.acquire(gang).await }
    });
    while pool.status().await.unwrap().profiles["default"].waiting == 0 {
        tokio::task::yield_now().await;
    }
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    pool.release_trajectory(&TrajectoryId::new("all").unwrap()).await.unwrap();
    // Also those that are dropped on the way from the actor: whatever the moment.
    for number in 0..200 {
        let name = format!("hasty-{number}");
        let acquire = pool.acquire(gang(&name));
        if let Ok(in_time) = timeout(Duration::from_micros(number * 20), acquire).await {
            in_time.unwrap();
            pool.release_trajectory(&TrajectoryId::new(name).unwrap()).await.unwrap();
        }
    }
    let last = timeout(LONG, pool.acquire(gang("last"))).await.unwrap();
    for lease in last.unwrap() {
        assert_eq!(lease.trajectory_id.as_str(), "last");
    }
}

#[tokio::test]
async fn a_newer_acquire_of_a_trajectory_takes_the_older_ones_place() {
    let town = Town::new().await;
    let pool = start(&town, config(1, 1)).await;
    let lease = one(&pool, "a").await;
    let again = || {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(request("b")).await })
    };
    let older = again();
    while pool.status().await.unwrap().profiles["default"].waiting == 0 {
        tokio::task::yield_now().await;
    }
    let newer = again();
    let problem = timeout(LONG, older).await.unwrap().unwrap().unwrap_err();
    assert_eq!((problem.code, problem.status), (Code::Superseded, 409));
    pool.release(lease.lease_id).await.unwrap();
    let leases = timeout(LONG, newer).await.unwrap().unwrap().unwrap();
    assert_eq!(leases[0].trajectory_id.as_str(), "b");
}

#[tokio::test]
async fn a_lease_expires_unless_a_call_runs() {
    let town = Town::new().await;
    let pool = start(&town, config(64, 1)).await;
    let mut events = pool.events();
    let short =
        |who: &str| AcquireRequest { ttl_s: Some(Seconds::from_millis(150)), ..request(who) };
    let busy = pool.acquire(short("busy")).await.unwrap().remove(0);
    let beating = pool.routes().find(busy.lease_id).unwrap().pulse.beat();
    let idle = pool.acquire(short("idle")).await.unwrap().remove(0);
    let expired = event(&mut events, EventKind::LeaseExpired).await;
    assert_eq!(expired.lease_id, Some(idle.lease_id));
    assert_eq!(pool.lease(idle.lease_id).await.unwrap_err().code, Code::LeaseExpired);
    assert!(pool.lease(busy.lease_id).await.is_ok());
    drop(beating);
    let expired = event(&mut events, EventKind::LeaseExpired).await;
    assert_eq!(expired.lease_id, Some(busy.lease_id));
}

#[tokio::test]
async fn a_killed_container_revokes_at_once_and_is_replaced() {
    let town = Town::new().await;
    let pool = start(&town, config(64, 1)).await;
    let mut events = pool.events();
    let lease = one(&pool, "a").await;
    town.runtime.kill(&lease.container);
    let revoked = event(&mut events, EventKind::LeaseRevoked).await;
    assert_eq!(revoked.lease_id, Some(lease.lease_id));
    assert!(revoked.reason.unwrap().contains("SIGKILL"));
    let problem = pool.lease(lease.lease_id).await.unwrap_err();
    assert_eq!(problem.code, Code::LeaseRevoked);
    assert!(pool.routes().find(lease.lease_id).unwrap_err().detail.contains("SIGKILL"));
    let next = one(&pool, "a").await;
    assert_ne!(next.container, lease.container);
}

#[tokio::test]
async fn a_restarted_server_revokes_its_leases_only() {
    let town = Town::new().await;
    let pool = start(&town, config(64, 2)).await;
    let mut events = pool.events();
    let gang = AcquireRequest { count: Some(65), ..request("gang") };
    let leases = timeout(LONG, pool.acquire(gang)).await.unwrap().unwrap();
    let (first, last) = (&leases[0], &leases[64]);
    assert_ne!(first.container, last.container);
    town.reboot(&last.container);
    let revoked = event(&mut events, EventKind::LeaseRevoked).await;
    assert_eq!(revoked.lease_id, Some(last.lease_id));
    assert!(revoked.reason.unwrap().contains("restarted"));
    assert!(pool.lease(first.lease_id).await.is_ok());
}

#[tokio::test]
async fn a_shutdown_refuses_who_waits_and_stops_or_keeps_the_containers() {
    for (how, left) in [(Shutdown::KeepContainers, 1), (Shutdown::StopContainers, 0)] {
        let town = Town::new().await;
        let pool = start(&town, config(1, 1)).await;
        one(&pool, "a").await;
        let waits = tokio::spawn({
            let pool = pool.clone();
            async move { pool.acquire(request("b")).await }
        });
        while pool.status().await.unwrap().profiles["default"].waiting == 0 {
            tokio::task::yield_now().await;
        }
        pool.shutdown(how).await;
        timeout(LONG, pool.closed()).await.unwrap();
        assert_eq!(waits.await.unwrap().unwrap_err().code, Code::ShuttingDown);
        assert_eq!(pool.acquire(request("c")).await.unwrap_err().code, Code::ShuttingDown);
        assert_eq!(town.runtime.containers().len(), left);
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_with_the_field() {
    let town = Town::new().await;
    let pool = start(&town, config(64, 1)).await;
    let none = AcquireRequest { count: Some(0), ..request("a") };
    assert_eq!(pool.acquire(none).await.unwrap_err().field.as_deref(), Some("count"));
    let many = AcquireRequest { count: Some(65), ..request("a") };
    assert_eq!(pool.acquire(many).await.unwrap_err().code, Code::NeverEnough);
    let profile = Some(slotmux_protocol::ProfileName::new("other").unwrap());
    let other = AcquireRequest { profile, ..request("a") };
    assert_eq!(pool.acquire(other).await.unwrap_err().code, Code::UnknownProfile);
    one(&pool, "a").await;
    let two = AcquireRequest { count: Some(2), ..request("a") };
    assert_eq!(pool.acquire(two).await.unwrap_err().code, Code::AlreadyHeld);
}
