//! One agent at the tests' engine, with tasks of its own. Nothing of it is left when this is
//! dropped.

use crate::image::{self, ENVIRONMENT, docker};
use rmpv::Value;
use slotmux_agent::{
    Agent, AgentHandle, Debug, Graded, GradedDone, JobDone, JobFollower, JobId, JobKind, JobOrder,
    Plain, PlainDone, PlainLimits, Priority, Settings, Verdict,
};
use std::{
    env, fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// For whatever is waited for: much longer than it takes.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) settings: Settings,
}

impl Lab {
    /// `None`: this machine has no engine, and that was said.
    pub(crate) fn open(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Err(why) = image::make() {
            println!("skipped: {test}: no Docker engine: {why}");
            let owed = rustix::process::geteuid().is_root();
            let ci = env::var("CI").is_ok_and(|it| it == "true");
            assert!(!(owed && ci), "CI must have it: {why}");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tasks")).unwrap();
        let owner = format!("it_{}_{number}", std::process::id());
        // Below those that are given to whoever asks, and hardly another lab's.
        let port = 10_000 + (std::process::id() * 64 + number * 2) % 20_000;
        let port = u16::try_from(port).unwrap();
        let settings = Settings {
            concurrency: 2,
            tasks: Some(dir.path().join("tasks")),
            ports: port..=port + 1,
            public_host: "grader.test".to_owned(),
            bind: Ipv4Addr::LOCALHOST.into(),
            ..Settings::new(owner, dir.path().join("agent"))
        };
        Some(Self { dir, settings })
    }

    pub(crate) async fn agent(&self) -> AgentHandle {
        let agent = Agent::start(self.settings.clone()).await.expect("an agent");
        let mut environments = agent.environments();
        let found = environments.wait_for(|it| it.get("docker", ENVIRONMENT).is_some());
        timeout(LIMIT, found).await.expect("the image is found").unwrap();
        agent
    }

    /// The first of its two.
    pub(crate) fn port(&self) -> u16 {
        *self.settings.ports.start()
    }

    /// A task that does this, line by line.
    pub(crate) fn task(&self, name: &str, script: &str) -> PathBuf {
        let dir = self.settings.tasks.as_ref().unwrap().join("course").join(name);
        fs::create_dir_all(dir.join("student")).unwrap();
        fs::write(dir.join("run"), script).unwrap();
        dir
    }

    /// Whatever the engine still holds of this lab.
    pub(crate) fn containers(&self) -> Vec<String> {
        let owner = format!("label=slotmux.agent={}", self.settings.owner);
        let found = docker(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &owner]);
        found.expect("ps").lines().map(str::to_owned).collect()
    }

    pub(crate) fn folders(&self) -> usize {
        fs::read_dir(self.settings.dir.join("jobs")).map_or(0, Iterator::count)
    }

    pub(crate) fn records(&self) -> usize {
        fs::read_dir(self.settings.dir.join("state")).map_or(0, Iterator::count)
    }

    /// Waits until nothing of any job is left.
    pub(crate) async fn is_clean(&self) {
        let left = || (self.containers(), self.folders(), self.records());
        until("nothing is left", || left() == (Vec::new(), 0, 0)).await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for id in self.containers() {
            // It may be gone already.
            let _ = docker(&["rm", "--force", "--volumes", &id]);
        }
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn id(text: &str) -> JobId {
    text.to_owned().try_into().unwrap()
}

pub(crate) fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

pub(crate) fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
}

/// Of a task, with these limits: `time`, `hard_time`, `memory`.
pub(crate) fn graded(task: &str, limits: &[(&str, Value)]) -> Graded {
    Graded {
        course_id: Some("course".to_owned()),
        task_id: Some(task.to_owned()),
        problems: map(&[]),
        inputdata: map(&[("@state", "before".into()), ("q", "1".into())]),
        environment_type: "docker".to_owned(),
        environment: ENVIRONMENT.to_owned(),
        parameters: map(&[("limits", map(limits))]),
        debug: Debug::No,
        files: None,
    }
}

pub(crate) fn order(name: &str, graded: Graded) -> JobOrder {
    JobOrder { id: id(name), kind: JobKind::Graded(graded), priority: Priority::default() }
}

/// In the tests' small image.
pub(crate) fn plain(command: &[&str]) -> Plain {
    Plain {
        image: "slotmux-test:busybox".to_owned(),
        command: command.iter().map(|it| (*it).to_owned()).collect(),
        env: Vec::new(),
        working_dir: None,
        user: None,
        files: None,
        files_dir: "/".to_owned(),
        stdin: bytes::Bytes::new(),
        limits: PlainLimits::default(),
        network: slotmux_agent::PlainNetwork::None,
    }
}

pub(crate) async fn done(follower: JobFollower) -> Arc<JobDone> {
    timeout(LIMIT, follower.done()).await.expect("an answer in time").expect("an answer")
}

pub(crate) async fn grade(agent: &AgentHandle, name: &str, order_: Graded) -> GradedDone {
    let follower = agent.submit(order(name, order_)).expect("it is taken");
    match &*done(follower).await {
        JobDone::Graded(done) => done.clone(),
        JobDone::Plain(done) => panic!("{done:?}"),
    }
}

pub(crate) async fn execute(agent: &AgentHandle, name: &str, order: Plain) -> PlainDone {
    let kind = JobKind::Plain(order);
    let order = JobOrder { id: id(name), kind, priority: Priority::default() };
    match &*done(agent.submit(order).expect("it is taken")).await {
        JobDone::Plain(done) => done.clone(),
        JobDone::Graded(done) => panic!("{done:?}"),
    }
}

/// Verdict, text and state.
pub(crate) fn brief(done: &GradedDone) -> (Verdict, &str, &str) {
    (done.verdict, &done.text, &done.state)
}
