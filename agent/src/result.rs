//! The result that a grading container gives, checked as INGInious checks it.
//!
//! Source: the agent's rules for feedback. Any fault makes the whole of it unreadable.

use crate::{GradedDone, JobUsage, Verdict};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use rmpv::Value;
use slotmux_protocol::CausedBy;

const NOT_READABLE: &str = "The grader did not return a readable output : ";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadResult {
    #[error("{NOT_READABLE}Grading container did not return any result.")]
    None,
    #[error("{NOT_READABLE}Feedback file is badly formatted.")]
    Format,
    /// As the keys of a Python dict are missed.
    #[error("{NOT_READABLE}'{0}'")]
    Key(String),
    #[error("{NOT_READABLE}{0}")]
    Protocol(String),
}

/// `usage` is left empty.
pub(crate) fn read(result: Value) -> Result<GradedDone, BadResult> {
    let Value::Map(fields) = result else { return Err(BadResult::Format) };
    let mut done = GradedDone::without_result(Verdict::Error, "", "", CausedBy::Policy);
    let mut grade = None;
    for (key, value) in fields {
        let key = key.as_str().ok_or(BadResult::Format)?.to_owned();
        match key.as_str() {
            "result" => {
                done.verdict = Verdict::parse(&text(value)?).ok_or(BadResult::Format)?;
            }
            "text" => done.text = text(value)?,
            "stdout" => done.stdout = Some(text(value)?),
            "stderr" => done.stderr = Some(text(value)?),
            "state" => done.state = text(value)?,
            "archive" => done.archive = Some(archive(&text(value)?)?),
            "grade" => match value {
                Value::F64(number) => grade = Some(number),
                Value::F32(number) => grade = Some(f64::from(number)),
                _ => return Err(BadResult::Format),
            },
            "problems" => done.problems = map_of(value, "-._")?,
            "tests" => done.tests = map_of(value, "-._*")?,
            "custom" if value.is_map() => done.custom = value,
            "custom" => return Err(BadResult::Format),
            _ => return Err(BadResult::Key(key.chars().take(100).collect())),
        }
    }
    let full = if done.verdict == Verdict::Success { 100.0 } else { 0.0 };
    done.grade = two_decimals(grade.unwrap_or(full));
    done.usage = JobUsage::default();
    Ok(done)
}

fn text(value: Value) -> Result<String, BadResult> {
    match value {
        Value::String(text) => text.into_str().ok_or(BadResult::Format),
        _ => Err(BadResult::Format),
    }
}

fn archive(text: &str) -> Result<Bytes, BadResult> {
    let text: Vec<u8> = text.bytes().filter(|it| !it.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(|_| BadResult::Format)
}

fn map_of(value: Value, signs: &str) -> Result<Value, BadResult> {
    let Value::Map(fields) = &value else { return Err(BadResult::Format) };
    let is_id = |key: &Value| {
        let allowed = |it: char| it.is_ascii_alphanumeric() || signs.contains(it);
        key.as_str().is_some_and(|key| !key.is_empty() && key.chars().all(allowed))
    };
    let fits = fields.iter().all(|(key, value)| is_id(key) && !value.is_map());
    if fits { Ok(value) } else { Err(BadResult::Format) }
}

/// To the nearest, and of two that are as near to the even one.
fn two_decimals(number: f64) -> f64 {
    format!("{number:.2}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, Value)]) -> Value {
        Value::Map(fields.iter().map(|(key, value)| ((*key).into(), value.clone())).collect())
    }

    #[test]
    fn a_full_result_comes_through_and_an_empty_one_has_its_defaults() {
        let list = Value::Array(vec!["success".into(), "well done".into()]);
        let done = read(map(&[
            ("result", "success".into()),
            ("text", "fine".into()),
            ("grade", 71.128.into()),
            ("problems", map(&[("q-1._A", list.clone())])),
            ("tests", map(&[("t*", 1.into())])),
            ("custom", map(&[("any thing", map(&[("deep", 1.into())]))])),
            ("state", "s2".into()),
            ("archive", "aGVs\nbG8=".into()),
            ("stdout", "out".into()),
            ("stderr", "err".into()),
        ]))
        .unwrap();
        assert_eq!((done.verdict, &*done.text), (Verdict::Success, "fine"));
        assert_eq!(done.grade.to_string(), "71.13");
        assert_eq!(done.archive.as_deref(), Some(&b"hello"[..]));
        assert_eq!(done.problems, map(&[("q-1._A", list)]));
        assert_eq!((&*done.state, done.stdout.as_deref()), ("s2", Some("out")));

        let done = read(map(&[])).unwrap();
        assert_eq!((done.verdict, &*done.state), (Verdict::Error, ""));
        let grade = |verdict: &str| read(map(&[("result", verdict.into())])).unwrap().grade;
        assert_eq!(
            ["success", "failed", "error"].map(|it| grade(it).to_string()),
            ["100", "0", "0"]
        );
        assert_eq!((done.problems, done.stdout), (map(&[]), None));
    }

    #[test]
    fn any_fault_makes_it_unreadable() {
        let deep = map(&[("q", map(&[]))]);
        for (key, value) in [
            ("grade", 100.into()),
            ("grade", "100".into()),
            ("result", "splendid".into()),
            ("result", Value::Nil),
            ("text", Value::Nil),
            ("stdout", Value::from(&b"bin"[..])),
            ("problems", Value::Array(Vec::new())),
            ("problems", deep.clone()),
            ("problems", map(&[("a b", 1.into())])),
            ("problems", map(&[("t*", 1.into())])),
            ("problems", map(&[("", 1.into())])),
            ("problems", Value::Map(vec![(1.into(), 1.into())])),
            ("tests", deep),
            ("custom", "x".into()),
            ("archive", "?".into()),
        ] {
            let result = map(&[(key, value)]);
            assert_eq!(read(result.clone()), Err(BadResult::Format), "{result}");
        }
        let error = read(map(&[("unknown_key", 1.into())])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The grader did not return a readable output : 'unknown_key'"
        );
    }
}
