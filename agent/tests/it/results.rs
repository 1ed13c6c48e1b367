//! What a job comes to when nothing is in its way, or when it cannot begin.

use crate::{
    image::{BROKEN, DIES, docker},
    lab::{LIMIT, Lab, brief, grade, graded, hex, id, map, order, until},
};
use rmpv::Value;
use slotmux_agent::{Debug, Graded, JobNews, Kill, Refused, Verdict};
use slotmux_protocol::CausedBy;
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn a_job_is_graded_and_leaves_nothing() {
    let Some(lab) = Lab::open("a graded job") else { return };
    let agent = lab.agent().await;
    lab.task("good", "result success fine\nexit 1");
    let mut follower = agent.submit(order("1", graded("good", &[]))).unwrap();
    assert!(matches!(follower.next().await, Some(JobNews::Started)));
    let Some(JobNews::Done(done)) = follower.next().await else { panic!() };
    assert!(follower.next().await.is_none());
    let slotmux_agent::JobDone::Graded(done) = &*done else { panic!("{done:?}") };
    assert_eq!(brief(done), (Verdict::Success, "fine", ""), "whatever its exit code");
    assert_eq!((done.grade, done.stdout.clone()), (100.0, None));
    lab.is_clean().await;
    until("the slots are free", || agent.slots().borrow().free == 2).await;
}

#[tokio::test]
async fn the_container_is_told_everything_and_the_last_result_counts() {
    let Some(lab) = Lab::open("a start message") else { return };
    let agent = lab.agent().await;
    lab.task("told", "start");
    let order = Graded {
        debug: Debug::Yes,
        parameters: map(&[("run_cmd", "/task/run x".into())]),
        ..graded("told", &[])
    };
    let done = grade(&agent, "1", order).await;
    for part in ["run_cmd", "/task/run x", "envtypes", "@state", "before", "run_as_root"] {
        assert!(done.text.contains(&hex(part)), "{part}: {}", done.text);
    }
    assert!(done.text.contains(&format!("{}c3", hex("debug"))));

    // A message that is none, one of an unknown type, and three results.
    lab.task(
        "twice",
        "raw 00000001c1\nraw 0000000881a474797065a178\nraw 00000001c0\n\
         result failed a\nresult success b\nresult failed c",
    );
    let done = grade(&agent, "2", graded("twice", &[])).await;
    assert_eq!(brief(&done), (Verdict::Failed, "c", ""));
}

