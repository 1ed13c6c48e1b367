//! Jobs by HTTP, in containers of a real engine.

use crate::lab::{LIMIT, Lab, until};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use slotmux_agent::{AgentHandle, ApiSettings, router};
use tokio::time::timeout;
use tower::ServiceExt;

struct Site {
    lab: Lab,
    agent: AgentHandle,
    router: Router,
}

impl Site {
    async fn open(test: &str, concurrency: u16) -> Option<Self> {
        let mut lab = Lab::open(test)?;
        lab.settings.concurrency = concurrency;
        let agent = lab.agent().await;
        let router = router(agent.clone(), ApiSettings::default(), Vec::new());
        Some(Self { lab, agent, router })
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, Vec<Value>) {
        let answer = async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let lines = serde_json::Deserializer::from_slice(&body).into_iter();
            (status, lines.collect::<Result<_, _>>().unwrap())
        };
        timeout(LIMIT, answer).await.expect("an answer in time")
    }

    async fn submit(&self, job: &Value) {
        let (status, answer) = self.ask(post("/v1/jobs", job.to_string())).await;
        assert_eq!(status, StatusCode::CREATED, "{answer:?}");
    }

    async fn result(&self, id: &str) -> Value {
        let path = format!("/v1/jobs/{id}/result?wait_s=60");
        let (status, mut answer) = self.ask(get(&path)).await;
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        answer.remove(0)
    }

    async fn run(&self, job: Value) -> Value {
        self.submit(&job).await;
        self.result(job["job_id"].as_str().unwrap()).await
    }

    async fn close(self) {
        self.agent.shutdown().await;
        self.lab.is_clean().await;
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

fn graded(id: &str, task: &str) -> Value {
    json!({"job_id": id, "graded": {
        "environment": crate::image::ENVIRONMENT, "course_id": "course", "task_id": task,
    }})
}

fn shell(id: &str, command: &str) -> Value {
    let command = ["sh", "-c", command];
    json!({"job_id": id, "plain": {
        "image": "slotmux-test:busybox", "command": command, "files_dir": "/",
    }})
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn form(job: &Value, files: &[u8]) -> Request<Body> {
    let head = format!(
        "--b0\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{job}\r\n\
         --b0\r\nContent-Disposition: form-data; name=\"files\"; filename=\"f.tar\"\r\n\r\n"
    );
    let body = [head.as_bytes(), files, b"\r\n--b0--\r\n"].concat();
    Request::post("/v1/jobs")
        .header("content-type", "multipart/form-data; boundary=b0")
        .body(body.into())
        .unwrap()
}

#[tokio::test]
async fn a_graded_job_is_followed_from_its_submission_to_its_result() {
    let Some(site) = Site::open("a graded job by HTTP", 2).await else { return };
    site.lab.task("good", "result success fine");
    site.submit(&graded("j", "good")).await;
    let (_, events) = site.ask(get("/v1/jobs/j/events")).await;
    let kinds: Vec<_> = events.iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["submitted", "started", "done"]);
    let result = &site.result("j").await["graded"];
    assert_eq!((&result["result"], &result["text"]), (&json!("success"), &json!("fine")));
    assert_eq!((&result["grade"], &result["caused_by"]), (&json!(100.0), &json!("policy")));
    assert!(result["used"]["wall_us"].as_u64().unwrap() > 0);
    site.close().await;
}

#[tokio::test]
async fn files_replace_those_of_the_task() {
    let Some(site) = Site::open("files of a graded job", 2).await else { return };
    site.lab.task("task", "result failed old");
    let files = tar(&[("run", "result success new")]);
    let (status, _) = site.ask(form(&graded("j", "task"), &files)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(site.result("j").await["graded"]["text"], "new");
    site.close().await;
}

#[tokio::test]
async fn a_plain_job_reads_its_files_and_its_input_and_says_how_it_ended() {
    let Some(site) = Site::open("a plain job by HTTP", 2).await else { return };
    let mut job = shell("j", "cat /given.txt -; echo oh >&2; exit 3");
    job["plain"]["stdin"] = json!("typed\n");
    let (status, _) = site.ask(form(&job, &tar(&[("given.txt", "given\n")]))).await;
    assert_eq!(status, StatusCode::CREATED);
    let result = &site.result("j").await["plain"];
    assert_eq!((&result["ended"], &result["exit_code"]), (&json!("exited"), &json!(3)));
    assert_eq!(result["stdout"]["text"], "given\ntyped\n");
    assert_eq!(
        (&result["stderr"]["text"], &result["caused_by"]),
        (&json!("oh\n"), &json!("policy"))
    );
    site.close().await;
}

#[tokio::test]
async fn the_limits_of_a_plain_job_are_told_apart() {
    let Some(site) = Site::open("limits by HTTP", 2).await else { return };
    let limited = |id: &str, command: &str, limits: Value| {
        let mut job = shell(id, command);
        job["plain"]["limits"] = limits;
        job
    };
    let wall = limited("wall", "sleep 60", json!({"wall_s": 0.5}));
    let cpu = limited("cpu", "while :; do :; done", json!({"cpu_s": 0.5, "wall_s": 30}));
    let memory = "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}";
    let memory = limited("memory", memory, json!({"memory_bytes": 50_000_000}));
    let output = limited("output", "yes | head -c 100000", json!({"output_bytes": 1_000}));
    for (job, ended) in [(wall, "timeout"), (cpu, "timeout"), (memory, "oom"), (output, "exited")] {
        let result = &site.run(job.clone()).await["plain"];
        assert_eq!(
            (&result["ended"], &result["caused_by"]),
            (&json!(ended), &json!("policy")),
            "{job}"
        );
    }
    assert_eq!(site.result("output").await["plain"]["stdout"]["cut_bytes"], 99_000);
    let missing = json!({"job_id": "missing", "plain": {"image": "slotmux-test:no-such-image"}});
    let result = &site.run(missing).await["plain"];
    assert_ne!(result["ended"], "exited");
    assert!(!result["error"].as_str().unwrap().is_empty(), "{result}");
    site.close().await;
}

#[tokio::test]
async fn the_queue_is_by_priority_and_then_by_order() {
    let Some(site) = Site::open("priorities by HTTP", 1).await else { return };
    site.submit(&shell("first", "sleep 60")).await;
    until("the first runs", || site.agent.slots().borrow().free == 0).await;
    for (id, priority) in [("a", 0), ("b", 5), ("c", -5), ("d", 5)] {
        let mut job = shell(id, "true");
        job["priority"] = json!(priority);
        site.submit(&job).await;
    }
    assert_eq!(site.ask(post("/v1/jobs/first/kill", "")).await.0, StatusCode::ACCEPTED);
    let killed = &site.result("first").await["plain"];
    assert_eq!((&killed["ended"], &killed["caused_by"]), (&json!("cancelled"), &json!("client")));
    let mut started = Vec::new();
    for id in ["a", "b", "c", "d"] {
        assert_eq!(site.result(id).await["plain"]["exit_code"], 0);
        let (_, status) = site.ask(get(&format!("/v1/jobs/{id}"))).await;
        started.push((status[0]["started_at_ms"].as_u64().unwrap(), id));
    }
    started.sort_unstable();
    let order: Vec<_> = started.into_iter().map(|(_, id)| id).collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
    site.close().await;
}
