//! `/v1/jobs/{job_id}/events`: what becomes of a job, a line for each step, as it happens.

use super::{
    Api,
    ledger::Found,
    name::{NamePath, dropped, unknown},
};
use crate::jobs::Jobs;
use axum::{
    extract::{Query, State},
    http::Uri,
};
use futures_util::{
    Stream, StreamExt,
    stream::{iter, unfold},
};
use serde::Deserialize;
use slotmux_edge::{Answer, Refusal, lines};
use slotmux_protocol::{Code, JobName, Problem, job::JobEvent};
use tokio::sync::watch;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(default)]
    after: u32,
}

/// Follow a job.
///
/// From its beginning, or after an event that is known; the stream ends with `done`, or when the
/// job is forgotten.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}/events", operation_id = "follow_job", tag = "jobs",
    params(
        ("job_id" = JobName, Path),
        ("after" = Option<u32>, Query, description = "Only events with a higher `seq`. Absent: all"),
    ),
    responses((
        status = 200, description = "A line for each", body = JobEvent,
        content_type = "application/x-ndjson",
    )),
)]
pub(super) async fn events<J: Jobs>(
    State(api): State<Api<J>>,
    NamePath(name): NamePath,
    uri: Uri,
) -> Answer {
    let Query(query) = Query::<EventsQuery>::try_from_uri(&uri).map_err(|rejection| {
        Refusal(Problem::new(Code::Invalid, rejection.body_text()).at("after"))
    })?;
    let told = match api.ledger().find(&name) {
        Found::Job(record) => record.watch(),
        Found::Gone => return Err(dropped(&name).into()),
        Found::Nothing => return Err(unknown(name.as_str()).into()),
    };
    let closing = api.settings.closing.clone();
    let events = stream(Follow { api, name, told, after: query.after, ended: false });
    Ok(lines(events.take_until(closing.cancelled_owned()).boxed()))
}

struct Follow<J> {
    api: Api<J>,
    name: JobName,
    told: watch::Receiver<()>,
    after: u32,
    ended: bool,
}

fn stream<J: Jobs>(follow: Follow<J>) -> impl Stream<Item = JobEvent> + Send {
    unfold(follow, async |mut follow| {
        let events = follow.next().await?;
        Some((iter(events), follow))
    })
    .flatten()
}

impl<J: Jobs> Follow<J> {
    /// What has happened since, at least one event.
    async fn next(&mut self) -> Option<Vec<JobEvent>> {
        while !self.ended {
            self.told.mark_unchanged();
            let events = self.since()?;
            if let Some(last) = events.last() {
                self.after = last.seq;
                return Some(events);
            }
            // Closed: it was forgotten.
            if !self.ended {
                self.told.changed().await.ok()?;
            }
        }
        None
    }

    fn since(&mut self) -> Option<Vec<JobEvent>> {
        let ledger = self.api.ledger();
        let Found::Job(record) = ledger.find(&self.name) else { return None };
        self.ended = record.done().is_some();
        Some(record.events_after(self.after).to_vec())
    }
}
