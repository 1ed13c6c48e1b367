//! Student containers: what they return, and that they never outlive their parent.

use crate::lab::{Lab, brief, grade, graded, id, order, until};
use slotmux_agent::Verdict;
use std::fs;

#[tokio::test]
async fn a_students_code_comes_back() {
    let Some(lab) = Lab::open("a student's code") else { return };
    let agent = lab.agent().await;
    for (name, student, limits, code) in [
        ("own", "exit 7", "0 0 0", "7"),
        ("fine", "", "0 0 0", "0"),
        ("shared", "exit 5", "0 0 0 shared", "5"),
        ("cpu", "burn", "1 0 0", "253"),
        ("wall", "sleep 60000", "0 1 0", "253"),
        ("memory", "memory 300", "0 0 40", "252"),
    ] {
        let task = lab.task(name, &format!("student s1 {limits}\ncode"));
        fs::write(task.join("student/run"), student).unwrap();
        let done = grade(&agent, name, graded(name, &[])).await;
        assert_eq!(brief(&done), (Verdict::Success, code, ""), "{name}");
    }
    lab.is_clean().await;
}

#[tokio::test]
async fn a_parents_limits_are_its_students_and_what_cannot_be_had_is_answered() {
    let Some(lab) = Lab::open("limits of students") else { return };
    let agent = lab.agent().await;
    // More than the parent has is what the parent has.
    let task = lab.task("more", "student s1 0 0 4000\ncode");
    fs::write(task.join("student/run"), "memory 300").unwrap();
    let done = grade(&agent, "1", graded("more", &[("memory", 60.into())])).await;
    assert_eq!(done.text, "252");
    // `..` would lead out of the sockets' folder, and is answered before anything is made.
    lab.task("name", "wish ../s1 0 0 0\nanswer\ncode");
    let done = grade(&agent, "2", graded("name", &[])).await;
    assert_eq!(done.text, "254");
    lab.is_clean().await;
}

#[tokio::test]
async fn students_end_with_their_parent() {
    let Some(lab) = Lab::open("students of a parent that ends") else { return };
    let agent = lab.agent().await;
    let wishes = "wish a 0 0 0\nwish b 0 0 0\nwish c 0 0 0\n";
    // While they are being made, and when they run.
    let task = lab.task("early", &format!("{wishes}result success"));
    fs::write(task.join("student/run"), "sleep 60000").unwrap();
    assert_eq!(grade(&agent, "1", graded("early", &[])).await.verdict, Verdict::Success);
    lab.is_clean().await;

    let task = lab.task("late", &format!("{wishes}sleep 60000"));
    fs::write(task.join("student/run"), "sleep 60000").unwrap();
    let follower = agent.submit(order("2", graded("late", &[]))).unwrap();
    until("all four are there", || lab.containers().len() == 4).await;
    agent.kill(&id("2"));
    crate::lab::done(follower).await;
    lab.is_clean().await;
}

#[tokio::test]
async fn students_are_bounded() {
    let Some(mut lab) = Lab::open("many students") else { return };
    lab.settings.students = 2;
    let agent = lab.agent().await;
    let task =
        lab.task("many", "wish a 0 0 0\nwish b 0 0 0\nwish c 0 0 0\nanswer\nanswer\nanswer\ncode");
    fs::write(task.join("student/run"), "sleep 60000").unwrap();
    // Two are announced, the third is denied, whichever comes first.
    let done = grade(&agent, "1", graded("many", &[("hard_time", 20.into())])).await;
    assert!(["254", "-1"].contains(&&*done.text), "{}", done.text);
    lab.is_clean().await;
}
