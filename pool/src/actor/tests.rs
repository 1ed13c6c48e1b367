//! The actor under a clock that tests own. What needs a container is in `pool/tests/it`.

use crate::{
    config::{PoolConfig, ProfileConfig},
    handle::{Pool, PoolHandle, Shutdown},
};
use slotmux_backend::{
    Address,
    fake::{Answer, Call, FakeRuntime},
};
use slotmux_protocol::{CausedBy, Code, ProfileName, TrajectoryId, v1::AcquireRequest};
use std::{sync::Arc, time::Duration};
use tokio::{task::LocalSet, time::Instant};

fn runtime() -> FakeRuntime {
    // Nobody is there.
    FakeRuntime::new(|_| Address { authority: "127.0.0.1:1".into(), token: "t".into() })
}

async fn start(runtime: &FakeRuntime) -> PoolHandle {
    let profile = ProfileConfig::new(ProfileName::new("default").unwrap(), 1, 1);
    let config = PoolConfig::new("test", vec![profile]);
    Pool::start_here(config, Arc::new(runtime.backend())).await.unwrap()
}

fn request(trajectory: &str) -> AcquireRequest {
    AcquireRequest {
        trajectory_id: TrajectoryId::new(trajectory).unwrap(),
        profile: None,
        wait_s: None,
        ttl_s: None,
        priority: None,
        count: None,
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_answered_at_the_deadline() {
    let test = async {
        let runtime = runtime();
        runtime.hold_launches();
        let pool = start(&runtime).await;
        let asked = Instant::now();
        let problem = pool.acquire(request("a")).await.unwrap_err();
        assert_eq!(problem.code, Code::AcquireTimeout);
        let waited = asked.elapsed();
        assert!((30_000..30_100).contains(&waited.as_millis()), "{waited:?}");
        assert_eq!(pool.status().await.unwrap().profiles["default"].totals.acquire_timeouts, 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_launch_refuses_who_waits_and_is_tried_again() {
    let test = async {
        let runtime = runtime();
        runtime.answer_next(Call::Launch, Answer::Refused);
        let pool = start(&runtime).await;
        let problem = pool.acquire(request("a")).await.unwrap_err();
        assert_eq!((problem.code, problem.status), (Code::LaunchFailed, 503));
        assert_eq!(problem.caused_by, CausedBy::Infra);
        assert!(problem.detail.contains("a test asked for this"), "{}", problem.detail);
        assert_eq!(runtime.launched(), 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let waits = pool.acquire(request("b"));
        let _ = tokio::time::timeout(Duration::from_secs(1), waits).await;
        assert_eq!(runtime.launched(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_without_an_answer_is_looked_up() {
    for (answer, launched) in [(Answer::LostAfterEffect, 1), (Answer::LostBeforeEffect, 1)] {
        let test = async {
            let runtime = runtime();
            runtime.hold_launches();
            runtime.answer_next(Call::Launch, answer);
            let pool = start(&runtime).await;
            let waits = pool.acquire(request("a"));
            let _ = tokio::time::timeout(Duration::from_secs(20), waits).await;
            assert_eq!((runtime.launched(), runtime.containers().len()), (launched, 1));
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_tried_until_it_is_done() {
    let test = async {
        let runtime = runtime();
        let pool = start(&runtime).await;
        let waits = pool.acquire(request("a"));
        let _ = tokio::time::timeout(Duration::from_secs(1), waits).await;
        runtime.answer_next(Call::Stop, Answer::Unavailable);
        runtime.answer_next(Call::Stop, Answer::LostBeforeEffect);
        pool.shutdown(Shutdown::StopContainers).await;
        assert_eq!(runtime.containers(), []);
        assert_eq!(pool.status().await.unwrap_err().code, Code::ShuttingDown);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_pool_and_keeps_its_containers() {
    let test = async {
        let runtime = runtime();
        let pool = start(&runtime).await;
        let waits = pool.acquire(request("a"));
        let _ = tokio::time::timeout(Duration::from_secs(1), waits).await;
        let closed = pool.closed_token();
        drop(pool);
        closed.cancelled().await;
        assert_eq!(runtime.containers().len(), 1);
    };
    LocalSet::new().run_until(test).await;
}
