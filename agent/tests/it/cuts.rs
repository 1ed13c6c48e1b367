//! The engine goes away and comes back, and no job is lost by it.

use crate::{
    door::Door,
    image::docker,
    lab::{Lab, brief, done, grade, graded, id, order, until},
};
use slotmux_agent::{JobDone, JobNews, Verdict};
use slotmux_protocol::CausedBy;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, sleep};

/// That the engine has answered is to be seen nowhere.
async fn is_started(lab: &Lab, count: usize) {
    until("containers run", || running(lab) == count).await;
    sleep(Duration::from_secs(1)).await;
}

fn running(lab: &Lab) -> usize {
    let owner = format!("label=slotmux.agent={}", lab.settings.owner);
    docker(&["ps", "--quiet", "--filter", &owner]).unwrap().lines().count()
}

#[tokio::test]
async fn a_job_outlives_an_engine_that_is_away() {
    let Some(mut lab) = Lab::open("an engine that is away") else { return };
    let door = Door::open();
    lab.settings.engine = Some(door.host());
    let agent = lab.agent().await;
    lab.task("works", "sleep 6000\nresult success done");
    let follower = agent.submit(order("1", graded("works", &[]))).unwrap();
    is_started(&lab, 1).await;
    door.shut().await;
    // As long as it takes them to notice; the container says nothing meanwhile.
    sleep(Duration::from_secs(3)).await;
    let waiting = agent.submit(order("2", graded("works", &[]))).unwrap();
    sleep(Duration::from_secs(1)).await;
    door.open_again();
    for follower in [follower, waiting] {
        let JobDone::Graded(done) = &*done(follower).await else { panic!() };
        assert_eq!(brief(done), (Verdict::Success, "done", ""));
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn an_end_that_was_not_heard_of_is_found_when_the_engine_is_back() {
    let Some(mut lab) = Lab::open("an end that was not heard of") else { return };
    let door = Door::open();
    lab.settings.engine = Some(door.host());
    let agent = lab.agent().await;
    // The first process keeps its feedback, as INGInious's does, before it says it.
    let keep = "mkdirs /.__output 0\nwrite /.__output/__feedback.json {\"result\":\"failed\",\"text\":\"kept\"}\n";
    lab.task("kept", &format!("sleep 2000\n{keep}result failed said"));
    lab.task("lost", "sleep 2000\nresult failed said");
    lab.task("said", "result success said\nsleep 3000");
    let kept = agent.submit(order("kept", graded("kept", &[]))).unwrap();
    let lost = agent.submit(order("lost", graded("lost", &[]))).unwrap();
    is_started(&lab, 2).await;
    door.shut().await;
    until("both have ended", || running(&lab) == 0).await;
    let began = Instant::now();
    door.open_again();
    let JobDone::Graded(kept) = &*done(kept).await else { panic!() };
    assert_eq!(brief(kept), (Verdict::Failed, "kept", ""), "what it has left is taken");
    let JobDone::Graded(lost) = &*done(lost).await else { panic!() };
    assert_eq!((lost.verdict, lost.caused_by), (Verdict::Crash, CausedBy::Infra));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

    // A result that was heard before counts, whatever comes after it.
    let mut follower = agent.submit(order("said", graded("said", &[]))).unwrap();
    assert!(matches!(follower.next().await, Some(JobNews::Started)));
    is_started(&lab, 1).await;
    door.shut().await;
    let JobDone::Graded(said) = &*done(follower).await else { panic!() };
    assert_eq!(brief(said), (Verdict::Success, "said", ""));
    door.open_again();
    lab.is_clean().await;
}

#[tokio::test]
async fn a_limit_is_kept_while_the_engine_is_away() {
    let Some(mut lab) = Lab::open("a limit without an engine") else { return };
    let door = Door::open();
    lab.settings.engine = Some(door.host());
    let agent = lab.agent().await;
    lab.task("sleep", "sleep 60000");
    let follower = agent.submit(order("1", graded("sleep", &[("hard_time", 3.into())]))).unwrap();
    is_started(&lab, 1).await;
    door.shut().await;
    // It cannot be ended now, and is answered nevertheless.
    let JobDone::Graded(done) = &*done(follower).await else { panic!() };
    assert_eq!(brief(done), (Verdict::Timeout, "", "before"));
    assert_eq!(running(&lab), 1);
    door.open_again();
    lab.is_clean().await;
}

#[tokio::test]
async fn an_engine_that_is_away_costs_few_lines_and_no_time() {
    let Some(mut lab) = Lab::open("log lines of an engine that is away") else { return };
    let door = Door::open();
    lab.settings.engine = Some(door.host());
    let agent = lab.agent().await;
    lab.task("works", "sleep 9000\nresult success");
    let follower = agent.submit(order("1", graded("works", &[]))).unwrap();
    is_started(&lab, 1).await;
    door.shut().await;
    let (before, cpu) = (crate::many::lines(), crate::many::cpu());
    sleep(Duration::from_secs(10)).await;
    let (written, used) = (crate::many::lines() - before, crate::many::cpu().saturating_sub(cpu));
    door.open_again();
    agent.kill(&id("1"));
    done(follower).await;
    lab.is_clean().await;
    assert!((1..100).contains(&written), "{written} lines");
    println!("{written} lines, {used:?} of processor time");
}

#[tokio::test]
async fn a_job_costs_few_requests_on_kept_connections() {
    let Some(mut lab) = Lab::open("requests of a job") else { return };
    let door = Door::open();
    lab.settings.engine = Some(door.host());
    let agent = lab.agent().await;
    lab.task("good", "result success");
    grade(&agent, "first", graded("good", &[])).await;
    lab.is_clean().await;
    let before = (door.asked.load(Ordering::Relaxed), door.connected.load(Ordering::Relaxed));
    for number in 0..5 {
        grade(&agent, &number.to_string(), graded("good", &[])).await;
    }
    lab.is_clean().await;
    let requests = door.asked.load(Ordering::Relaxed) - before.0;
    let connections = door.connected.load(Ordering::Relaxed) - before.1;
    println!("5 jobs: {requests} requests, {connections} connections");
    assert!(requests <= 30, "{requests} requests for 5 jobs");
}
