//! An agent dies without a word, and the next one takes up what it has left.

use crate::{
    image::docker,
    lab::{Lab, brief, done, graded, id, map, order, until},
};
use slotmux_agent::{Agent, AgentHandle, Debug, Graded, JobDone, JobFollower, StartError, Verdict};
use std::fs;
use tokio::runtime::Runtime;

/// An agent whose end is as sudden as that of a process.
struct Doomed {
    runtime: Runtime,
    agent: AgentHandle,
}

impl Doomed {
    fn start(lab: &Lab) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let agent = runtime.block_on(lab.agent());
        Self { runtime, agent }
    }

    /// Nothing that it does is finished.
    fn die(self) {
        drop(self.agent);
        self.runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    }
}

fn running(lab: &Lab) -> usize {
    let owner = format!("label=slotmux.agent={}", lab.settings.owner);
    docker(&["ps", "--quiet", "--filter", &owner]).unwrap().lines().count()
}

/// The agents are on threads of their own: this test is not on a runtime until it waits.
fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(future)
}

async fn take_up(lab: &Lab) -> (AgentHandle, Vec<JobFollower>) {
    let agent = Agent::start(lab.settings.clone()).await.unwrap();
    let mut adopted = agent.take_adopted();
    adopted.sort_by_key(|it| it.id().to_string());
    (agent, adopted)
}

async fn graded_done(follower: JobFollower) -> slotmux_agent::GradedDone {
    match &*done(follower).await {
        JobDone::Graded(done) => done.clone(),
        JobDone::Plain(done) => panic!("{done:?}"),
    }
}

#[test]
fn a_job_of_an_agent_that_died_goes_on_and_is_answered_by_the_next_one() {
    let Some(lab) = Lab::open("an agent that dies") else { return };
    lab.task("works", "sleep 4000\nresult success done");
    lab.task("sleeps", "sleep 60000");
    let doomed = Doomed::start(&lab);
    for (name, hard_s) in [("works", 60), ("sleeps", 6)] {
        let order = order(name, graded(name, &[("hard_time", hard_s.into())]));
        doomed.agent.submit(order).unwrap();
    }
    on_runtime(until("both run", || running(&lab) == 2));
    doomed.die();
    assert_eq!(running(&lab), 2, "they do not die with it");
    on_runtime(async {
        let (agent, adopted) = take_up(&lab).await;
        let [sleeps, works] = <[_; 2]>::try_from(adopted).unwrap();
        assert!(agent.follow(works.id()).is_some());
        assert_eq!(brief(&graded_done(works).await), (Verdict::Success, "done", ""));
        let done = graded_done(sleeps).await;
        assert_eq!(brief(&done), (Verdict::Timeout, "", "before"), "its limits hold");
        lab.is_clean().await;
        until("the slots are free", || agent.slots().borrow().free == 2).await;
        let again = Agent::start(lab.settings.clone()).await;
        assert!(matches!(again, Err(StartError::Taken)), "one agent at a time");
    });
}

#[test]
fn ports_of_a_job_that_goes_on_are_given_to_no_other() {
    let Some(mut lab) = Lab::open("ports of an agent that dies") else { return };
    lab.settings.ports = lab.port()..=lab.port();
    lab.task("sleep", "sleep 60000");
    let ssh = || Graded { debug: Debug::Ssh, ..graded("sleep", &[]) };
    let doomed = Doomed::start(&lab);
    doomed.agent.submit(order("1", ssh())).unwrap();
    on_runtime(until("it runs", || running(&lab) == 1));
    doomed.die();
    on_runtime(async {
        let (agent, mut adopted) = take_up(&lab).await;
        let done = graded_done(agent.submit(order("2", ssh())).unwrap()).await;
        assert!(done.text.starts_with("No ports"), "{}", done.text);
        agent.kill(&id("1"));
        let done = graded_done(adopted.pop().unwrap()).await;
        assert_eq!(brief(&done), (Verdict::Killed, "", "before"));
        lab.is_clean().await;
    });
}

#[test]
fn what_cannot_go_on_is_answered_and_orphans_are_removed() {
    let Some(lab) = Lab::open("orphans") else { return };
    let wishes = "wish a 0 0 0\nanswer\nanswer\ncode";
    let task = lab.task("parent", wishes);
    fs::write(task.join("student/run"), "sleep 60000").unwrap();
    lab.task("ends", "sleep 1500\nresult success unheard");
    let doomed = Doomed::start(&lab);
    for name in ["ends", "parent"] {
        doomed.agent.submit(order(name, graded(name, &[]))).unwrap();
    }
    on_runtime(until("three run", || running(&lab) == 3));
    doomed.die();
    // It ends while nobody is there; another container and folder are nobody's.
    on_runtime(until("one has ended", || running(&lab) == 2));
    let owner = format!("slotmux.agent={}", lab.settings.owner);
    docker(&["create", "--label", &owner, "--label", "slotmux.agent.run=x", crate::image::TAG])
        .unwrap();
    fs::create_dir_all(lab.settings.dir.join("jobs/0000000000000000/task")).unwrap();
    on_runtime(async {
        let (_agent, adopted) = take_up(&lab).await;
        let [ends, parent] = <[_; 2]>::try_from(adopted).unwrap();
        let done = graded_done(ends).await;
        assert_eq!((done.verdict, &*done.state), (Verdict::Crash, "before"));
        // Its student is gone, and it is told so.
        assert_eq!(brief(&graded_done(parent).await), (Verdict::Success, "254", ""));
        lab.is_clean().await;
    });
}

#[test]
fn a_job_that_had_not_begun_is_answered_by_the_next_agent() {
    let Some(lab) = Lab::open("a job that had not begun") else { return };
    lab.task("works", "sleep 60000");
    let doomed = Doomed::start(&lab);
    let order_ = Graded { parameters: map(&[]), ..graded("works", &[]) };
    doomed.agent.submit(order("1", order_)).unwrap();
    // Not before: what an engine is asked for by one that died comes when everybody has looked.
    let is_there = || lab.records() == 1 && lab.containers().len() == 1;
    on_runtime(until("record and container are there", is_there));
    doomed.die();
    for id in lab.containers() {
        docker(&["rm", "--force", &id]).unwrap();
    }
    on_runtime(async {
        let (_agent, mut adopted) = take_up(&lab).await;
        let done = graded_done(adopted.pop().unwrap()).await;
        assert_eq!((done.verdict, &*done.state), (Verdict::Crash, "before"));
        assert!(done.text.starts_with("The agent was restarted"), "{}", done.text);
        lab.is_clean().await;
    });
}
