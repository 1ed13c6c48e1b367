//! What a grading container has left of its result, when it could not be heard.
//!
//! INGInious's first process keeps the feedback in a file before it says it. Only what the file
//! says is taken: no output, no archive.

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use rmpv::Value;
use slotmux_docker::{Engine, EngineError};
use std::{io::Read, time::Duration};
use tokio::time::timeout;

const FEEDBACK: &str = "/.__output/__feedback.json";
const BYTES_MAX: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(4);

/// `None`: it is more than this, or breaks.
async fn collect(
    mut stream: BoxStream<'static, Result<Bytes, EngineError>>,
    bytes_max: usize,
) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.ok()?);
        if all.len() > bytes_max {
            return None;
        }
    }
    Some(all)
}

/// `None`: there is nothing.
pub(super) async fn feedback(engine: &Engine, id: &str) -> Option<Value> {
    let archive = async { collect(engine.get(id, FEEDBACK).await.ok()?, BYTES_MAX).await };
    read(&timeout(PATIENCE, archive).await.ok()??)
}

fn read(archive: &[u8]) -> Option<Value> {
    let mut archive = tar::Archive::new(archive);
    let mut file = archive.entries().ok()?.next()?.ok()?;
    if !file.header().entry_type().is_file() {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    // It is made empty, and filled in the end.
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    json.as_object().filter(|it| !it.is_empty())?;
    rmpv::ext::to_value(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(text: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, "__feedback.json", text.as_bytes()).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn a_feedback_file_is_read_as_a_result_and_anything_else_is_none() {
        let found = read(&archive(r#"{"result": "failed", "grade": 12.5, "problems": {}}"#));
        let done = crate::result::read(found.unwrap()).unwrap();
        assert_eq!((done.verdict, done.grade), (crate::Verdict::Failed, 12.5));
        for bad in ["", "{", "{}", "[]", "3"] {
            assert_eq!(read(&archive(bad)), None, "{bad}");
        }
        assert_eq!(read(b"no archive"), None);
    }
}
