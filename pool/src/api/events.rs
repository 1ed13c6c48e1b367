//! `/v1/events`: what happens to leases and containers, as server-sent events.

use super::Api;
use axum::{
    extract::{Query, State},
    http::Uri,
    response::{
        IntoResponse,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{
    Stream, StreamExt,
    stream::{once, unfold},
};
use serde::Deserialize;
use slotmux_edge::{Answer, Refusal};
use slotmux_protocol::{Code, LeaseId, Problem, TrajectoryId, v1::Event};
use std::{convert::Infallible, future::ready, time::Duration};
use tokio::sync::broadcast::{Receiver, error::RecvError};

const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Events of this lease only.
    #[param(value_type = Option<String>)]
    lease_id: Option<LeaseId>,
    /// Events of this trajectory only.
    #[param(value_type = Option<String>)]
    trajectory_id: Option<TrajectoryId>,
}

impl Filter {
    fn lets_through(&self, event: &Event) -> bool {
        (self.lease_id.is_none() || self.lease_id == event.lease_id)
            && (self.trajectory_id.is_none() || self.trajectory_id == event.trajectory_id)
    }
}

/// Follow what happens, from now on.
///
/// Each event's name is its `kind` and its id its `seq`. Without a filter, `seq` rises by one; a
/// gap means that this reader was too slow and missed some, also told by an event `missed` with
/// their number. Comments keep the connection alive.
#[utoipa::path(
    get, path = "/v1/events", tag = "pool", params(Filter),
    responses((status = 200, description = "A stream without end", body = Event, content_type = "text/event-stream")),
)]
pub(super) async fn events(State(api): State<Api>, uri: Uri) -> Answer {
    let Query(filter) = Query::<Filter>::try_from_uri(&uri).map_err(|rejection| {
        Refusal(Problem::new(Code::Invalid, rejection.body_text()).at("query"))
    })?;
    // Subscribed before the answer begins: what happens after a client sees it is not missed.
    let events = stream(api.pool.events(), filter);
    let hello = once(ready(Ok(sse::Event::default().comment("slotmux events"))));
    let closing = api.settings.closing.clone();
    let until_closing = hello.chain(events).take_until(closing.cancelled_owned());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(until_closing).keep_alive(keep_alive).into_response())
}

fn stream(
    receiver: Receiver<Event>,
    filter: Filter,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    unfold((receiver, filter), |(mut receiver, filter)| async move {
        loop {
            let sent = match receiver.recv().await {
                Ok(event) if filter.lets_through(&event) => line(&event),
                Ok(_) => continue,
                Err(RecvError::Lagged(missed)) => {
                    Some(sse::Event::default().event("missed").data(missed.to_string()))
                }
                Err(RecvError::Closed) => return None,
            };
            if let Some(sent) = sent {
                return Some((Ok(sent), (receiver, filter)));
            }
        }
    })
}

fn line(event: &Event) -> Option<sse::Event> {
    match serde_json::to_string(event) {
        Ok(data) => Some(
            sse::Event::default().event(event.kind.as_str()).id(event.seq.to_string()).data(data),
        ),
        Err(error) => {
            tracing::error!(%error, "event not written as json");
            None
        }
    }
}
