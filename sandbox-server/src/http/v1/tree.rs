//! Whole trees of files, in and out, as tar streams. See [`crate::files::tar`] for the rules.

use super::{check_time, find};
use crate::{
    access::Access,
    files::{
        FileError, Until,
        tar::{self, Limits, bridge},
    },
    http::body::BODY_WAIT,
    server::Server,
    slot::Slot,
};
use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{Path, Query, State},
    http::{
        HeaderName, HeaderValue,
        header::{CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::{Stream, StreamExt as _, stream::unfold};
use serde::Deserialize;
use serde_json::json;
use slotmux_edge::{Answer, Refusal, ok};
use slotmux_protocol::{CallLimits, Code, Problem, v1::Seconds};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};

/// A large repository over a slow line.
const TIMEOUT_MS: u64 = 600_000;
/// Of a body that nobody wants any more.
const UNREAD_BYTES_MAX: usize = 64 << 20;
const UNREAD_WAIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Absent: the workspace.
    #[serde(default = "workspace")]
    path: String,
    /// For all of it; absent: 600.
    timeout_s: Option<Seconds>,
}

fn workspace() -> String {
    ".".to_owned()
}

impl Place {
    fn limits(&self, server: &Server) -> Result<CallLimits, Problem> {
        let timeout_ms = self.timeout_s.map_or(TIMEOUT_MS, Seconds::as_millis);
        check_time(server, timeout_ms, "timeout_s")?;
        Ok(CallLimits { timeout_ms, ..CallLimits::default() })
    }
}

