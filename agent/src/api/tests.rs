//! The whole router, with an agent whose jobs end when a test says so.

use super::{ApiSettings, routed};
use crate::{
    Environments, GradedDone, JobDone, JobKind, Output, PlainDone, Refused, SshDebug, Verdict,
    jobs::fake::FakeJobs,
};
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use slotmux_protocol::{CausedBy, Ended};
use std::time::Duration;
use tokio::time::timeout;
use tower::ServiceExt;

const LIMIT: Duration = Duration::from_secs(30);

struct House {
    jobs: FakeJobs,
    router: Router,
}

impl House {
    fn open() -> Self {
        Self::with(ApiSettings::default())
    }

    fn with(settings: ApiSettings) -> Self {
        let jobs = FakeJobs::new(2);
        Self { router: routed(jobs.clone(), settings, Vec::new()), jobs }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        timeout(LIMIT, self.router.clone().oneshot(request)).await.expect("no answer").unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        read(self.send(request).await).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, Body::empty()).await
    }

    async fn post(&self, body: &Value) -> (u16, Value) {
        self.ask("POST", "/v1/jobs", body.to_string()).await
    }

    fn finish(&self, id: &str, text: &str) {
        let done = GradedDone::without_result(Verdict::Success, text, "s", CausedBy::Policy);
        self.jobs.finish(id, JobDone::Graded(done));
    }

    /// Waits until it is written down.
    async fn result(&self, id: &str) -> (u16, Value) {
        self.get(&format!("/v1/jobs/{id}/result?wait_s=30")).await
    }
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = if bytes.is_empty() { &b"null"[..] } else { &bytes[..] };
    let value = serde_json::from_slice(text).unwrap();
    (status, value)
}

fn graded(id: &str) -> Value {
    json!({"job_id": id, "graded": {"environment": "e", "inputdata": {"q": "a"}}})
}

fn plain(id: &str) -> Value {
    json!({"job_id": id, "plain": {"image": "i", "command": ["true"]}})
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_else(|| panic!("no problem: {}", answer.1)))
}

#[tokio::test]
async fn a_graded_job_goes_from_submission_to_its_result() {
    let house = House::open();
    let (status, job) = house.post(&graded("j")).await;
    assert_eq!((status, &job["phase"]), (201, &json!("waiting")));
    assert_eq!(house.get("/v1/jobs/j/result").await.0, 202);
    house.jobs.start("j");
    house.finish("j", "well done");
    let (status, result) = house.result("j").await;
    assert_eq!((status, &result["job_id"]), (200, &json!("j")));
    let graded = &result["graded"];
    assert_eq!((&graded["result"], &graded["text"]), (&json!("success"), &json!("well done")));
    assert_eq!((&graded["grade"], &graded["caused_by"]), (&json!(0.0), &json!("policy")));
    let (_, job) = house.get("/v1/jobs/j").await;
    assert_eq!((&job["phase"], &job["fetched"]), (&json!("done"), &json!(true)));
    assert_eq!(house.get("/v1/jobs").await.1, json!({"jobs": [job]}));
}

#[tokio::test]
async fn a_plain_job_says_how_it_ended_and_what_it_printed() {
    let house = House::open();
    house.post(&plain("j")).await;
    let stdout = Output { head: "a".into(), tail: "b".into(), cut_bytes: 5 };
    house.jobs.finish(
        "j",
        JobDone::Plain(PlainDone {
            ended: Ended::Exited,
            caused_by: CausedBy::Policy,
            exit_code: Some(3),
            error: String::new(),
            stdout,
            stderr: Output::default(),
            usage: crate::JobUsage { wall: Duration::from_millis(2), cpu: None },
        }),
    );
    let (_, result) = house.result("j").await;
    let expected = json!({
        "ended": "exited", "caused_by": "policy", "exit_code": 3, "error": "",
        "stdout": {"text": "a\n[5 bytes cut]\nb", "cut_bytes": 5},
        "stderr": {"text": "", "cut_bytes": 0}, "used": {"wall_us": 2000},
    });
    assert_eq!(result["plain"], expected);
}

#[tokio::test]
async fn a_job_that_is_sent_again_is_the_same_and_another_is_refused() {
    let house = House::open();
    assert_eq!(house.post(&graded("j")).await.0, 201);
    let (status, again) = house.post(&graded("j")).await;
    assert_eq!((status, &again["job_id"]), (200, &json!("j")));
    assert_eq!(house.jobs.running(), 1);
    assert_eq!(code(&house.post(&plain("j")).await), (409, "job_id_reused"));
    house.finish("j", "");
    house.result("j").await;
    assert_eq!(house.post(&graded("j")).await.1["phase"], json!("done"));
    assert_eq!(house.jobs.running(), 0);
    // A job that came by the other door.
    house.jobs.refuse(Some(Refused::Known("k".to_owned().try_into().unwrap())));
    assert_eq!(code(&house.post(&graded("k")).await), (409, "job_id_reused"));
}

