//! Jobs of a backend: through ZeroMQ, in containers of a real engine.

use crate::{
    image::{DIES, ENVIRONMENT},
    lab::{Lab, map, until},
    router::{Peer, Router},
};
use rmpv::Value;
use slotmux_agent::{AgentHandle, BackendSettings, serve_backend};
use std::{collections::BTreeSet, time::Duration};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

struct Site {
    lab: Lab,
    agent: AgentHandle,
    router: Router,
    shutdown: CancellationToken,
    door: JoinHandle<()>,
}

impl Site {
    async fn open(test: &str) -> Option<(Self, Peer)> {
        let lab = Lab::open(test)?;
        let router = Router::ipc(&lab.dir.path().join("backend"));
        Some(Self::at(lab, router, |_| {}).await)
    }

    async fn with(test: &str, change: impl FnOnce(&mut BackendSettings)) -> Option<(Self, Peer)> {
        let lab = Lab::open(test)?;
        Some(Self::at(lab, Router::new().await, change).await)
    }

    async fn at(
        lab: Lab,
        router: Router,
        change: impl FnOnce(&mut BackendSettings),
    ) -> (Self, Peer) {
        let agent = lab.agent().await;
        let mut settings = BackendSettings::new(router.address().parse().unwrap(), "it");
        settings.silence_max = Duration::from_mins(10);
        settings.recognition_wait = Duration::from_millis(100);
        settings.mute_wait = crate::lab::LIMIT;
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let door = serve_backend(agent.clone(), settings, Vec::new(), shutdown.clone());
        let door = tokio::spawn(door);
        let mut peer = router.accept().await;
        let hello = peer.expect("AgentHello").await;
        assert_eq!(hello["available_job_slots"], 2.into());
        let environment = &hello["available_environments"]["docker"][ENVIRONMENT];
        let fields = ["id", "created", "ports", "advertised", "title", "runtime"];
        assert_eq!(keys(environment), fields.into());
        peer.passes_hellos = true;
        (Self { lab, agent, router, shutdown, door }, peer)
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.agent.shutdown().await;
        timeout(crate::lab::LIMIT, self.door).await.expect("the door does not close").unwrap();
        self.lab.is_clean().await;
    }
}

fn keys(map: &Value) -> BTreeSet<&str> {
    map.as_map().unwrap().iter().map(|(key, _)| key.as_str().unwrap()).collect()
}

fn job(id: &str, task: &str, limits: &[(&str, Value)]) -> Vec<(&'static str, Value)> {
    vec![
        ("job_id", id.into()),
        ("course_id", "course".into()),
        ("task_id", task.into()),
        ("task_problems", map(&[])),
        ("inputdata", map(&[("@state", "before".into()), ("q", Value::Binary(vec![0, 255]))])),
        ("environment_type", "docker".into()),
        ("environment", ENVIRONMENT.into()),
        ("environment_parameters", map(&[("limits", map(limits))])),
        ("debug", false.into()),
    ]
}

