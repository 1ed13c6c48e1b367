//! `POST /v1/jobs`: a job is taken once, and followed to its end.

use super::{
    Api,
    ledger::{Digest, Found, Record},
    name::{draw, dropped, id},
    order::order,
    upload::Upload,
};
use crate::{
    GradedDone, JobDone, JobFollower, JobKind, JobNews, JobUsage, Output, PlainDone, Refused,
    Verdict, jobs::Jobs,
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header::LOCATION},
    response::Response,
};
use slotmux_edge::{Answer, json};
use slotmux_protocol::{
    CausedBy, Code, Ended, JobName, Problem,
    job::{JobRequest, JobStatus},
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Submit a job.
///
/// JSON alone, or `multipart/form-data` with the parts `job` (the same JSON) and `files` (a tar
/// archive): of a graded job they are unpacked over its task's folder, of a plain one in
/// `files_dir`. Sent again with the same `job_id` and the same request it is not run again, and
/// how it is comes back with status 200.
#[utoipa::path(
    post, path = "/v1/jobs", operation_id = "submit_job", tag = "jobs", request_body(
        content = JobRequest,
        example = json!({"job_id": "rollout-17", "plain": {"image": "debian:12", "command": ["sh", "-c", "exit 3"]}})
    ),
    responses(
        (status = 201, description = "It waits for a slot, or runs", body = JobStatus),
        (status = 200, description = "It was submitted before", body = JobStatus),
    ),
)]
pub(super) async fn submit<J: Jobs>(State(api): State<Api<J>>, upload: Upload) -> Answer {
    let digest = upload.digest()?;
    let name = match &upload.request.job_id {
        Some(name) => name.clone(),
        None => draw()?,
    };
    let (code, status) = take(&api, name, digest, upload)?;
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", escaped(&status.job_id)));
    let mut response: Response = json(code, &status);
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Takes jobs of an agent before this one under their own names.
pub(super) fn adopt<J: Jobs>(api: &Api<J>, follower: JobFollower) {
    match JobName::new(follower.id().as_str()) {
        Ok(name) => {
            api.ledger().add(Record::new(name.clone(), None, 0, now_ms()));
            tokio::spawn(follow(api.clone(), name, follower, lost_graded()));
        }
        // INGInious's backend chooses names too.
        Err(error) => tracing::debug!(job = %follower.id(), %error, "adopted job not shown"),
    }
}

fn take<J: Jobs>(
    api: &Api<J>,
    name: JobName,
    digest: Digest,
    upload: Upload,
) -> Result<(StatusCode, JobStatus), Problem> {
    let bytes = upload.bytes;
    let order = order(id(&name)?, upload)?;
    let lost = match &order.kind {
        JobKind::Graded(_) => lost_graded(),
        JobKind::Plain(_) => lost_plain(),
    };
    // Held over the submission, so that of two requests with one name only one submits.
    let mut ledger = api.ledger();
    match ledger.find(&name) {
        Found::Job(record) if record.is_for(&digest) => {
            return Ok((StatusCode::OK, record.status()));
        }
        Found::Job(_) => return Err(reused(&name)),
        Found::Gone => return Err(dropped(&name)),
        Found::Nothing => {}
    }
    let held_max = api.settings.held_bytes_max;
    if ledger.held_bytes().saturating_add(bytes) > held_max && ledger.held_bytes() > 0 {
        let text = format!("the jobs that wait hold {held_max} bytes already");
        return Err(Problem::new(Code::QueueFull, text));
    }
    let follower = api.jobs.submit(order).map_err(|refused| refusal(&name, &refused))?;
    let record = Record::new(name.clone(), Some(digest), bytes, now_ms());
    let status = record.status();
    ledger.add(record);
    drop(ledger);
    tokio::spawn(follow(api.clone(), name, follower, lost));
    Ok((StatusCode::CREATED, status))
}

/// Writes down what becomes of a job; `lost`, if nobody ever says.
async fn follow<J: Jobs>(api: Api<J>, name: JobName, mut follower: JobFollower, lost: JobDone) {
    let done = loop {
        match follower.next().await {
            Some(JobNews::Started) => {
                api.ledger().change(&name, |record| record.start(now_ms()));
            }
            Some(JobNews::SshDebug(ssh)) => {
                api.ledger().change(&name, |record| record.offer_ssh(ssh, now_ms()));
            }
            Some(JobNews::Done(done)) => break done,
            None => break Arc::new(lost),
        }
    };
    let unfetched = api.ledger().finish(&name, done, now_ms());
    if let Some(first) = unfetched.first() {
        let results = unfetched.len();
        tracing::warn!(results, %first, "results that nobody has fetched made room");
    }
}

/// An agent that ends says what becomes of its jobs; these are for one that could not.
const LOST: &str = "The agent has lost this job.";

fn lost_graded() -> JobDone {
    JobDone::Graded(GradedDone::without_result(Verdict::Crash, LOST, "", CausedBy::Infra))
}

fn lost_plain() -> JobDone {
    JobDone::Plain(PlainDone {
        ended: Ended::Lost,
        caused_by: CausedBy::Infra,
        exit_code: None,
        error: LOST.to_owned(),
        stdout: Output::default(),
        stderr: Output::default(),
        usage: JobUsage::default(),
    })
}

fn reused(name: &JobName) -> Problem {
    Problem::new(Code::JobIdReused, format!("`{name}` came before with another job")).at("job_id")
}

fn refusal(name: &JobName, refused: &Refused) -> Problem {
    match refused {
        Refused::Known(_) => {
            let text = format!("`{name}` is a job that came by another way");
            Problem::new(Code::JobIdReused, text).at("job_id")
        }
        Refused::Full => Problem::new(Code::QueueFull, "too many jobs wait already"),
        Refused::ShuttingDown => {
            Problem::new(Code::ShuttingDown, "the agent ends; submit the job to another one")
        }
    }
}

/// As one segment of a path (RFC 3986).
fn escaped(name: &JobName) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;=".contains(&byte);
    let escape = |byte: u8| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.as_str().bytes().map(escape).collect()
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
