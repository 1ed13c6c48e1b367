//! The rollouts file: one JSON object a line, checked as a whole before anything runs.
//!
//! Every fault is found, not only the first, and each names its line and field.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use slotmux_protocol::{
    ArgsFault, Ended, Limits, ProfileName, ToolCall, TrajectoryId, WriteFileArgs, v1::Seconds,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::{self, BufRead, Read},
};

/// What a pool can take in one request is more than any line needs.
const LINE_BYTES_MAX: usize = 16 << 20;
const TRAJECTORIES_MAX: usize = 1_000_000;

/// A trajectory to replay.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trajectory {
    /// Of the file, from 1.
    pub(crate) line: usize,
    pub(crate) id: TrajectoryId,
    pub(crate) profile: Option<ProfileName>,
    pub(crate) group: Option<String>,
    pub(crate) requires: Vec<String>,
    pub(crate) files: Vec<WriteFileArgs>,
    pub(crate) calls: Vec<PlannedCall>,
    pub(crate) reward: Option<Reward>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedCall {
    pub(crate) tool: ToolCall,
    pub(crate) timeout: Option<Seconds>,
    pub(crate) expect: Expect,
}

/// What a call has to come to. Absent fields ask for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) success: Option<bool>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) output_contains: Option<String>,
    pub(crate) ended: Option<Ended>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reward {
    pub(crate) command: String,
    #[serde(rename = "timeout_s")]
    pub(crate) timeout: Option<Seconds>,
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineFault {
    pub(crate) line: usize,
    pub(crate) field: Option<String>,
    pub(crate) what: String,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        match &self.field {
            Some(field) => write!(f, "`{field}`: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    trajectory_id: TrajectoryId,
    profile: Option<ProfileName>,
    group: Option<String>,
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(borrow)]
    calls: Vec<&'a RawValue>,
    #[serde(borrow)]
    reward: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: String,
    args: Value,
    timeout_s: Option<Seconds>,
    #[serde(default)]
    expect: Option<Expect>,
}

/// Every trajectory, or every fault.
pub(crate) fn read(mut file: impl BufRead) -> io::Result<Result<Vec<Trajectory>, Vec<LineFault>>> {
    let mut reading = Reading::default();
    let mut text = Vec::new();
    loop {
        text.clear();
        let limit = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
        if file.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        reading.line += 1;
        if text.len() > LINE_BYTES_MAX || reading.trajectories.len() >= TRAJECTORIES_MAX {
            reading.fault(
                None,
                "the file goes on beyond the limits of 16 MiB a line and 1000000 lines",
            );
            break;
        }
        match std::str::from_utf8(&text) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => reading.line(text.trim_end()),
            Err(error) => reading.fault(None, format!("not UTF-8: {error}")),
        }
    }
    if reading.trajectories.is_empty() && reading.faults.is_empty() {
        reading.line = 1;
        reading.fault(None, "the file holds no trajectory");
    }
    Ok(if reading.faults.is_empty() { Ok(reading.trajectories) } else { Err(reading.faults) })
}

#[derive(Default)]
struct Reading {
    line: usize,
    trajectories: Vec<Trajectory>,
    faults: Vec<LineFault>,
    first_lines: HashMap<TrajectoryId, usize>,
}

impl Reading {
    fn fault(&mut self, field: Option<String>, what: impl Into<String>) {
        self.faults.push(LineFault { line: self.line, field, what: what.into() });
    }

    fn line(&mut self, text: &str) {
        let Some(line) = self.part::<Line>("", text) else { return };
        if let Some(first) = self.first_lines.insert(line.trajectory_id.clone(), self.line) {
            let what = format!("`{}` stands in line {first} already", line.trajectory_id);
            self.fault(Some("trajectory_id".to_owned()), what);
        }
        for (at, name) in line.requires.iter().enumerate() {
            if name.is_empty()
                || name.contains(|c: char| c == '/' || c == '\0' || c.is_whitespace())
            {
                self.fault(Some(format!("requires[{at}]")), "not the name of an executable");
            }
        }
        let mut files = Vec::with_capacity(line.files.len());
        for (path, content) in line.files {
            if let Some(what) = wrong_path(&path) {
                self.fault(Some(format!("files[{path:?}]")), what);
            }
            files.push(WriteFileArgs::new(path, content));
        }
        let calls = line.calls.iter().enumerate();
        let calls = calls.filter_map(|(at, call)| self.call(&format!("calls[{at}]"), call.get()));
        let calls: Vec<PlannedCall> = calls.collect();
        let reward = line.reward.and_then(|text| self.part::<Reward>("reward", text.get()));
        self.check_timeout("reward", reward.as_ref().and_then(|it| it.timeout));
        self.trajectories.push(Trajectory {
            line: self.line,
            id: line.trajectory_id,
            profile: line.profile,
            group: line.group,
            requires: line.requires,
            files,
            calls,
            reward,
        });
    }

    fn call(&mut self, at: &str, text: &str) -> Option<PlannedCall> {
        let call: Call = self.part(at, text)?;
        self.check_timeout(at, call.timeout_s);
        match ToolCall::parse(&call.tool, call.args) {
            Ok(tool) => Some(PlannedCall {
                tool,
                timeout: call.timeout_s,
                expect: call.expect.unwrap_or_default(),
            }),
            Err(fault) => {
                let what = fault.to_string();
                let (field, what) = match fault {
                    ArgsFault::UnknownTool { .. } => ("tool".to_owned(), what),
                    ArgsFault::Field { field, message } => (field, message),
                };
                self.fault(Some(format!("{at}.{field}")), what);
                None
            }
        }
    }

    fn check_timeout(&mut self, at: &str, timeout: Option<Seconds>) {
        let max_ms = Limits::default().timeout_ms_max;
        if timeout.is_some_and(|it| !(1..=max_ms).contains(&it.as_millis())) {
            let what = format!("over 0 and at most {} seconds", max_ms / 1_000);
            self.fault(Some(format!("{at}.timeout_s")), what);
        }
    }

    /// Reads one part of a line; its first fault is noted.
    fn part<'a, T: Deserialize<'a>>(&mut self, at: &str, text: &'a str) -> Option<T> {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = serde_path_to_error::deserialize(&mut json);
        let (path, error) = match read {
            Ok(value) => match json.end() {
                Ok(()) => return Some(value),
                Err(error) => (None, error),
            },
            Err(error) => (Some(error.path().to_string()), error.into_inner()),
        };
        // Where the text itself is broken, no field is known for sure.
        let path = path.filter(|path| path != "." && error.is_data());
        let field = match (at, path) {
            ("", path) => path,
            (at, Some(path)) => Some(format!("{at}.{path}")),
            (at, None) => Some(at.to_owned()),
        };
        // The line that serde tells is that of the part.
        let what = error.to_string();
        let (what, place) = what.rsplit_once(" at line ").unwrap_or((&what, ""));
        let column = place.rsplit_once("column ").map_or("", |(_, column)| column);
        let what = if error.is_data() || !at.is_empty() {
            what.to_owned()
        } else {
            format!("{what} at column {column}")
        };
        self.fault(field, what);
        None
    }
}

fn wrong_path(path: &str) -> Option<&'static str> {
    let below = path.strip_prefix("/workspace/").unwrap_or(path);
    if below.is_empty() || below.ends_with('/') {
        return Some("not the path of a file");
    }
    if below.starts_with('/') || below.split('/').any(|part| part == "..") {
        return Some("the path leaves the workspace");
    }
    below.contains('\0').then_some("a path has no NUL bytes")
}

#[cfg(test)]
mod tests;
