//! Limits are kept, told apart, and never take away a result.

use crate::lab::{Lab, brief, done, grade, graded, id, order, until};
use slotmux_agent::{JobDone, JobNews, Verdict};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn processor_time_is_limited() {
    let Some(lab) = Lab::open("a limit of processor time") else { return };
    let agent = lab.agent().await;
    lab.task("burn", "burn");
    let done =
        grade(&agent, "1", graded("burn", &[("time", 3.into()), ("hard_time", 50.into())])).await;
    assert_eq!(brief(&done), (Verdict::Timeout, "", "before"));
    let cpu = done.usage.cpu.expect("it was seen");
    assert!(cpu > 3 * SECOND && cpu < 4 * SECOND, "{cpu:?}");
    lab.is_clean().await;
}

#[tokio::test]
async fn wall_time_is_limited() {
    let Some(lab) = Lab::open("a limit of wall time") else { return };
    let agent = lab.agent().await;
    lab.task("sleep", "sleep 60000");
    let done = grade(&agent, "1", graded("sleep", &[("hard_time", 2.into())])).await;
    assert_eq!(brief(&done), (Verdict::Timeout, "", "before"));
    let wall = done.usage.wall;
    assert!(wall >= 2 * SECOND && wall < 5 * SECOND, "{wall:?}");
}

#[tokio::test]
async fn memory_is_limited_and_its_end_is_no_timeout() {
    let Some(lab) = Lab::open("a limit of memory") else { return };
    let agent = lab.agent().await;
    lab.task("memory", "memory 300\nresult success");
    let limits = [("memory", 60.into()), ("hard_time", 50.into())];
    let done = grade(&agent, "1", graded("memory", &limits)).await;
    assert_eq!(brief(&done), (Verdict::Overflow, "", "before"));
    assert!(done.usage.wall < 20 * SECOND, "{:?}", done.usage);
    let done = grade(&agent, "2", graded("memory", &[("memory", 400.into())])).await;
    assert_eq!(brief(&done), (Verdict::Success, "", ""));
    lab.is_clean().await;
}

#[tokio::test]
async fn processes_are_limited() {
    let Some(mut lab) = Lab::open("a limit of processes") else { return };
    lab.settings.processes = 50;
    let agent = lab.agent().await;
    lab.task("processes", "processes 200");
    let done = grade(&agent, "1", graded("processes", &[])).await;
    let count: u32 = done.text.parse().unwrap();
    assert!((20..50).contains(&count), "{count}");
}

#[tokio::test]
async fn a_limit_that_is_met_after_the_result_does_not_take_it_away() {
    let Some(lab) = Lab::open("a limit after the result") else { return };
    let agent = lab.agent().await;
    lab.task("late", "result success kept\nburn");
    let done = grade(&agent, "1", graded("late", &[("time", 1.into())])).await;
    assert_eq!(brief(&done), (Verdict::Success, "kept", ""));
    lab.task("slow", "result success kept\nsleep 60000");
    let done = grade(&agent, "2", graded("slow", &[("hard_time", 2.into())])).await;
    assert_eq!(brief(&done), (Verdict::Success, "kept", ""));
    lab.task("eats", "result success kept\nmemory 300");
    let done = grade(&agent, "3", graded("eats", &[("memory", 60.into())])).await;
    assert_eq!(brief(&done), (Verdict::Success, "kept", ""));
    lab.is_clean().await;
}

#[tokio::test]
async fn a_kill_ends_a_job_wherever_it_is_and_its_container_with_it() {
    let Some(lab) = Lab::open("kills") else { return };
    let agent = lab.agent().await;
    let task = lab.task("large", "sleep 60000");
    // A copy that takes a while.
    std::fs::write(task.join("data"), vec![0; 300 << 20]).unwrap();
    let verdict = async |follower| match &*done(follower).await {
        JobDone::Graded(done) => (done.verdict, done.text.clone(), done.state.clone()),
        JobDone::Plain(done) => panic!("{done:?}"),
    };
    let killed = (Verdict::Killed, String::new(), "before".to_owned());
    // At once, while it waits, while it is copied, and when it runs.
    for name in ["early", "copied", "runs", "waits"] {
        let mut follower = agent.submit(order(name, graded("large", &[]))).unwrap();
        match name {
            "copied" => {
                follower.next().await;
                until("its folder is there", || lab.folders() > 0).await;
            }
            "runs" => until("its container is there", || !lab.containers().is_empty()).await,
            "waits" => {
                agent.submit(order("first", graded("large", &[]))).unwrap();
                agent.submit(order("second", graded("large", &[]))).unwrap();
                let third = agent.submit(order("third", graded("large", &[]))).unwrap();
                assert_eq!(agent.slots().borrow().waiting, 2);
                agent.kill(&id("third"));
                assert_eq!(verdict(third).await, killed, "it had no slot yet");
                agent.kill(&id("first"));
                agent.kill(&id("second"));
            }
            _ => {}
        }
        let began = Instant::now();
        agent.kill(&id(name));
        assert_eq!(verdict(follower).await, killed, "{name}");
        assert!(began.elapsed() < 20 * SECOND, "{name}: {:?}", began.elapsed());
        lab.is_clean().await;
    }
    until("the slots are free", || agent.slots().borrow().free == 2).await;
}

#[tokio::test]
async fn who_matters_more_goes_first() {
    let Some(mut lab) = Lab::open("priorities") else { return };
    lab.settings.concurrency = 1;
    let agent = lab.agent().await;
    lab.task("short", "result success");
    lab.task("long", "sleep 60000");
    let first = agent.submit(order("first", graded("long", &[]))).unwrap();
    let submit = |name: &str, priority| {
        let mut order = order(name, graded("short", &[]));
        order.priority = slotmux_agent::Priority(priority);
        agent.submit(order).unwrap()
    };
    let mut all = [submit("c", 5), submit("a", -1), submit("d", 5), submit("b", 0)];
    agent.kill(&id("first"));
    done(first).await;
    let mut begun = Vec::new();
    // Each has its slot only when the one before it is gone.
    let [c, a, d, b] = &mut all;
    for follower in [a, b, c, d] {
        assert!(matches!(follower.next().await, Some(JobNews::Started)));
        begun.push(follower.id().to_string());
        assert!(matches!(follower.next().await, Some(JobNews::Done(_))));
    }
    assert_eq!(begun, ["a", "b", "c", "d"]);
    lab.is_clean().await;
}
