//! `/metrics`, as Prometheus reads it.

use super::Api;
use crate::jobs::Jobs;
use axum::{
    extract::State,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use std::{collections::BTreeMap, fmt::Write as _};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Slots, queue and results, in Prometheus's text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "agent",
    responses((status = 200, description = "Gauges and counters", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics<J: Jobs>(State(api): State<Api<J>>) -> Response {
    let slots = *api.jobs.slots().borrow();
    let environments = api.jobs.environments().borrow().0.values().map(BTreeMap::len).sum();
    let (open, (results, results_bytes), held_bytes, dropped) = {
        let ledger = api.ledger();
        (ledger.open(), ledger.results(), ledger.held_bytes(), ledger.unfetched_dropped())
    };
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: u64| {
        // A string takes everything.
        let _ = writeln!(
            text,
            "# HELP slotmux_agent_{name} {help}\n# TYPE slotmux_agent_{name} {kind}\n\
             slotmux_agent_{name} {value}"
        );
    };
    let count = |count: usize| count as u64;
    put("slots", "gauge", "Jobs that can run at the same time.", slots.total.into());
    put("slots_free", "gauge", "Slots that no job has.", slots.free.into());
    put("jobs_waiting", "gauge", "Jobs that wait for a slot.", count(slots.waiting));
    put("environments", "gauge", "Grading images that can be used.", count(environments));
    put("http_jobs_open", "gauge", "Jobs that came by HTTP and are not done.", count(open));
    put("http_held_bytes", "gauge", "What the requests of these hold.", count(held_bytes));
    put("http_results", "gauge", "Results that are kept.", count(results));
    put("http_results_bytes", "gauge", "What these take.", count(results_bytes));
    put(
        "http_results_dropped_total",
        "counter",
        "Results that made room before anybody fetched them.",
        dropped,
    );
    ([(CONTENT_TYPE, HeaderValue::from_static(TEXT))], text).into_response()
}
