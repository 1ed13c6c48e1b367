//! The door between a ROUTER and an agent whose jobs end when a test says so.

#[path = "../../tests/it/router.rs"]
mod router;

use super::{BackendSettings, door::Door};
use crate::{
    Environment, Environments, GradedDone, JobDone, JobKind, Refused, SshDebug, Verdict,
    jobs::{Jobs, fake::FakeJobs},
};
use rmpv::Value;
use router::{LIMIT, Peer, Router};
use slotmux_protocol::CausedBy;
use std::{collections::BTreeMap, time::Duration};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

struct House {
    router: Router,
    jobs: FakeJobs,
    shutdown: CancellationToken,
    door: JoinHandle<()>,
}

impl House {
    async fn open() -> Self {
        Self::with(Router::new().await, |_| {})
    }

    fn with(router: Router, change: impl FnOnce(&mut BackendSettings)) -> Self {
        let jobs = FakeJobs::new(4);
        let mut settings = BackendSettings::new(router.address().parse().unwrap(), "test");
        settings.silence_max = LIMIT;
        settings.notice_wait = Duration::from_millis(50);
        settings.recognition_wait = Duration::from_millis(50);
        settings.mute_wait = LIMIT;
        settings.answers_wait = Duration::from_millis(200);
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let door = Door::new(jobs.clone(), settings, Vec::new()).run(shutdown.clone());
        Self { router, jobs, shutdown, door: tokio::spawn(door) }
    }

    async fn greeted(&self) -> Peer {
        let mut peer = self.router.accept().await;
        peer.expect("AgentHello").await;
        peer
    }

    fn finish(&self, id: &str, text: &str) {
        let done = GradedDone::without_result(Verdict::Success, text, "s", CausedBy::Policy);
        self.jobs.finish(id, JobDone::Graded(done));
    }

    async fn close(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.door).await.expect("the door does not close").unwrap();
    }
}

fn job(id: &str) -> Vec<(&'static str, Value)> {
    let inputdata = vec![("@state".into(), "before".into())];
    vec![
        ("job_id", id.into()),
        ("course_id", Value::Nil),
        ("task_id", Value::Nil),
        ("task_problems", Value::Map(Vec::new())),
        ("inputdata", Value::Map(inputdata)),
        ("environment_type", "docker".into()),
        ("environment", "default".into()),
        ("environment_parameters", Value::Map(Vec::new())),
        ("debug", false.into()),
    ]
}

async fn give(peer: &mut Peer, id: &str) {
    peer.say("BackendNewJob", job(id)).await;
    assert_eq!(peer.expect("AgentJobStarted").await["job_id"], id.into());
}

async fn expect_done(peer: &mut Peer, id: &str, verdict: &str, text: &str) -> Value {
    let done = peer.expect("AgentJobDone").await;
    assert_eq!(done["job_id"], id.into());
    assert_eq!(done["result"], Value::Array(vec![verdict.into(), text.into()]));
    done
}

fn some_environment() -> Environments {
    let environment = Environment {
        id: "sha256:1".to_owned(),
        created: 1,
        ports: Vec::new(),
        advertised: true,
        title: "Default".to_owned(),
        runtime: "runc".to_owned(),
        run_as_root: false,
    };
    let named = BTreeMap::from([("default".to_owned(), environment)]);
    Environments(BTreeMap::from([("docker".to_owned(), named)]))
}

#[tokio::test]
async fn it_says_hello_and_answers_pings_on_every_kind_of_address() {
    let dir = tempfile::tempdir().unwrap();
    let routers =
        [Router::new().await, Router::bind("[::1]:0").await, Router::ipc(&dir.path().join("s"))];
    for router in routers {
        let house = House::with(router, |_| {});
        let mut peer = house.router.accept().await;
        let hello = peer.expect("AgentHello").await;
        assert_eq!(hello["friendly_name"], "test".into());
        assert_eq!(hello["available_job_slots"], 4.into());
        assert_eq!(hello["available_environments"], Value::Map(Vec::new()));
        peer.is_quiet().await;
        house.close().await;
    }
}

#[tokio::test]
async fn a_job_is_started_at_once_and_answered_once() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    give(&mut peer, "j").await;
    peer.is_quiet().await;
    let order = house.jobs.start("j");
    let JobKind::Graded(graded) = order.kind else { panic!("another kind") };
    assert_eq!(graded.inputdata["@state"], "before".into());
    let ssh = SshDebug { host: "h".into(), port: 9, user: "u".into(), password: "p".into() };
    house.jobs.ssh("j", ssh);
    assert_eq!(peer.expect("AgentJobSSHDebug").await["port"], 9.into());
    house.finish("j", "well done");
    let done = expect_done(&mut peer, "j", "success", "well done").await;
    assert_eq!((&done["state"], &done["archive"]), (&"s".into(), &Value::Nil));
    peer.is_quiet().await;
    house.close().await;
}