#[tokio::test]
async fn a_job_without_an_id_gets_one() {
    let house = House::open();
    let mut request = graded("");
    request.as_object_mut().unwrap().remove("job_id");
    let (_, first) = house.post(&request).await;
    let (_, second) = house.post(&request).await;
    assert_ne!(first["job_id"], second["job_id"]);
    assert_eq!(first["job_id"].as_str().unwrap().len(), "job-".len() + 32);
}

#[tokio::test]
async fn files_come_in_a_form_and_reach_the_job() {
    let house = House::open();
    let form = format!(
        "--b0\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{}\r\n--b0\r\n\
         Content-Disposition: form-data; name=\"files\"; filename=\"a.tar\"\r\n\
         Content-Type: application/x-tar\r\n\r\nTAR\r\n--b0--\r\n",
        plain("j")
    );
    let request = Request::builder()
        .method("POST")
        .uri("/v1/jobs")
        .header("content-type", "multipart/form-data; boundary=b0")
        .body(Body::from(form))
        .unwrap();
    let response = house.send(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["location"], "/v1/jobs/j");
    let JobKind::Plain(job) = house.jobs.start("j").kind else { panic!("another kind") };
    assert_eq!(job.files.as_deref(), Some(&b"TAR"[..]));
}

#[tokio::test]
async fn events_are_told_as_they_happen_and_resume_where_one_wants() {
    let house = House::open();
    house.post(&graded("j")).await;
    let request = Request::get("/v1/jobs/j/events").body(Body::empty()).unwrap();
    let mut body = house.send(request).await.into_body();
    let mut line = async || {
        let frame = timeout(LIMIT, body.frame()).await.expect("no event")?.unwrap();
        Some(serde_json::from_slice::<Value>(&frame.into_data().unwrap()).unwrap())
    };
    assert_eq!(line().await.unwrap()["kind"], "submitted");
    house.jobs.start("j");
    assert_eq!(line().await.unwrap()["kind"], "started");
    let ssh = SshDebug { host: "h".into(), port: 9, user: "u".into(), password: "p".into() };
    house.jobs.ssh("j", ssh);
    assert_eq!(line().await.unwrap()["ssh"]["port"], 9);
    house.finish("j", "");
    let last = line().await.unwrap();
    assert_eq!((&last["seq"], &last["status"]["result"]), (&json!(4), &json!("success")));
    assert_eq!(line().await, None);
    let (status, rest) = house.get("/v1/jobs/j/events?after=3").await;
    assert_eq!((status, rest), (200, last));
    assert_eq!(house.get("/v1/jobs/j/events?after=4").await, (200, Value::Null));
    let wrong = house.get("/v1/jobs/j/events?after=-1").await;
    assert_eq!((code(&wrong), &wrong.1["field"]), ((422, "invalid"), &json!("after")));
}

#[tokio::test]
async fn a_kill_ends_a_job_and_changes_nothing_of_one_that_is_done() {
    let house = House::open();
    house.post(&graded("j")).await;
    assert_eq!(house.ask("POST", "/v1/jobs/j/kill", "").await.0, 202);
    assert_eq!(house.result("j").await.1["graded"]["result"], "killed");
    assert_eq!(house.ask("POST", "/v1/jobs/j/kill", "").await.0, 202);
    assert_eq!(house.jobs.killed().len(), 1);
    assert_eq!(code(&house.ask("POST", "/v1/jobs/x/kill", "").await), (404, "unknown_job"));
}

#[tokio::test]
async fn what_was_deleted_is_gone_and_not_run_again() {
    let house = House::open();
    house.post(&graded("j")).await;
    assert_eq!(code(&house.ask("DELETE", "/v1/jobs/j", "").await), (409, "job_not_done"));
    house.finish("j", "");
    house.result("j").await;
    for _ in 0..2 {
        assert_eq!(house.ask("DELETE", "/v1/jobs/j", "").await.0, 204);
    }
    for path in ["/v1/jobs/j", "/v1/jobs/j/result", "/v1/jobs/j/events"] {
        assert_eq!(code(&house.get(path).await), (410, "job_dropped"));
    }
    assert_eq!(code(&house.post(&graded("j")).await), (410, "job_dropped"));
    assert_eq!(code(&house.get("/v1/jobs/x").await), (404, "unknown_job"));
    assert_eq!(code(&house.ask("DELETE", "/v1/jobs/x", "").await), (404, "unknown_job"));
    assert_eq!(house.jobs.running(), 0);
}

