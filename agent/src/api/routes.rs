//! Looking at jobs, ending them, and fetching what they came to.

use super::{
    Api,
    ledger::Found,
    name::{NamePath, dropped, id, unknown},
    outcome,
};
use crate::{JobDone, Kill, jobs::Jobs};
use axum::{
    extract::{Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use slotmux_edge::{Answer, Refusal, json, ok};
use slotmux_protocol::{
    Code, JobName, Problem,
    job::{JobList, JobResult, JobStatus, ResultQuery},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// The longest that a request for a result waits.
const WAIT_MAX: Duration = Duration::from_mins(5);
/// A result of this size or more is written by a thread that may take its time.
const LARGE_BYTES: usize = 1 << 20;

/// All jobs whose results are kept, or are to come.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    responses((status = 200, description = "In the order in which they came", body = JobList)),
)]
pub(super) async fn list<J: Jobs>(State(api): State<Api<J>>) -> Answer {
    let jobs = api.ledger().list().collect();
    Ok(ok(&JobList { jobs }))
}

/// Look at a job.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}", operation_id = "get_job", tag = "jobs",
    params(("job_id" = JobName, Path)),
    responses((status = 200, description = "How it is", body = JobStatus)),
)]
pub(super) async fn get<J: Jobs>(State(api): State<Api<J>>, NamePath(name): NamePath) -> Answer {
    Ok(ok(&status(&api, &name)?))
}

/// End a job.
///
/// It is `done` soon after, as `killed`. One that is done already stays what it came to.
#[utoipa::path(
    post, path = "/v1/jobs/{job_id}/kill", operation_id = "kill_job", tag = "jobs",
    params(("job_id" = JobName, Path)),
    responses((status = 202, description = "How it was", body = JobStatus)),
)]
pub(super) async fn kill<J: Jobs>(State(api): State<Api<J>>, NamePath(name): NamePath) -> Answer {
    let status = status(&api, &name)?;
    // Known here, so one of ours: if it is not known there, it has just been done.
    let (Kill::Asked | Kill::Unknown) = api.jobs.kill(&id(&name)?);
    Ok(json(StatusCode::ACCEPTED, &status))
}

/// Fetch what a job came to, and wait for it up to `wait_s`.
///
/// It stays until it is deleted, or room is needed for later ones.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}/result", operation_id = "fetch_result", tag = "jobs",
    params(
        ("job_id" = JobName, Path),
        ("wait_s" = Option<f64>, Query, description = "At most this long; 300 at most. Absent: 0"),
    ),
    responses(
        (status = 200, description = "What it came to", body = JobResult),
        (status = 202, description = "It is not done yet", body = JobStatus),
    ),
)]
pub(super) async fn result<J: Jobs>(
    State(api): State<Api<J>>,
    NamePath(name): NamePath,
    uri: Uri,
) -> Answer {
    let Query(query) = Query::<ResultQuery>::try_from_uri(&uri).map_err(|rejection| {
        Refusal(Problem::new(Code::Invalid, rejection.body_text()).at("wait_s"))
    })?;
    let wait = query.wait_s.map_or(0, slotmux_protocol::v1::Seconds::as_millis);
    let deadline = Instant::now() + Duration::from_millis(wait).min(WAIT_MAX);
    loop {
        let mut told = match look(&api, &name)? {
            Look::Done(done) => {
                api.ledger().fetch(&name);
                return written(name, done).await;
            }
            Look::Open(told) => told,
        };
        let closing = api.settings.closing.cancelled();
        let over = tokio::select! {
            // Closed: the next look says why.
            changed = timeout_at(deadline, told.changed()) => changed.is_err(),
            () = closing => true,
        };
        if over {
            return Ok(json(StatusCode::ACCEPTED, &status(&api, &name)?));
        }
    }
}

/// Forget a job that is done.
///
/// Its id is not free again: what is sent with it is answered with 410.
#[utoipa::path(
    delete, path = "/v1/jobs/{job_id}", operation_id = "delete_job", tag = "jobs",
    params(("job_id" = JobName, Path)),
    responses((status = 204, description = "Nothing of it is kept, perhaps since before")),
)]
pub(super) async fn delete<J: Jobs>(State(api): State<Api<J>>, NamePath(name): NamePath) -> Answer {
    let mut ledger = api.ledger();
    match ledger.find(&name) {
        Found::Job(record) if record.done().is_none() => {
            let text = format!("`{name}` is not done; kill it first, or wait");
            return Err(Problem::new(Code::JobNotDone, text).into());
        }
        Found::Job(_) => ledger.forget(&name),
        Found::Gone => {}
        Found::Nothing => return Err(unknown(name.as_str()).into()),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether this process answers. Needs no token.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "agent", security(()),
    responses((status = 200, description = "It does", body = Health)),
)]
pub(super) async fn health() -> Response {
    ok(&Health { status: "ok" })
}

pub(super) fn status<J>(api: &Api<J>, name: &JobName) -> Result<JobStatus, Problem> {
    match api.ledger().find(name) {
        Found::Job(record) => Ok(record.status()),
        Found::Gone => Err(dropped(name)),
        Found::Nothing => Err(unknown(name.as_str())),
    }
}

enum Look {
    Done(Arc<JobDone>),
    Open(watch::Receiver<()>),
}

fn look<J>(api: &Api<J>, name: &JobName) -> Result<Look, Problem> {
    match api.ledger().find(name) {
        Found::Job(record) => Ok(match record.done() {
            Some(done) => Look::Done(Arc::clone(done)),
            None => Look::Open(record.watch()),
        }),
        Found::Gone => Err(dropped(name)),
        Found::Nothing => Err(unknown(name.as_str())),
    }
}

async fn written(name: JobName, done: Arc<JobDone>) -> Answer {
    let large = outcome::bytes(&done) >= LARGE_BYTES;
    let write = move || ok(&outcome::result(name, &done));
    if !large {
        return Ok(write());
    }
    tokio::task::spawn_blocking(write).await.map_err(|error| {
        tracing::error!(%error, "result not written");
        Problem::new(Code::Internal, "this is a fault of ours; the log says more").into()
    })
}
