//! What a job came to, as clients read it.

use super::json::unpack_map;
use crate::{GradedDone, JobDone, JobUsage, Output, PlainDone, Verdict};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use slotmux_protocol::{
    CausedBy, Ended, JobName,
    job::{GradedResult, JobOutput, JobResult, JobUsed, PlainResult},
};
use std::time::Duration;

/// Of a result without its texts and archives.
const BASE_BYTES: usize = 512;
/// Of a value that is read from msgpack.
const VALUE_BYTES: usize = 48;

pub(super) fn result(job_id: JobName, done: &JobDone) -> JobResult {
    match done {
        JobDone::Graded(done) => JobResult { job_id, graded: Some(graded(done)), plain: None },
        JobDone::Plain(done) => JobResult { job_id, graded: None, plain: Some(plain(done)) },
    }
}

/// In a few words: INGInious's, or how the command ended; and whose fault it was.
pub(super) fn summary(done: &JobDone) -> (Option<Verdict>, Option<Ended>, CausedBy) {
    match done {
        JobDone::Graded(done) => (Some(done.verdict), None, done.caused_by),
        JobDone::Plain(done) => (None, Some(done.ended), done.caused_by),
    }
}

/// What it takes in memory, about.
pub(super) fn bytes(done: &JobDone) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    BASE_BYTES
        + match done {
            JobDone::Graded(it) => {
                let values = [&it.problems, &it.tests, &it.custom].map(weight);
                let archive = it.archive.as_ref().map_or(0, bytes::Bytes::len);
                let texts = it.text.len() + it.state.len() + text(&it.stdout) + text(&it.stderr);
                values.iter().sum::<usize>() + archive + texts
            }
            JobDone::Plain(it) => {
                let output = |it: &Output| it.head.len() + it.tail.len();
                it.error.len() + output(&it.stdout) + output(&it.stderr)
            }
        }
}

fn weight(value: &rmpv::Value) -> usize {
    use rmpv::Value;
    VALUE_BYTES
        + match value {
            Value::String(text) => text.as_bytes().len(),
            Value::Binary(bytes) | Value::Ext(_, bytes) => bytes.len(),
            Value::Array(values) => values.iter().map(weight).sum(),
            Value::Map(entries) => {
                entries.iter().map(|(key, value)| weight(key) + weight(value)).sum()
            }
            _ => 0,
        }
}

fn graded(done: &GradedDone) -> GradedResult {
    GradedResult {
        result: done.verdict,
        text: done.text.clone(),
        grade: done.grade,
        problems: unpack_map(&done.problems),
        tests: unpack_map(&done.tests),
        custom: unpack_map(&done.custom),
        state: done.state.clone(),
        archive_base64: done.archive.as_ref().map(|archive| BASE64_STANDARD.encode(archive)),
        stdout: done.stdout.clone(),
        stderr: done.stderr.clone(),
        caused_by: done.caused_by,
        used: used(&done.usage),
    }
}

fn plain(done: &PlainDone) -> PlainResult {
    let output = |output: &Output| JobOutput { text: output.text(), cut_bytes: output.cut_bytes };
    PlainResult {
        ended: done.ended,
        caused_by: done.caused_by,
        exit_code: done.exit_code,
        error: done.error.clone(),
        stdout: output(&done.stdout),
        stderr: output(&done.stderr),
        used: used(&done.usage),
    }
}

fn used(usage: &JobUsage) -> JobUsed {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    JobUsed { wall_us: micros(usage.wall), cpu_us: usage.cpu.map(micros) }
}
