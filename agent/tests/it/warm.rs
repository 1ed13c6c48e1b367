//! Containers that were started ahead.

use crate::{
    image::docker,
    lab::{Lab, brief, grade, graded, until},
};
use slotmux_agent::Verdict;
use std::time::Duration;
use tokio::time::Instant;

fn ready(lab: &Lab) -> usize {
    let owner = format!("label=slotmux.agent={}", lab.settings.owner);
    docker(&["ps", "--quiet", "--filter", &owner]).unwrap().lines().count()
}

#[tokio::test]
async fn a_job_in_a_container_that_was_started_ahead_is_as_any_other_and_sooner_done() {
    let Some(mut lab) = Lab::open("a warm start") else { return };
    lab.settings.warm = 1;
    let agent = lab.agent().await;
    lab.task("good", "result success fine");
    let began = Instant::now();
    grade(&agent, "cold", graded("good", &[])).await;
    let cold = began.elapsed();
    for number in 0..3 {
        until("one is ready", || ready(&lab) == 1).await;
        let began = Instant::now();
        let done = grade(&agent, &number.to_string(), graded("good", &[])).await;
        println!("cold {cold:?}, warm {:?}", began.elapsed());
        assert_eq!(brief(&done), (Verdict::Success, "fine", ""));
    }
    agent.shutdown().await;
    lab.is_clean().await;
}

#[tokio::test]
async fn its_limits_are_the_jobs_and_counted_from_its_beginning() {
    let Some(mut lab) = Lab::open("limits of a warm start") else { return };
    lab.settings.warm = 1;
    let agent = lab.agent().await;
    lab.task("good", "result success");
    lab.task("burn", "burn");
    lab.task("sleep", "sleep 60000");
    lab.task("memory", "memory 100\nresult success");
    grade(&agent, "0", graded("good", &[])).await;
    for (name, limits, verdict) in [
        ("burn", [("time", 1.into()), ("memory", 300.into())], Verdict::Timeout),
        ("sleep", [("hard_time", 1.into()), ("memory", 20.into())], Verdict::Timeout),
        ("memory", [("time", 30.into()), ("memory", 60.into())], Verdict::Overflow),
        ("memory", [("time", 30.into()), ("memory", 160.into())], Verdict::Success),
    ] {
        until("one is ready", || ready(&lab) == 1).await;
        let done = grade(&agent, name, graded(name, &limits)).await;
        assert_eq!(done.verdict, verdict, "{name}");
        assert!(done.usage.wall < Duration::from_secs(10), "{:?}", done.usage);
    }
    agent.shutdown().await;
    lab.is_clean().await;
}

#[tokio::test]
async fn one_that_has_ended_is_given_to_nobody() {
    let Some(mut lab) = Lab::open("a warm container that has ended") else { return };
    lab.settings.warm = 1;
    let agent = lab.agent().await;
    lab.task("good", "result success");
    grade(&agent, "0", graded("good", &[])).await;
    until("one is ready", || ready(&lab) == 1).await;
    // The other may be one that is being cleared away.
    for id in lab.containers() {
        let _ = docker(&["kill", &id]);
    }
    until("it has ended", || ready(&lab) == 0).await;
    let done = grade(&agent, "1", graded("good", &[])).await;
    assert_eq!(done.verdict, Verdict::Success, "{}", done.text);
    agent.shutdown().await;
    lab.is_clean().await;
}
