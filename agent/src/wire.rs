//! What an agent and a grading container say to each other: INGInious's protocol, version 4.
//!
//! Each message is a msgpack map with a `type`. A message that cannot be read is skipped, one of an
//! unknown type ignored: what is in a container is not trusted to be of our time.

mod frames;
mod numbers;

pub(crate) use frames::{Deframer, TooLong, framed};
pub(crate) use numbers::{is_true, whole};

use crate::msgpack::{self, Bounds, Unreadable};
use bytes::Bytes;
use rmpv::{Value, encode::write_value};
use std::time::Duration;

/// A year: a longer time is none that anybody waits for.
const SECONDS_MAX: f64 = 31_536_000.0;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromContainer {
    RunStudent(RunStudent),
    SshDebug {
        user: String,
        key: String,
    },
    SshStudent {
        user: String,
        key: String,
        container_id: String,
    },
    /// A map; the last one counts.
    Result(Value),
}

/// A wish for a student container. Zero is what the grading container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunStudent {
    pub(crate) environment: Option<String>,
    pub(crate) time: Duration,
    pub(crate) hard_time: Duration,
    pub(crate) memory_mb: u64,
    pub(crate) share_network: bool,
    pub(crate) socket_id: String,
    pub(crate) ssh: bool,
    pub(crate) run_as_root: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("read the message")]
    Msgpack(#[from] Unreadable),
    #[error("it is no map with a type")]
    Untyped,
    #[error("`{0}` is missing or of another type than it should be")]
    Field(&'static str),
}

impl FromContainer {
    /// `None`: its type is unknown.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, BadMessage> {
        let value = msgpack::read(bytes, Bounds::default())?;
        let Value::Map(fields) = value else { return Err(BadMessage::Untyped) };
        let fields = Fields(fields);
        let kind = fields.text("type").map_err(|_| BadMessage::Untyped)?;
        Ok(Some(match kind.as_str() {
            "run_student" => Self::RunStudent(RunStudent::read(&fields)?),
            "ssh_debug" => {
                Self::SshDebug { user: fields.text("ssh_user")?, key: fields.text("ssh_key")? }
            }
            "ssh_student" => Self::SshStudent {
                user: fields.text("ssh_user")?,
                key: fields.text("ssh_key")?,
                container_id: fields.text("container_id")?,
            },
            "result" => match fields.take("result") {
                Some(result @ Value::Map(_)) => Self::Result(result),
                _ => return Err(BadMessage::Field("result")),
            },
            _ => return Ok(None),
        }))
    }
}

impl RunStudent {
    fn read(fields: &Fields) -> Result<Self, BadMessage> {
        let environment = match fields.get("environment") {
            None | Some(Value::Nil) => None,
            Some(_) => Some(fields.text("environment")?),
        };
        Ok(Self {
            environment,
            time: fields.seconds("time_limit")?,
            hard_time: fields.seconds("hard_time_limit")?,
            memory_mb: match fields.get("memory_limit") {
                None | Some(Value::Nil) => 0,
                Some(value) => {
                    let memory = whole(value).ok_or(BadMessage::Field("memory_limit"))?;
                    u64::try_from(memory).unwrap_or(0)
                }
            },
            share_network: fields.flag("share_network"),
            socket_id: fields.socket_id()?,
            ssh: fields.flag("ssh"),
            run_as_root: fields.flag("run_as_root"),
        })
    }
}

/// Of what is read at all; which of them are good is for the job to say.
const SOCKET_ID_BYTES_MAX: usize = 1_024;

struct Fields(Vec<(Value, Value)>);

impl Fields {
    /// It is said back, as often as it was sent.
    fn socket_id(&self) -> Result<String, BadMessage> {
        let id = self.text("socket_id")?;
        if id.len() > SOCKET_ID_BYTES_MAX { Err(BadMessage::Field("socket_id")) } else { Ok(id) }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    fn take(self, name: &str) -> Option<Value> {
        self.0.into_iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    fn text(&self, name: &'static str) -> Result<String, BadMessage> {
        let text = self.get(name).and_then(Value::as_str);
        text.map(str::to_owned).ok_or(BadMessage::Field(name))
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    fn seconds(&self, name: &'static str) -> Result<Duration, BadMessage> {
        let Some(value) = self.get(name).filter(|it| !it.is_nil()) else {
            return Ok(Duration::ZERO);
        };
        let text = || value.as_str()?.trim().parse().ok();
        let seconds = value.as_f64().or_else(text).ok_or(BadMessage::Field(name))?;
        if seconds.is_nan() {
            return Err(BadMessage::Field(name));
        }
        Ok(Duration::from_secs_f64(seconds.clamp(0.0, SECONDS_MAX)))
    }
}

/// The first message to a grading container.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    pub(crate) input: &'a Value,
    pub(crate) debug: crate::Debug,
    pub(crate) environment_types: Vec<&'a str>,
    pub(crate) run_cmd: Option<&'a str>,
    pub(crate) run_as_root: bool,
}

impl Start<'_> {
    pub(crate) fn framed(&self) -> Result<Bytes, TooLong> {
        let types = self.environment_types.iter().map(|it| ((*it).into(), true.into()));
        let mut fields = vec![
            field("type", "start"),
            field("input", self.input.clone()),
            field(
                "debug",
                match self.debug {
                    crate::Debug::No => Value::from(false),
                    crate::Debug::Yes => Value::from(true),
                    crate::Debug::Ssh => Value::from("ssh"),
                },
            ),
            field("envtypes", Value::Map(types.collect())),
            field("run_as_root", self.run_as_root),
        ];
        fields.extend(self.run_cmd.map(|it| field("run_cmd", it)));
        message(fields)
    }
}

pub(crate) fn student_started(socket_id: &str, container_id: &str) -> Result<Bytes, TooLong> {
    message(vec![
        field("type", "run_student_started"),
        field("socket_id", socket_id),
        field("container_id", container_id),
    ])
}

pub(crate) fn student_ended(socket_id: &str, code: i64) -> Result<Bytes, TooLong> {
    message(vec![
        field("type", "run_student_retval"),
        field("socket_id", socket_id),
        field("retval", code),
    ])
}

fn field(name: &str, value: impl Into<Value>) -> (Value, Value) {
    (name.into(), value.into())
}

fn message(fields: Vec<(Value, Value)>) -> Result<Bytes, TooLong> {
    let mut bytes = Vec::new();
    // Writing to memory never fails.
    let _ = write_value(&mut bytes, &Value::Map(fields));
    framed(&bytes)
}

#[cfg(test)]
mod tests;