#[tokio::test]
async fn a_result_that_made_room_says_so() {
    let house = House::with(ApiSettings { results_max: 1, ..ApiSettings::default() });
    for id in ["a", "b"] {
        house.post(&graded(id)).await;
    }
    house.finish("a", "");
    let events = Request::get("/v1/jobs/a/events").body(Body::empty()).unwrap();
    house.send(events).await.into_body().collect().await.unwrap();
    house.finish("b", "");
    assert_eq!(house.result("b").await.0, 200);
    assert_eq!(code(&house.get("/v1/jobs/a/result").await), (410, "job_dropped"));
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let house = House::open();
    house.jobs.refuse(Some(Refused::Full));
    let request = Request::post("/v1/jobs").body(Body::from(graded("j").to_string())).unwrap();
    let response = house.send(request).await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(code(&read(response).await), (429, "queue_full"));
    house.jobs.refuse(Some(Refused::ShuttingDown));
    assert_eq!(code(&house.post(&graded("j")).await), (503, "shutting_down"));
    // Neither has left a trace.
    house.jobs.refuse(None);
    assert_eq!(house.post(&graded("j")).await.0, 201);
}

#[tokio::test]
async fn what_waiting_jobs_hold_is_bounded_and_freed_by_their_end() {
    let bytes = graded("a").to_string().len();
    let house = House::with(ApiSettings { held_bytes_max: 2 * bytes, ..ApiSettings::default() });
    for id in ["a", "b"] {
        assert_eq!(house.post(&graded(id)).await.0, 201);
    }
    assert_eq!(code(&house.post(&graded("c")).await), (429, "queue_full"));
    house.finish("a", "");
    house.result("a").await;
    assert_eq!(house.post(&graded("c")).await.0, 201);
}

#[tokio::test]
async fn bodies_are_bounded_and_faults_named() {
    let house = House::with(ApiSettings { body_bytes_max: 100, ..ApiSettings::default() });
    let fits = json!({"job_id": "x".repeat(20), "plain": {"image": "i"}}).to_string();
    let padded = |bytes: usize| fits.clone() + &" ".repeat(bytes - fits.len());
    assert_eq!(house.ask("POST", "/v1/jobs", padded(100)).await.0, 201);
    assert_eq!(code(&house.ask("POST", "/v1/jobs", padded(101)).await), (413, "too_large"));
    assert_eq!(code(&house.ask("POST", "/v1/jobs", "{").await), (400, "malformed"));
    let answer = house.ask("POST", "/v1/jobs", r#"{"plain": {"image": 7}}"#).await;
    assert_eq!((code(&answer), &answer.1["field"]), ((422, "invalid"), &json!("plain.image")));
    let house = House::open();
    let answer = house.post(&plain(&"x".repeat(201))).await;
    assert_eq!((code(&answer), &answer.1["field"]), ((422, "invalid"), &json!("job_id")));
    assert_eq!(house.post(&plain(&"x".repeat(200))).await.0, 201);
}

#[tokio::test]
async fn a_token_opens_everything_but_health_and_the_document() {
    let settings = ApiSettings { token: Some("secret".into()), ..ApiSettings::default() };
    let house = House::with(settings);
    assert_eq!(code(&house.get("/v1/jobs").await), (401, "unauthenticated"));
    assert_eq!(code(&house.get("/metrics").await), (401, "unauthenticated"));
    for open in ["/health", "/openapi.json"] {
        assert_eq!(house.get(open).await.0, 200);
    }
    for (token, status) in [("secret", 200), ("Secret", 403)] {
        let request = Request::get("/v1/jobs").header("authorization", format!("Bearer {token}"));
        let response = house.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), status);
    }
}

#[tokio::test]
async fn metrics_count_what_there_is() {
    let house = House::open();
    house.jobs.change_environments(Environments::default());
    house.post(&graded("a")).await;
    house.post(&graded("b")).await;
    house.finish("a", "");
    house.result("a").await;
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let body = house.send(request).await.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    for line in ["slots 2", "http_jobs_open 1", "http_results 1", "http_results_dropped_total 0"] {
        assert!(text.contains(&format!("\nslotmux_agent_{line}\n")), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_job_that_the_agent_has_lost_is_nobodys_fault_but_ours() {
    let house = House::open();
    house.post(&plain("j")).await;
    house.post(&graded("k")).await;
    house.jobs.lose("j");
    house.jobs.lose("k");
    let (_, result) = house.result("j").await;
    assert_eq!(
        (&result["plain"]["ended"], &result["plain"]["caused_by"]),
        (&json!("lost"), &json!("infra"))
    );
    assert_eq!(house.result("k").await.1["graded"]["result"], "crash");
}

#[tokio::test]
async fn closing_ends_what_waits() {
    let settings = ApiSettings::default();
    let closing = settings.closing.clone();
    let house = House::with(settings);
    house.post(&graded("j")).await;
    let waiting = tokio::spawn({
        let router = house.router.clone();
        async move {
            let request = Request::get("/v1/jobs/j/result?wait_s=300").body(Body::empty()).unwrap();
            router.oneshot(request).await.unwrap().status()
        }
    });
    closing.cancel();
    assert_eq!(timeout(LIMIT, waiting).await.expect("it waits on").unwrap(), StatusCode::ACCEPTED);
}
