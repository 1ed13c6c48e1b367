//! What a backend says. Field sets are exact: what is missing, or too much, makes a message one
//! that was not understood, as it does for INGInious's own agent.

use crate::{
    Debug, Graded,
    msgpack::{self, Bounds, Unreadable},
};
use rmpv::Value;

/// Longest text that is repeated from a message in what is said of it, in bytes.
const QUOTED_BYTES_MAX: usize = 100;

#[derive(Debug)]
pub(crate) enum FromBackend {
    NewJob { job_id: String, job: Box<Graded> },
    KillJob { job_id: String, state: String },
    Ping,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Misread {
    #[error("read the message")]
    Msgpack(#[from] Unreadable),
    #[error("the message is not a map with `@type`")]
    NotAMessage,
    #[error("there is no message `{0}`")]
    Unknown(String),
    #[error("{kind}: {fault}")]
    Fields {
        kind: &'static str,
        /// Of the job that it is about, if it says so: somebody waits for its answer.
        job_id: Option<String>,
        fault: Fault,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` comes twice or is not known")]
    Extra(String),
    #[error("`{field}` must be {expected}")]
    Type { field: &'static str, expected: &'static str },
}

impl FromBackend {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Misread> {
        let Value::Map(mut entries) = msgpack::read(bytes, Bounds::default())? else {
            return Err(Misread::NotAMessage);
        };
        let is_type = |(key, _): &(Value, Value)| key.as_str() == Some("@type");
        let at = entries.iter().position(is_type).ok_or(Misread::NotAMessage)?;
        let (_, kind) = entries.swap_remove(at);
        match kind.as_str().ok_or(Misread::NotAMessage)? {
            "BackendNewJob" => about_job("BackendNewJob", entries, new_job),
            "BackendKillJob" => about_job("BackendKillJob", entries, kill_job),
            "Ping" => Fields(entries).end().map(|()| Self::Ping).map_err(|fault| Misread::Fields {
                kind: "Ping",
                job_id: None,
                fault,
            }),
            other => Err(Misread::Unknown(quoted(other))),
        }
    }
}

type Entries = Vec<(Value, Value)>;

fn about_job(
    kind: &'static str,
    entries: Entries,
    parse: fn(String, Fields) -> Result<FromBackend, Fault>,
) -> Result<FromBackend, Misread> {
    let mut fields = Fields(entries);
    let misread = |job_id, fault| Misread::Fields { kind, job_id, fault };
    let job_id = fields.text("job_id").map_err(|fault| misread(None, fault))?;
    parse(job_id.clone(), fields).map_err(|fault| misread(Some(job_id), fault))
}

fn new_job(job_id: String, mut fields: Fields) -> Result<FromBackend, Fault> {
    let job = Graded {
        course_id: fields.text_or_nil("course_id")?,
        task_id: fields.text_or_nil("task_id")?,
        problems: fields.map_or_nil("task_problems")?,
        inputdata: fields.map("inputdata")?,
        environment_type: fields.text("environment_type")?,
        environment: fields.text("environment")?,
        parameters: fields.map_or_nil("environment_parameters")?,
        debug: fields.debug()?,
        files: None,
    };
    fields.end()?;
    Ok(FromBackend::NewJob { job_id, job: Box::new(job) })
}

fn kill_job(job_id: String, mut fields: Fields) -> Result<FromBackend, Fault> {
    let state = fields.text("state")?;
    fields.end()?;
    Ok(FromBackend::KillJob { job_id, state })
}

/// What was not taken out yet.
struct Fields(Entries);

impl Fields {
    fn take(&mut self, name: &'static str) -> Result<Value, Fault> {
        let at = self.0.iter().position(|(key, _)| key.as_str() == Some(name));
        Ok(self.0.swap_remove(at.ok_or(Fault::Missing(name))?).1)
    }

    fn text(&mut self, name: &'static str) -> Result<String, Fault> {
        self.text_or_nil(name)?.ok_or(Fault::Type { field: name, expected: "a string" })
    }

    fn text_or_nil(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        let fault = Fault::Type { field: name, expected: "a string" };
        match self.take(name)? {
            Value::Nil => Ok(None),
            Value::String(text) => text.into_str().map(Some).ok_or(fault),
            _ => Err(fault),
        }
    }

    fn map(&mut self, name: &'static str) -> Result<Value, Fault> {
        match self.take(name)? {
            map @ Value::Map(_) => Ok(map),
            _ => Err(Fault::Type { field: name, expected: "a map" }),
        }
    }

    /// A job without a task may have none of it.
    fn map_or_nil(&mut self, name: &'static str) -> Result<Value, Fault> {
        match self.take(name)? {
            map @ Value::Map(_) => Ok(map),
            Value::Nil => Ok(Value::Map(Vec::new())),
            _ => Err(Fault::Type { field: name, expected: "a map" }),
        }
    }

    fn debug(&mut self) -> Result<Debug, Fault> {
        match self.take("debug")? {
            Value::Boolean(false) => Ok(Debug::No),
            Value::Boolean(true) => Ok(Debug::Yes),
            Value::String(text) if text.as_str() == Some("ssh") => Ok(Debug::Ssh),
            _ => Err(Fault::Type { field: "debug", expected: "true, false or \"ssh\"" }),
        }
    }

    fn end(self) -> Result<(), Fault> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => {
                let name = key.as_str().map_or_else(|| "a key that is no string".into(), quoted);
                Err(Fault::Extra(name))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    text[..text.floor_char_boundary(QUOTED_BYTES_MAX)].escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::from(text)
    }

    fn job() -> Entries {
        let fields = [
            ("job_id", text("j")),
            ("course_id", text("c")),
            ("task_id", Value::Nil),
            ("task_problems", Value::Nil),
            ("inputdata", Value::Map(vec![(Value::from(3), Value::from(&b"\xff"[..]))])),
            ("environment_type", text("docker")),
            ("environment", text("default")),
            ("environment_parameters", Value::Map(Vec::new())),
            ("debug", Value::from(true)),
            ("@type", text("BackendNewJob")),
        ];
        fields.into_iter().map(|(name, value)| (text(name), value)).collect()
    }

    fn parse(entries: Entries) -> Result<FromBackend, Misread> {
        FromBackend::parse(&msgpack::write(&Value::Map(entries)))
    }

    fn fault(entries: Entries) -> (Option<String>, Fault) {
        match parse(entries) {
            Err(Misread::Fields { job_id, fault, .. }) => (job_id, fault),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_keeps_keys_and_bytes_as_they_are() {
        let Ok(FromBackend::NewJob { job_id, job }) = parse(job()) else { panic!("refused") };
        assert_eq!(
            (job_id.as_str(), job.course_id.as_deref(), job.task_id),
            ("j", Some("c"), None)
        );
        let upload = (Value::from(3), Value::from(&b"\xff"[..]));
        assert_eq!(job.inputdata, Value::Map(vec![upload]));
        assert_eq!((job.problems, job.debug), (Value::Map(Vec::new()), Debug::Yes));
    }

    #[test]
    fn each_missing_field_is_named_with_the_job_that_waits() {
        for at in 0..job().len() - 1 {
            let mut entries = job();
            let (name, _) = entries.remove(at);
            let (job_id, fault) = fault(entries);
            assert_eq!(job_id, (at != 0).then(|| "j".to_owned()));
            assert!(matches!(fault, Fault::Missing(it) if Some(it) == name.as_str()), "{name}");
        }
    }

    #[test]
    fn a_field_too_much_or_of_another_type_is_refused() {
        let mut entries = job();
        entries.push((text("kata"), Value::Nil));
        assert_eq!(fault(entries), (Some("j".to_owned()), Fault::Extra("kata".to_owned())));
        let mut entries = job();
        entries.push((text("debug"), Value::from(true)));
        assert_eq!(fault(entries).1, Fault::Extra("debug".to_owned()));
        for at in 0..job().len() - 1 {
            let mut entries = job();
            entries[at].1 = Value::from(7);
            assert!(matches!(fault(entries).1, Fault::Type { .. }), "field {at}");
        }
        let mut entries = job();
        entries[8].1 = text("ssh ");
        assert!(matches!(fault(entries).1, Fault::Type { field: "debug", .. }));
    }

    #[test]
    fn what_is_no_message_of_a_backend_is_said_so() {
        let of = |kind: Value| parse(vec![(text("@type"), kind)]);
        assert!(matches!(of(text("Ping")), Ok(FromBackend::Ping)));
        assert!(matches!(of(text("Pong")), Err(Misread::Unknown(kind)) if kind == "Pong"));
        assert!(matches!(of(Value::from(1)), Err(Misread::NotAMessage)));
        assert!(matches!(parse(Vec::new()), Err(Misread::NotAMessage)));
        assert!(matches!(FromBackend::parse(b"\x93\x01\x02\x03"), Err(Misread::NotAMessage)));
        assert!(matches!(FromBackend::parse(b"\xc1"), Err(Misread::Msgpack(_))));
        assert!(matches!(FromBackend::parse(b""), Err(Misread::Msgpack(_))));
        let extra = vec![(text("@type"), text("Ping")), (text("at"), Value::from(1))];
        assert!(matches!(parse(extra), Err(Misread::Fields { job_id: None, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = FromBackend::parse(&bytes);
        }

        #[test]
        fn a_job_with_any_byte_changed_is_survived(at: prop::sample::Index, byte: u8) {
            let mut bytes = msgpack::write(&Value::Map(job()));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = FromBackend::parse(&bytes);
        }
    }
}