#[tokio::test]
async fn a_kill_reaches_its_job_and_one_of_nobody_is_answered_with_its_state() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    peer.say("BackendKillJob", vec![("job_id", "x".into()), ("state", "old".into())]).await;
    let done = expect_done(&mut peer, "x", "killed", "").await;
    assert_eq!(done["state"], "old".into());
    give(&mut peer, "j").await;
    for _ in 0..2 {
        peer.say("BackendKillJob", vec![("job_id", "j".into()), ("state", "old".into())]).await;
    }
    expect_done(&mut peer, "j", "killed", "").await;
    assert_eq!(house.jobs.killed().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn a_job_that_comes_twice_is_one_job() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    give(&mut peer, "j").await;
    peer.say("BackendNewJob", job("j")).await;
    peer.is_quiet().await;
    house.finish("j", "once");
    expect_done(&mut peer, "j", "success", "once").await;
    peer.is_quiet().await;
    // It has been answered, so this is another job.
    give(&mut peer, "j").await;
    house.finish("j", "again");
    expect_done(&mut peer, "j", "success", "again").await;
    house.close().await;
}

#[tokio::test]
async fn an_id_can_be_used_again_as_soon_as_its_answer_is_there() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    peer.receipts = false;
    give(&mut peer, "j").await;
    house.finish("j", "once");
    expect_done(&mut peer, "j", "success", "once").await;
    give(&mut peer, "j").await;
    house.finish("j", "again");
    expect_done(&mut peer, "j", "success", "again").await;
    house.close().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_survived_and_a_mutilated_job_is_answered() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    for bytes in [&b""[..], b"\xc1", b"\xdd\xff\xff\xff\xff", &[0x91; 5_000], b"\x80", b"\x01"] {
        peer.say_bytes(bytes).await;
    }
    peer.say("BackendNonsense", vec![]).await;
    peer.say("BackendKillJob", vec![("job_id", "j".into())]).await;
    peer.say("BackendNewJob", vec![("job_id", 7.into())]).await;
    peer.is_quiet().await;
    let mut mutilated = job("j");
    mutilated.pop();
    peer.say("BackendNewJob", mutilated).await;
    peer.expect("AgentJobStarted").await;
    let text = "The agent does not understand this job: `debug` is missing";
    expect_done(&mut peer, "j", "crash", text).await;
    assert_eq!(house.jobs.running(), 0);
    house.close().await;
}

#[tokio::test]
async fn a_job_that_is_refused_is_answered_with_the_state_before() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    house.jobs.refuse(Some(Refused::Full));
    give(&mut peer, "j").await;
    let text = "Too many jobs wait on this agent. Please retry later.";
    let done = expect_done(&mut peer, "j", "crash", text).await;
    assert_eq!(done["state"], "before".into());
    house.close().await;
}

#[tokio::test]
async fn a_silent_backend_is_left_and_its_jobs_go_on() {
    let silence = Duration::from_secs(2);
    let house = House::with(Router::new().await, |it| it.silence_max = silence);
    let mut first = house.greeted().await;
    give(&mut first, "j").await;
    assert_eq!(first.hear().await, None, "it is left");
    let mut second = house.router.accept().await;
    assert_eq!(second.hear().await, None, "nobody has noticed it");
    let mut third = house.greeted().await;
    house.finish("j", "kept");
    expect_done(&mut third, "j", "success", "kept").await;
    house.close().await;
}

#[tokio::test]
async fn an_answer_without_a_receipt_is_said_again_and_one_with_it_is_not() {
    let house = House::open().await;
    let mut first = house.greeted().await;
    give(&mut first, "a").await;
    give(&mut first, "b").await;
    give(&mut first, "c").await;
    house.finish("a", "1");
    expect_done(&mut first, "a", "success", "1").await;
    // What comes after the answer is read after its receipt.
    first.is_quiet().await;
    first.receipts = false;
    house.finish("b", "2");
    expect_done(&mut first, "b", "success", "2").await;
    drop(first);
    house.finish("c", "3");
    let mut second = house.greeted().await;
    expect_done(&mut second, "b", "success", "2").await;
    expect_done(&mut second, "c", "success", "3").await;
    second.is_quiet().await;
    house.close().await;
}