fn changed(
    mut fields: Vec<(&'static str, Value)>,
    name: &str,
    value: Value,
) -> Vec<(&'static str, Value)> {
    let field = fields.iter_mut().find(|(it, _)| *it == name).unwrap();
    field.1 = value;
    fields
}

async fn done(peer: &mut Peer, id: &str) -> Value {
    let done = peer.expect("AgentJobDone").await;
    let fields = [
        "@type", "job_id", "result", "grade", "problems", "tests", "custom", "state", "archive",
        "stdout", "stderr",
    ];
    assert_eq!(keys(&done), fields.into());
    assert!(matches!(done["grade"], Value::F64(_)), "{done}");
    assert_eq!(done["job_id"], id.into());
    done
}

/// Result, text, and state.
fn brief(done: &Value) -> (&str, &str, &str) {
    let result = done["result"].as_array().unwrap();
    assert_eq!(result.len(), 2);
    (result[0].as_str().unwrap(), result[1].as_str().unwrap(), done["state"].as_str().unwrap())
}

async fn run(peer: &mut Peer, id: &str, fields: Vec<(&str, Value)>) -> Value {
    peer.say("BackendNewJob", fields).await;
    assert_eq!(peer.expect("AgentJobStarted").await["job_id"], id.into());
    done(peer, id).await
}

#[tokio::test]
async fn every_verdict_comes_through_the_door() {
    let Some((site, mut peer)) = Site::open("verdicts at the backend's door").await else { return };
    for verdict in ["success", "failed", "error", "timeout", "overflow", "killed", "crash"] {
        site.lab.task(verdict, &format!("result {verdict} said"));
        let done = run(&mut peer, verdict, job(verdict, verdict, &[])).await;
        assert_eq!(brief(&done), (verdict, "said", ""));
        let grade = if verdict == "success" { 100.0 } else { 0.0 };
        assert_eq!(done["grade"], Value::F64(grade));
    }
    site.lab.task("none", "exit 0");
    let done = run(&mut peer, "none", job("none", "none", &[])).await;
    assert_eq!((brief(&done).0, brief(&done).2, &done["stdout"]), ("crash", "before", &Value::Nil));
    site.close().await;
}

#[tokio::test]
async fn every_limit_comes_through_the_door() {
    let Some((site, mut peer)) = Site::open("limits at the backend's door").await else { return };
    site.lab.task("burn", "burn 0");
    site.lab.task("sleep", "sleep 60000");
    site.lab.task("memory", "memory 1000");
    let soft = job("soft", "burn", &[("time", "1".into())]);
    assert_eq!(brief(&run(&mut peer, "soft", soft).await), ("timeout", "", "before"));
    let hard = job("hard", "sleep", &[("hard_time", 1.into())]);
    assert_eq!(brief(&run(&mut peer, "hard", hard).await), ("timeout", "", "before"));
    let memory = job("memory", "memory", &[("memory", 30.into())]);
    assert_eq!(brief(&run(&mut peer, "memory", memory).await), ("overflow", "", "before"));
    site.close().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_answered_and_the_agent_goes_on() {
    let Some((site, mut peer)) = Site::open("bad jobs at the backend's door").await else { return };
    site.lab.task("good", "result success fine");
    let good = || job("j", "good", &[]);
    let nonsense: [(&str, Value); 8] = [
        ("environment", "no-such".into()),
        ("environment_type", "no-such".into()),
        ("task_id", "../tasks".into()),
        ("task_id", "no-such".into()),
        ("course_id", "/course".into()),
        ("course_id", Value::Nil),
        ("environment_parameters", map(&[("limits", map(&[("time", "soon".into())]))])),
        ("environment_parameters", map(&[("limits", map(&[("memory", 100_000_000.into())]))])),
    ];
    for (name, value) in nonsense {
        let done = run(&mut peer, "j", changed(good(), name, value.clone())).await;
        let (verdict, text, state) = brief(&done);
        assert_eq!((verdict, state), ("crash", "before"), "{name} {value}: {text}");
        assert!(!text.is_empty() && done["stdout"].is_nil(), "{name} {value}");
    }
    let done = run(&mut peer, "j", changed(good(), "environment", DIES.into())).await;
    assert_eq!(brief(&done).0, "crash");
    assert_eq!(brief(&run(&mut peer, "j", good()).await).0, "success");
    site.close().await;
}

#[tokio::test]
async fn a_kill_is_answered_once_at_whatever_time_it_comes() {
    let Some((site, mut peer)) = Site::open("kills at the backend's door").await else { return };
    site.lab.task("sleep", "sleep 60000");
    let kill = |id: &str| vec![("job_id", id.into()), ("state", "of the kill".into())];
    peer.say("BackendKillJob", kill("nobody")).await;
    assert_eq!(brief(&done(&mut peer, "nobody").await), ("killed", "", "of the kill"));
    // Before there is a container, most likely.
    peer.say("BackendNewJob", job("early", "sleep", &[])).await;
    peer.say("BackendKillJob", kill("early")).await;
    peer.expect("AgentJobStarted").await;
    assert_eq!(brief(&done(&mut peer, "early").await), ("killed", "", "before"));
    peer.say("BackendNewJob", job("late", "sleep", &[])).await;
    peer.expect("AgentJobStarted").await;
    until("it has a container", || !site.lab.containers().is_empty()).await;
    for _ in 0..3 {
        peer.say("BackendKillJob", kill("late")).await;
    }
    assert_eq!(brief(&done(&mut peer, "late").await), ("killed", "", "before"));
    site.close().await;
}

#[tokio::test]
async fn a_backend_that_starts_anew_gets_what_the_old_one_has_asked_for() {
    let opened = Site::with("a backend that starts anew", |_| {}).await;
    let Some((site, mut peer)) = opened else { return };
    site.lab.task("slow", "sleep 500\nresult success slow");
    site.lab.task("quick", "result success quick");
    peer.say("BackendNewJob", job("a", "slow", &[])).await;
    peer.say("BackendNewJob", job("b", "quick", &[])).await;
    peer.expect("AgentJobStarted").await;
    peer.expect("AgentJobStarted").await;
    let address = site.router.address().replace("tcp://", "");
    let Site { lab, agent, router, shutdown, door } = site;
    drop((peer, router));
    let idle = async { agent.slots().wait_for(|slots| slots.free == 2).await.map(|_| ()) };
    timeout(crate::lab::LIMIT, idle).await.expect("they end").unwrap();
    let site = Site { router: Router::bind(&address).await, lab, agent, shutdown, door };
    let mut peer = site.router.accept().await;
    peer.expect("AgentHello").await;
    peer.passes_hellos = true;
    let mut texts = BTreeSet::new();
    for _ in 0..2 {
        let done = peer.expect("AgentJobDone").await;
        texts.insert(brief(&done).1.to_owned());
    }
    assert_eq!(texts, ["quick".to_owned(), "slow".to_owned()].into());
    peer.is_quiet().await;
    site.close().await;
}

#[tokio::test]
async fn a_silent_backend_costs_a_connection_and_no_job() {
    let silence = Duration::from_millis(300);
    let opened = Site::with("a silent backend", |it| it.silence_max = silence).await;
    let Some((site, mut peer)) = opened else { return };
    site.lab.task("slow", "sleep 1000\nresult success slow");
    peer.say("BackendNewJob", job("a", "slow", &[])).await;
    peer.expect("AgentJobStarted").await;
    assert_eq!(peer.hear().await, None, "it is left");
    let mut peer = site.router.accept().await;
    // Silent again, as often as it takes.
    loop {
        match peer.hear().await {
            Some(done) if done["@type"] == "AgentJobDone".into() => {
                assert_eq!(brief(&done).1, "slow");
                break;
            }
            Some(hello) => assert_eq!(hello["@type"], "AgentHello".into()),
            None => peer = site.router.accept().await,
        }
    }
    site.close().await;
}