/// Puts the files of a tar, tar.gz or tar.zst below `path`, which is made. What was extracted
/// before an error stays.
pub(super) async fn upload(
    State(server): State<Arc<Server>>,
    access: Access,
    Path(slot): Path<String>,
    place: Result<Query<Place>, axum::extract::rejection::QueryRejection>,
    body: Body,
) -> Answer {
    let (slot, place, limits) = prepare(&server, &slot, place)?;
    let mut visit = slot.visit(access.scope(slot.index)?).await?;
    let until = Until::new(limits, visit.stop().token());
    let workspace = Arc::clone(visit.workspace()?);
    let limits = Limits { disk_bytes_max: visit.room_left().await, ..Limits::default() };
    let (pieces, reader) = bridge::reader(until.clone());
    // The visit goes along: when the client hangs up, the slot's turn lasts until the work is over.
    let work = spawn_blocking(move || {
        let done = tar::extract(&workspace, &place.path, reader, limits, &until);
        drop(visit);
        done
    });
    let mut body = body.into_data_stream();
    let whole = feed(&mut body, pieces).await;
    let done = work.await.map_err(|_panic| Problem::new(Code::Internal, "it failed; see the log"));
    let answer = done.and_then(|it| it.map_err(|error| problem(&server, &error)));
    let whole = whole || let_go(&mut body).await;
    let mut response = match answer {
        Ok(done) => ok(&json!({
            "entries": done.entries, "bytes": done.bytes,
            "skipped": done.skipped, "skipped_names": done.skipped_names,
        })),
        Err(problem) => Refusal::from(problem).into_response(),
    };
    if !whole {
        // What is still to come would be taken for the next request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Hands the body over until the other side has had enough of it. Whether that was all of it.
async fn feed(body: &mut BodyDataStream, pieces: mpsc::Sender<io::Result<Bytes>>) -> bool {
    loop {
        let piece = tokio::select! {
            biased;
            // Also while the client has nothing to say.
            () = pieces.closed() => return false,
            piece = timeout(BODY_WAIT, body.next()) => match piece {
                Ok(None) => return true,
                Ok(Some(piece)) => piece.map_err(io::Error::other),
                Err(_late) => Err(io::ErrorKind::TimedOut.into()),
            },
        };
        let last = piece.is_err();
        if pieces.send(piece).await.is_err() || last {
            return false;
        }
    }
}

/// Reads on for nothing, within bounds: a client that is still sending would not hear an answer,
/// but that its connection is gone. Whether it has come to the end.
async fn let_go(body: &mut BodyDataStream) -> bool {
    let to_its_end = async {
        let mut left = UNREAD_BYTES_MAX;
        while let Some(piece) = body.next().await {
            left = left.saturating_sub(piece.map_or(UNREAD_BYTES_MAX, |it| it.len()));
            if left == 0 {
                return false;
            }
        }
        true
    };
    timeout(UNREAD_WAIT, to_its_end).await.unwrap_or(false)
}

/// What is below `path`, or the file that it is, as a tar with sorted names. Broken off when it
/// cannot be read to its end.
pub(super) async fn download(
    State(server): State<Arc<Server>>,
    access: Access,
    Path(slot): Path<String>,
    place: Result<Query<Place>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let (slot, place, limits) = prepare(&server, &slot, place)?;
    let visit = slot.visit(access.scope(slot.index)?).await?;
    let until = Until::new(limits, visit.stop().token());
    let workspace = Arc::clone(visit.workspace()?);
    let (mut writer, mut pieces) = bridge::writer(until.clone());
    let (ended, end) = oneshot::channel();
    spawn_blocking(move || {
        let done = tar::pack(&workspace, &place.path, &mut writer, Limits::default(), &until)
            .and_then(|_| writer.finish().map_err(|error| FileError::Stream(error.to_string())));
        drop(visit);
        // Who does not listen any more has hung up.
        let _ = ended.send(done);
    });
    // Without a first piece there is an error, and time to say it.
    let Some(first) = pieces.recv().await else {
        let done = end.await.unwrap_or(Err(FileError::Cancelled));
        return match done {
            Ok(()) => Ok(tar_of(Body::empty())),
            Err(error) => Err(problem(&server, &error).into()),
        };
    };
    Ok(tar_of(Body::from_stream(as_body(first, pieces, end))))
}

fn tar_of(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

/// The end of the pieces is the end of the body only if the work says that it is.
fn as_body(
    first: Bytes,
    pieces: mpsc::Receiver<Bytes>,
    end: oneshot::Receiver<Result<(), FileError>>,
) -> impl Stream<Item = Result<Bytes, FileError>> + Send + 'static {
    unfold((Some(first), Some((pieces, end))), async |(first, rest)| {
        if let Some(first) = first {
            return Some((Ok(first), (None, rest)));
        }
        let (mut pieces, end) = rest?;
        if let Some(piece) = pieces.recv().await {
            return Some((Ok(piece), (None, Some((pieces, end)))));
        }
        match end.await.unwrap_or(Err(FileError::Cancelled)) {
            Ok(()) => None,
            Err(error) => Some((Err(error), (None, None))),
        }
    })
}

type Prepared = (Arc<Slot>, Place, CallLimits);

fn prepare(
    server: &Server,
    slot: &str,
    place: Result<Query<Place>, axum::extract::rejection::QueryRejection>,
) -> Result<Prepared, Refusal> {
    if server.draining.is_cancelled() {
        return Err(Problem::new(Code::ShuttingDown, "the server is shutting down").into());
    }
    let Query(place) =
        place.map_err(|error| Problem::new(Code::Invalid, error.body_text()).at("query"))?;
    let limits = place.limits(server)?;
    Ok((Arc::clone(find(server, slot)?), place, limits))
}

fn problem(server: &Server, error: &FileError) -> Problem {
    let code = match error {
        FileError::Outside | FileError::Denied(_) => Code::Forbidden,
        FileError::NotFound(_) => Code::NotFound,
        FileError::TooLarge { .. } | FileError::OverLimit { .. } => Code::TooLarge,
        FileError::Full(_) => Code::StorageFull,
        FileError::Cancelled if server.draining.is_cancelled() => Code::ShuttingDown,
        FileError::Cancelled => Code::StaleEpoch,
        FileError::Other { .. } => Code::Internal,
        FileError::TimedOut
        | FileError::NotAFile(_)
        | FileError::NotADirectory(_)
        | FileError::Exists(_)
        | FileError::NotEmpty(_)
        | FileError::Invalid(_)
        | FileError::Stream(_) => Code::Invalid,
    };
    let problem = Problem::new(code, error.to_string());
    match error {
        FileError::Outside
        | FileError::Denied(_)
        | FileError::NotFound(_)
        | FileError::NotAFile(_)
        | FileError::NotADirectory(_) => problem.at("path"),
        FileError::TimedOut => problem.at("timeout_s"),
        _ => problem,
    }
}