#[tokio::test]
async fn a_container_that_ends_at_once_is_answered_at_once() {
    let Some(lab) = Lab::open("a container that ends at once") else { return };
    let agent = lab.agent().await;
    lab.task("any", "");
    for number in 0..3 {
        let began = Instant::now();
        let order = Graded { environment: DIES.to_owned(), ..graded("any", &[]) };
        let done = grade(&agent, &number.to_string(), order).await;
        let text = "The grader did not return a readable output : \
                    Grading container did not return any result.";
        assert_eq!(brief(&done), (Verdict::Crash, text, "before"));
        // Long before any of its limits, on a machine that has other things to do.
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn a_container_that_does_not_start_leaves_nothing() {
    let Some(lab) = Lab::open("a container that does not start") else { return };
    let agent = lab.agent().await;
    lab.task("any", "");
    let order = Graded { environment: BROKEN.to_owned(), ..graded("any", &[]) };
    let done = grade(&agent, "1", order).await;
    assert_eq!(brief(&done), (Verdict::Crash, "Cannot start container", "before"));
    assert_eq!(done.caused_by, CausedBy::Infra);
    lab.is_clean().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_in_inginious_words() {
    let Some(lab) = Lab::open("jobs that cannot be run") else { return };
    let agent = lab.agent().await;
    lab.task("any", "result success");
    let limited = |name: &str, value: Value| graded("any", &[(name, value)]);
    let task = |task: &str| graded(task, &[]);
    for (number, (order, text)) in [
        (
            Graded { environment: "none".to_owned(), ..task("any") },
            "This environment is not available in this agent. ",
        ),
        (
            Graded { environment_type: "kata".to_owned(), ..task("any") },
            "This environment is not available in this agent. ",
        ),
        (task("none"), "Task unavailable on agent. Please retry later, "),
        (task("../course/any"), "Task unavailable on agent. Please retry later, "),
        (task(" any"), "Task unavailable on agent. Please retry later, "),
        (Graded { course_id: None, ..task("any") }, "Task unavailable on agent. "),
        (limited("time", "soon".into()), "The agent is unable to parse the parameters"),
        (limited("memory", 1_000_000.into()), "Not enough memory on agent (available: "),
    ]
    .into_iter()
    .enumerate()
    {
        let done = grade(&agent, &number.to_string(), order).await;
        assert_eq!((done.verdict, &*done.state), (Verdict::Crash, "before"), "{text}");
        assert!(done.text.starts_with(text), "{}", done.text);
        assert_eq!((done.grade, done.stdout, done.stderr), (0.0, None, None));
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn a_job_without_a_task_runs_what_is_in_the_image() {
    let Some(lab) = Lab::open("a job without a task") else { return };
    let agent = lab.agent().await;
    let mut tar = tar::Builder::new(Vec::new());
    let script = b"result success from-archive";
    let mut header = tar::Header::new_gnu();
    header.set_size(script.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "run", &script[..]).unwrap();
    let files = Some(tar.into_inner().unwrap().into());
    let order = Graded { course_id: None, task_id: None, files, ..graded("", &[]) };
    assert_eq!(grade(&agent, "1", order.clone()).await.text, "from-archive");
    let done = grade(&agent, "2", Graded { files: None, ..order }).await;
    assert_eq!(brief(&done), (Verdict::Crash, "no-script", ""));
}

#[tokio::test]
async fn an_image_that_comes_later_is_found_and_one_that_goes_is_missed() {
    let Some(lab) = Lab::open("an image that comes later") else { return };
    let agent = lab.agent().await;
    lab.task("any", "result success");
    let mut environments = agent.environments();
    let name = format!("late-{}", lab.settings.owner.replace('_', "-"));
    let container = docker(&["create", crate::image::TAG]).unwrap();
    let label = format!("LABEL org.inginious.grading.name={name}");
    let tag = format!("slotmux-agent-test:{name}");
    docker(&["commit", "--change", &label, &container, &tag]).unwrap();
    docker(&["rm", &container]).unwrap();
    let comes = environments.wait_for(|it| it.get("docker", &name).is_some());
    timeout(LIMIT / 2, comes).await.expect("it is found").unwrap();
    let order = Graded { environment: name.clone(), ..graded("any", &[]) };
    let done = grade(&agent, "1", order).await;
    docker(&["rmi", "--force", &tag]).unwrap();
    assert_eq!(brief(&done), (Verdict::Success, "", ""));
    let goes = environments.wait_for(|it| it.get("docker", &name).is_none());
    timeout(LIMIT / 2, goes).await.expect("it is missed").unwrap();
}

#[tokio::test]
async fn a_runtime_that_was_named_is_the_only_one() {
    let Some(mut lab) = Lab::open("a runtime that was named") else { return };
    lab.settings.runtimes = vec![slotmux_agent::Runtime {
        name: "runc".to_owned(),
        environment_type: "docker".to_owned(),
        run_as_root: true,
        gpu: false,
    }];
    let agent = lab.agent().await;
    lab.task("good", "result success");
    let done = grade(&agent, "1", graded("good", &[])).await;
    assert_eq!(brief(&done), (Verdict::Success, "", ""));
    let types: Vec<String> = agent.environments().borrow().0.keys().cloned().collect();
    assert_eq!(types, ["docker"]);
}

#[tokio::test]
async fn ports_are_shared_out_and_come_back() {
    let Some(lab) = Lab::open("ports") else { return };
    let agent = lab.agent().await;
    // ssh_debug with user and key.
    let ssh = "raw 0000002c83a474797065a97373685f6465627567a87373685f\
               75736572a6776f726b6572a77373685f6b6579a3736563\nsleep 100\n";
    lab.task("ssh", &format!("{ssh}{ssh}sleep 60000"));
    let wanted = Graded { debug: Debug::Ssh, ..graded("ssh", &[("time", 1.into())]) };
    let mut ports = Vec::new();
    for name in ["1", "2"] {
        let mut follower = agent.submit(order(name, wanted.clone())).unwrap();
        assert!(matches!(follower.next().await, Some(JobNews::Started)));
        let Some(JobNews::SshDebug(ssh)) = follower.next().await else { panic!() };
        assert_eq!((&*ssh.host, &*ssh.user, &*ssh.password), ("grader.test", "worker", "sec"));
        ports.push(ssh.port);
    }
    ports.sort_unstable();
    assert_eq!(ports, [lab.port(), lab.port() + 1]);
    // There are as many ports as slots: one that was given up is free again.
    assert_eq!(agent.kill(&id("1")), Kill::Asked);
    let done = grade(&agent, "3", Graded { debug: Debug::Ssh, ..graded("none", &[]) }).await;
    assert!(done.text.starts_with("Task unavailable"), "{}", done.text);
    let follower = agent.submit(order("4", wanted)).unwrap();
    agent.kill(&id("4"));
    agent.kill(&id("2"));
    crate::lab::done(follower).await;
    until("all slots are free", || agent.slots().borrow().free == 2).await;
    lab.is_clean().await;
}

#[tokio::test]
async fn a_job_that_finds_no_port_is_told_so_and_the_next_one_finds_it_again() {
    let Some(mut lab) = Lab::open("no ports") else { return };
    lab.settings.ports = lab.port()..=lab.port();
    let agent = lab.agent().await;
    lab.task("sleep", "sleep 60000");
    lab.task("good", "result success");
    let ssh = |task: &str| Graded { debug: Debug::Ssh, ..graded(task, &[]) };
    let first = agent.submit(order("1", ssh("sleep"))).unwrap();
    until("it has the port", || !lab.containers().is_empty()).await;
    let done = grade(&agent, "2", ssh("good")).await;
    let text = "No ports are available right now. Please retry later.";
    assert_eq!(brief(&done), (Verdict::Crash, text, "before"));
    agent.kill(&id("1"));
    crate::lab::done(first).await;
    lab.is_clean().await;
    let done = grade(&agent, "3", ssh("good")).await;
    assert_eq!(brief(&done), (Verdict::Success, "", ""));
    lab.is_clean().await;
}

#[tokio::test]
async fn an_id_is_known_as_long_as_its_job_and_a_kill_of_another_one_is_unknown() {
    let Some(lab) = Lab::open("ids") else { return };
    let agent = lab.agent().await;
    lab.task("long", "sleep 60000");
    let follower = agent.submit(order("1", graded("long", &[]))).unwrap();
    let again = agent.submit(order("1", graded("long", &[]))).unwrap_err();
    assert_eq!(again, Refused::Known(id("1")));
    assert_eq!(agent.kill(&id("2")), Kill::Unknown);
    let late = agent.follow(&id("1")).unwrap();
    assert_eq!(agent.kill(&id("1")), Kill::Asked);
    for follower in [follower, late] {
        let done = crate::lab::done(follower).await;
        let slotmux_agent::JobDone::Graded(done) = &*done else { panic!() };
        assert_eq!(brief(done), (Verdict::Killed, "", "before"));
    }
    assert_eq!(agent.kill(&id("1")), Kill::Unknown);
    lab.task("good", "result success");
    assert_eq!(grade(&agent, "1", graded("good", &[])).await.verdict, Verdict::Success);
    lab.is_clean().await;
}
