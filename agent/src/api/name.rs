//! Names of jobs: in paths, and drawn.

use crate::{JOB_ID_BYTES_MAX, JobId};
use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use slotmux_edge::Refusal;
use slotmux_protocol::{Code, JobName, Problem};
use std::fmt::Write as _;

const DRAWN_BYTES: usize = 16;

/// The job of a path.
pub(super) struct NamePath(pub(super) JobName);

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(Refusal(Problem::new(Code::NotFound, "the path is not UTF-8")));
        };
        // What cannot name a job names none that is known.
        JobName::new(&text).map(Self).map_err(|_| Refusal(unknown(&text)))
    }
}

pub(super) fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(100).collect();
    Problem::new(Code::UnknownJob, format!("there is no job `{shown}`; see /v1/jobs"))
}

pub(super) fn dropped(name: &JobName) -> Problem {
    Problem::new(Code::JobDropped, format!("what job `{name}` came to is no longer kept"))
}

/// As the agent calls it.
pub(super) fn id(name: &JobName) -> Result<JobId, Problem> {
    let fault = |_| {
        let text = format!("a job id has at most {JOB_ID_BYTES_MAX} bytes");
        Problem::new(Code::Invalid, text).at("job_id")
    };
    name.as_str().to_owned().try_into().map_err(fault)
}

pub(super) fn draw() -> Result<JobName, Problem> {
    let fault = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "no job id drawn");
        Problem::new(Code::Internal, "no id could be drawn; send one")
    };
    let mut bytes = [0; DRAWN_BYTES];
    let mut drawn = 0;
    while drawn < DRAWN_BYTES {
        let flags = rustix::rand::GetRandomFlags::empty();
        drawn += rustix::rand::getrandom(&mut bytes[drawn..], flags).map_err(|it| fault(&it))?;
    }
    let mut text = String::from("job-");
    for byte in bytes {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    JobName::new(text).map_err(|it| fault(&it))
}
