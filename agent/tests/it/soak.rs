//! Many jobs through both doors at once, and nothing left of them.

use crate::{
    image::ENVIRONMENT,
    lab::{Lab, map, until},
    router::Router,
};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use rmpv::Value;
use slotmux_agent::{ApiSettings, BackendSettings, router, serve_backend};
use std::{collections::BTreeMap, env, fs, process::Command, time::Duration};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const JOBS: usize = 200;
/// Before anything is counted.
const WARM_UP: usize = 20;
/// What the process may have grown by, in kilobytes: less than a result of each job.
const GROWTH_KB_MAX: u64 = 16 << 10;

/// Set for the process that has this test for itself.
const ALONE: &str = "SLOTMUX_SOAK_ALONE";
const NAME: &str = "soak::two_hundred_jobs_leave_no_container_folder_port_descriptor_or_memory";

/// Other tests in the same process would be counted too.
fn run_alone() {
    let this = env::current_exe().unwrap();
    let run = Command::new(this).args([NAME, "--exact", "--nocapture"]).env(ALONE, "yes").output();
    let run = run.unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn job(id: usize, task: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("job_id", format!("b-{id}").into()),
        ("course_id", "course".into()),
        ("task_id", task.into()),
        ("task_problems", map(&[])),
        ("inputdata", map(&[("@state", "".into()), ("text", "x".repeat(100_000).into())])),
        ("environment_type", "docker".into()),
        ("environment", ENVIRONMENT.into()),
        ("environment_parameters", map(&[])),
        ("debug", false.into()),
    ]
}

#[tokio::test]
async fn two_hundred_jobs_leave_no_container_folder_port_descriptor_or_memory() {
    let Some(mut lab) = Lab::open("two hundred jobs") else { return };
    if env::var_os(ALONE).is_none() {
        return run_alone();
    }
    lab.settings.concurrency = 4;
    let agent = lab.agent().await;
    let tasks = ["success", "failed", "none", "large"];
    for (task, script) in tasks.iter().zip([
        "result success a",
        "result failed b",
        "exit 0",
        "stderr 300000\nresult success c",
    ]) {
        lab.task(task, script);
    }
    let zeromq = Router::new().await;
    let shutdown = CancellationToken::new();
    let mut settings = BackendSettings::new(zeromq.address().parse().unwrap(), "soak");
    settings.silence_max = Duration::from_mins(10);
    let door = tokio::spawn(serve_backend(agent.clone(), settings, Vec::new(), shutdown.clone()));
    let http = router(agent.clone(), ApiSettings::default(), Vec::new());
    let mut peer = zeromq.accept().await;
    peer.expect("AgentHello").await;

    let ask = async |request: Request<Body>| http.clone().oneshot(request).await.unwrap().status();
    let mut verdicts = BTreeMap::new();
    let mut before = None;
    for batch in [0..WARM_UP, WARM_UP..JOBS] {
        let numbers: Vec<usize> = batch.collect();
        for &number in &numbers {
            let task = tasks[number / 2 % tasks.len()];
            if number % 2 == 0 {
                peer.say("BackendNewJob", job(number, task)).await;
                continue;
            }
            let body = format!(
                r#"{{"job_id": "h-{number}", "graded": {{"environment": "{ENVIRONMENT}",
                "course_id": "course", "task_id": "{task}"}}}}"#
            );
            let request = Request::post("/v1/jobs").body(body.into()).unwrap();
            assert_eq!(ask(request).await, StatusCode::CREATED);
        }
        let mut open = numbers.iter().filter(|number| *number % 2 == 0).count();
        while open > 0 {
            let message = peer.hear().await.expect("the door stays");
            if message["@type"] == "AgentJobDone".into() {
                *verdicts.entry(message["result"][0].as_str().unwrap().to_owned()).or_insert(0) +=
                    1;
                open -= 1;
            }
        }
        for number in numbers.iter().filter(|number| *number % 2 == 1) {
            let path = format!("/v1/jobs/h-{number}/result?wait_s=60");
            assert_eq!(ask(Request::get(path).body(Body::empty()).unwrap()).await, StatusCode::OK);
            let path = format!("/v1/jobs/h-{number}");
            let deleted = ask(Request::delete(path).body(Body::empty()).unwrap()).await;
            assert_eq!(deleted, StatusCode::NO_CONTENT);
        }
        lab.is_clean().await;
        before.get_or_insert_with(|| (resident_kb(), descriptors()));
    }
    let per_task = JOBS / 2 / tasks.len();
    let expected = [("crash", per_task), ("failed", per_task), ("success", 2 * per_task)];
    assert_eq!(verdicts, expected.map(|(verdict, count)| (verdict.to_owned(), count)).into());
    until("all slots are free", || agent.slots().borrow().free == 4).await;
    let (resident, opened) = before.expect("a first batch");
    let grown = resident_kb().saturating_sub(resident);
    assert!(grown < GROWTH_KB_MAX, "it has grown by {grown} kB");
    // Connections to the engine are kept, and may be fewer or more by a few.
    until("descriptors are closed", || descriptors() <= opened + 4).await;
    shutdown.cancel();
    agent.shutdown().await;
    door.await.unwrap();
}