#[tokio::test]
async fn a_backend_that_still_knows_it_keeps_its_jobs() {
    let house = House::with(Router::new().await, |it| it.recognition_wait = LIMIT);
    let mut first = house.greeted().await;
    give(&mut first, "j").await;
    give(&mut first, "k").await;
    let identity = first.identity.clone();
    drop(first);
    house.finish("j", "held");
    let mut second = house.router.accept().await;
    assert_eq!(second.identity, identity);
    second.is_quiet().await;
    expect_done(&mut second, "j", "success", "held").await;
    house.finish("k", "late");
    expect_done(&mut second, "k", "success", "late").await;
    // Now nothing is lost by it, and what was lost before is found out.
    second.expect("AgentHello").await;
    house.close().await;
}

#[tokio::test]
async fn a_backend_that_is_there_again_after_a_silence_is_said_hello_once_nothing_is_in_hand() {
    let house = House::with(Router::new().await, |it| {
        it.silence_max = Duration::from_secs(2);
        it.notice_wait = LIMIT;
    });
    let mut first = house.greeted().await;
    give(&mut first, "j").await;
    assert_eq!(first.hear().await, None, "it is left");
    let mut second = house.router.accept().await;
    second.is_quiet().await;
    house.finish("j", "kept");
    expect_done(&mut second, "j", "success", "kept").await;
    second.expect("AgentHello").await;
    house.close().await;
}

#[tokio::test]
async fn a_backend_that_does_not_notice_a_new_connection_gets_another_peer() {
    let house = House::with(Router::new().await, |it| it.mute_wait = Duration::from_millis(50));
    let mut first = house.greeted().await;
    first.is_quiet().await;
    let identity = first.identity.clone();
    drop(first);
    let mut second = house.greeted().await;
    assert_eq!(second.identity, identity);
    assert_eq!(second.hear().await, None, "it is left");
    let mut third = house.greeted().await;
    assert_ne!(third.identity, identity);
    third.is_quiet().await;
    house.close().await;
}

#[tokio::test]
async fn it_comes_back_to_a_backend_that_was_away() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    give(&mut peer, "j").await;
    let address = house.router.address().replace("tcp://", "");
    let House { router, jobs, shutdown, door } = house;
    drop((peer, router));
    let done = GradedDone::without_result(Verdict::Failed, "meanwhile", "", CausedBy::Policy);
    jobs.finish("j", JobDone::Graded(done));
    let house = House { router: Router::bind(&address).await, jobs, shutdown, door };
    let mut peer = house.greeted().await;
    expect_done(&mut peer, "j", "failed", "meanwhile").await;
    house.close().await;
}

#[tokio::test]
async fn new_environments_are_said_once_nothing_is_in_hand() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    house.jobs.change_environments(some_environment());
    let hello = peer.expect("AgentHello").await;
    assert_eq!(hello["available_environments"]["docker"]["default"]["title"], "Default".into());
    give(&mut peer, "j").await;
    house.jobs.change_environments(Environments::default());
    // A backend would take the job for lost.
    peer.is_quiet().await;
    house.finish("j", "");
    expect_done(&mut peer, "j", "success", "").await;
    let hello = peer.expect("AgentHello").await;
    assert_eq!(hello["available_environments"], Value::Map(Vec::new()));
    house.close().await;
}

#[tokio::test]
async fn a_job_that_the_agent_has_lost_is_a_crash() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    give(&mut peer, "j").await;
    house.jobs.lose("j");
    expect_done(&mut peer, "j", "crash", "The agent has lost this job.").await;
    house.close().await;
}

#[tokio::test]
async fn it_parts_when_all_is_said_and_says_that_it_can_do_nothing() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    give(&mut peer, "j").await;
    house.shutdown.cancel();
    peer.is_quiet().await;
    house.finish("j", "last");
    expect_done(&mut peer, "j", "success", "last").await;
    let hello = peer.expect("AgentHello").await;
    assert_eq!(hello["available_job_slots"], 0.into());
    assert_eq!(hello["available_environments"], Value::Map(Vec::new()));
    assert_eq!(peer.hear().await, None);
    house.close().await;
}

#[tokio::test]
async fn it_ends_without_a_backend_too() {
    let house = House::open().await;
    let mut peer = house.greeted().await;
    give(&mut peer, "j").await;
    let House { router, jobs, shutdown, door } = house;
    drop((peer, router));
    shutdown.cancel();
    jobs.kill(&"j".to_owned().try_into().unwrap());
    timeout(LIMIT, door).await.expect("the door does not close").unwrap();
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_costs_its_connection() {
    let house = House::open().await;
    for bytes in
        [&b"\x02\x7f\xff\xff\xff\xff\xff\xff\xff"[..], b"\x08\0", b"\x06\0\0\0\0\xff\xff\xff\xff"]
    {
        let mut peer = house.greeted().await;
        peer.write_raw(bytes).await;
        assert_eq!(peer.hear().await, None);
    }
    house.greeted().await.is_quiet().await;
    house.close().await;
}
