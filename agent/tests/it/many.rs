//! Many jobs, and nothing that grows with them.

use crate::lab::{Lab, done, graded, order, until};
use slotmux_agent::{JobDone, Verdict};
use std::{cell::Cell, fs, sync::Once, time::Duration};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

thread_local! {
    static LINES: Cell<u64> = const { Cell::new(0) };
}

struct Counter;

impl<S: tracing::Subscriber> Layer<S> for Counter {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::INFO {
            LINES.set(LINES.get() + 1);
        }
    }
}

/// That would have been logged by this thread, on which all of a test's tasks are. Counted from the
/// first call in this process on.
pub(crate) fn lines() -> u64 {
    static COUNTS: Once = Once::new();
    COUNTS.call_once(|| {
        tracing::subscriber::set_global_default(Registry::default().with(Counter))
            .expect("nobody else counts");
    });
    LINES.get()
}

/// Processor time of this thread.
pub(crate) fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Runs this many, of four kinds, and returns how they ended.
async fn run(agent: &slotmux_agent::AgentHandle, from: usize, count: usize) {
    let kinds = [
        ("good", Verdict::Success),
        ("none", Verdict::Crash),
        ("student", Verdict::Success),
        ("burn", Verdict::Timeout),
    ];
    let limits = [("time", 1.into()), ("hard_time", 20.into())];
    let all: Vec<_> = (from..from + count)
        .map(|number| {
            // One in fifty burns its second.
            let kind = if number % 50 == 0 { 3 } else { number % 3 };
            let order = order(&number.to_string(), graded(kinds[kind].0, &limits));
            (kinds[kind].1, agent.submit(order).unwrap())
        })
        .collect();
    for (verdict, follower) in all {
        let name = follower.id().clone();
        let JobDone::Graded(done) = &*done(follower).await else { panic!() };
        assert_eq!(done.verdict, verdict, "{name}: {}", done.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_leave_no_containers_folders_or_slots() {
    let Some(mut lab) = Lab::open("many jobs") else { return };
    lab.settings.concurrency = 4;
    let agent = lab.agent().await;
    lab.task("good", "result success");
    lab.task("none", "exit 3");
    let task = lab.task("student", "student s1 0 0 0\nresult success");
    fs::write(task.join("student/run"), "exit 5").unwrap();
    lab.task("burn", "burn");
    run(&agent, 0, 8).await;
    lab.is_clean().await;
    run(&agent, 8, 60).await;
    lab.is_clean().await;
    until("all slots are free", || {
        let slots = *agent.slots().borrow();
        (slots.free, slots.waiting) == (4, 0)
    })
    .await;
    agent.shutdown().await;
    assert!(matches!(
        agent.submit(order("late", graded("good", &[]))),
        Err(slotmux_agent::Refused::ShuttingDown)
    ));
}
