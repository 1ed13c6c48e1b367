//! Containers and tasks that mean harm hurt their own job only.

use crate::{
    image::docker,
    lab::{Lab, brief, grade, graded, hex, until},
};
use slotmux_agent::Verdict;
use slotmux_protocol::CausedBy;
use std::os::unix::fs::symlink;

#[tokio::test]
async fn a_length_of_a_gigabyte_ends_its_job_and_nothing_is_kept_of_it() {
    let Some(lab) = Lab::open("a long message") else { return };
    let agent = lab.agent().await;
    lab.task("long", "length 1000000000\nflood 40\nsleep 60000");
    let done = grade(&agent, "1", graded("long", &[])).await;
    assert_eq!(done.verdict, Verdict::Crash);
    assert!(
        done.text.starts_with("The grader did not return a readable output : "),
        "{}",
        done.text
    );
    assert_eq!((&*done.state, done.caused_by), ("before", CausedBy::Policy));
    lab.is_clean().await;
}

#[tokio::test]
async fn a_stalled_container_and_a_talkative_one_keep_nobody_waiting() {
    let Some(lab) = Lab::open("a stalled container") else { return };
    let agent = lab.agent().await;
    // It never reads what it is told, and half of a message is all that it says.
    let task = lab.task("deaf", "length 1000\nsleep 60000");
    std::fs::write(task.join("deaf"), "").unwrap();
    lab.task("noise", "stderr 30000000\nraw 00000001c1\nresult success");
    lab.task("good", "result success");
    let stalled = agent.submit(crate::lab::order("s", graded("deaf", &[("hard_time", 20.into())])));
    for name in ["1", "2"] {
        assert_eq!(grade(&agent, name, graded("good", &[])).await.verdict, Verdict::Success);
        let noisy = grade(&agent, &format!("n{name}"), graded("noise", &[])).await;
        assert_eq!(noisy.verdict, Verdict::Success);
    }
    agent.kill(&crate::lab::id("s"));
    crate::lab::done(stalled.unwrap()).await;
    lab.is_clean().await;
}

#[tokio::test]
async fn faults_in_a_result_are_told_in_inginious_words() {
    let Some(lab) = Lab::open("faults in results") else { return };
    let agent = lab.agent().await;
    // {"type": "result", "result": {"grade": 100}} and {…: {"odd": 1}}
    let message = |inner: &str| format!("raw 000000{:02x}{inner}", inner.len() / 2);
    let with = |key: &str, value: &str| {
        let key = hex(key);
        let head = "82a474797065a6726573756c74a6726573756c7481";
        format!("{head}{:02x}{key}{value}", 0xa0 + key.len() / 2)
    };
    for (name, inner, text) in [
        ("grade", with("grade", "64"), "Feedback file is badly formatted."),
        ("odd", with("odd", "01"), "'odd'"),
        ("result", with("result", "a3626164"), "Feedback file is badly formatted."),
    ] {
        lab.task(name, &message(&inner));
        let done = grade(&agent, name, graded(name, &[])).await;
        let text = format!("The grader did not return a readable output : {text}");
        assert_eq!(brief(&done), (Verdict::Crash, &*text, "before"));
    }
}

#[tokio::test]
async fn links_and_depths_of_a_task_lead_nowhere() {
    let Some(lab) = Lab::open("a hostile task") else { return };
    let agent = lab.agent().await;
    let task = lab.task("links", "show /task/secret");
    let outside = lab.dir.path().join("secret");
    std::fs::write(&outside, "secret").unwrap();
    symlink(&outside, task.join("secret")).unwrap();
    let done = grade(&agent, "1", graded("links", &[])).await;
    assert_eq!(brief(&done), (Verdict::Success, "", ""), "it is a link, to nowhere in there");
    symlink(lab.dir.path(), lab.settings.tasks.clone().unwrap().join("course/linked")).unwrap();
    let done = grade(&agent, "2", graded("linked", &[])).await;
    assert!(done.text.starts_with("Task unavailable"), "{}", done.text);

    lab.task("deep", "mkdirs /task/student 3000\nresult success");
    let done = grade(&agent, "3", graded("deep", &[])).await;
    assert_eq!(done.verdict, Verdict::Success, "{}", done.text);
    lab.is_clean().await;
}

#[tokio::test]
async fn nothing_of_this_machine_is_mounted_into_a_students_container() {
    let Some(lab) = Lab::open("mounts of a student") else { return };
    let agent = lab.agent().await;
    let secret = lab.dir.path().join("secret.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&secret).unwrap();
    let link = format!("link {} /sockets/s1.sock\nwish s1 0 0 0\nanswer\ncode", secret.display());
    lab.task("socket", &link);
    let done = grade(&agent, "1", graded("socket", &[])).await;
    assert_eq!(brief(&done), (Verdict::Success, "254", ""), "a link is no socket");
    // An engine would follow a link in the place of any of these.
    for dir in ["/task/student", "/task/student/scripts", "/task/systemfiles"] {
        let name = dir.replace('/', "_");
        lab.task(&name, &format!("rename {dir} {dir}.moved\ncode"));
        let done = grade(&agent, &name, graded(&name, &[])).await;
        assert_eq!(brief(&done), (Verdict::Success, "16", ""), "{dir} is busy");
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn a_container_has_few_powers_and_what_is_written_on_it_is_ours() {
    let Some(lab) = Lab::open("what a container may do") else { return };
    let agent = lab.agent().await;
    lab.task("powers", "show /proc/self/status");
    let done = grade(&agent, "1", graded("powers", &[])).await;
    let field = |name: &str| {
        let line = done.text.lines().find(|it| it.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID.
    assert_eq!(field("CapBnd"), "00000000000000fb");
    assert_eq!((&*field("NoNewPrivs"), &*field("Seccomp")), ("1", "2"));

    lab.is_clean().await;
    lab.task("sleep", "sleep 60000");
    let follower = agent.submit(crate::lab::order("2", graded("sleep", &[]))).unwrap();
    until("its container runs", || !lab.containers().is_empty()).await;
    let format = "{{.HostConfig.LogConfig.Type}} {{.HostConfig.PidsLimit}} \
                  {{index .Config.Labels \"slotmux.agent.role\"}}";
    let container = &lab.containers()[0];
    assert_eq!(docker(&["inspect", container, "--format", format]).unwrap(), "none 1024 main");
    agent.kill(&crate::lab::id("2"));
    crate::lab::done(follower).await;
    lab.is_clean().await;
}
