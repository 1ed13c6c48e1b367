//! What a graded job may use, read of the task's own words.

use crate::{
    Debug, Graded,
    wire::{is_true, whole},
};
use rmpv::Value;
use std::time::Duration;

const SOFT_S_DEFAULT: i64 = 30;
const MEMORY_MB_DEFAULT: i64 = 200;
const MEMORY_MB_MIN: i64 = 20;

/// With somebody looking in, both limits are this.
const LOOKED_INTO: Duration = Duration::from_mins(30);

/// A year.
const SECONDS_MAX: i64 = 31_536_000;

pub(crate) const SSH_PORT: u16 = 22;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) network: bool,
    pub(crate) soft: Duration,
    pub(crate) hard: Duration,
    pub(crate) memory_mb: u64,
    pub(crate) run_cmd: Option<String>,
    /// Of the container.
    pub(crate) ports: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadParameters {
    #[error("The agent is unable to parse the parameters")]
    Unreadable,
    #[error(
        "Not enough memory on agent (available: {available_mb}MB). \
         Please contact your course administrator."
    )]
    Memory { available_mb: u64 },
}

impl Parameters {
    /// `ports` are the image's; `slot_memory_mb` is what a job may have at most.
    pub(crate) fn read(
        order: &Graded,
        ports: &[u16],
        slot_memory_mb: u64,
    ) -> Result<Self, BadParameters> {
        let unreadable = BadParameters::Unreadable;
        let Value::Map(_) = order.parameters else { return Err(unreadable) };
        let none = Value::Map(Vec::new());
        let limits = get(&order.parameters, "limits").unwrap_or(&none);
        if !limits.is_map() {
            return Err(unreadable);
        }
        let number = |name, default| {
            get(limits, name).map_or(Some(default), whole).ok_or(BadParameters::Unreadable)
        };
        let soft_s = number("time", SOFT_S_DEFAULT)?;
        let hard_s = match get(limits, "hard_time") {
            Some(value) if is_true(value) => whole(value).ok_or(unreadable.clone())?,
            Some(_) | None => 0,
        };
        let hard_s = if hard_s == 0 { soft_s.saturating_mul(3) } else { hard_s };
        let memory_mb = number("memory", MEMORY_MB_DEFAULT)?.max(MEMORY_MB_MIN);
        let memory_mb = u64::try_from(memory_mb).map_err(|_| unreadable.clone())?;
        if memory_mb > slot_memory_mb {
            return Err(BadParameters::Memory { available_mb: slot_memory_mb });
        }
        let run_cmd = match get(&order.parameters, "run_cmd") {
            None | Some(Value::Nil) => None,
            Some(value) => Some(value.as_str().ok_or(unreadable)?.to_owned()),
        };
        let mut ports = ports.to_vec();
        if order.debug == Debug::Ssh && !ports.contains(&SSH_PORT) {
            ports.push(SSH_PORT);
        }
        let looked_into = !ports.is_empty();
        Ok(Self {
            network: get(&order.parameters, "network_grading").is_some_and(is_true),
            soft: if looked_into { LOOKED_INTO } else { seconds(soft_s) },
            hard: if looked_into { LOOKED_INTO } else { seconds(hard_s) },
            memory_mb,
            run_cmd,
            ports,
        })
    }
}

/// The state before this job.
pub(crate) fn previous_state(input: &Value) -> &str {
    get(input, "@state").and_then(Value::as_str).unwrap_or_default()
}

fn get<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = map.as_map()?;
    fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number.min(SECONDS_MAX)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, Value)], debug: Debug) -> Result<Parameters, BadParameters> {
        let limits = ["time", "hard_time", "memory"];
        let of = |is_limit: bool| {
            let of = parameters.iter().filter(move |(name, _)| limits.contains(name) == is_limit);
            of.map(|(name, value)| (Value::from(*name), value.clone())).collect::<Vec<_>>()
        };
        let mut fields = of(false);
        fields.push(("limits".into(), Value::Map(of(true))));
        let order = Graded {
            course_id: None,
            task_id: None,
            problems: Value::Map(Vec::new()),
            inputdata: Value::Map(Vec::new()),
            environment_type: "docker".to_owned(),
            environment: "default".to_owned(),
            parameters: Value::Map(fields),
            debug,
            files: None,
        };
        Parameters::read(&order, &[], 1_000)
    }

    #[test]
    fn limits_have_defaults_and_may_be_written_as_text() {
        let it = read(&[], Debug::No).unwrap();
        assert_eq!((it.soft.as_secs(), it.hard.as_secs(), it.memory_mb), (30, 90, 200));
        assert!(!it.network && it.ports.is_empty() && it.run_cmd.is_none());
        let it = read(
            &[
                ("time", " 5 ".into()),
                ("hard_time", "".into()),
                ("memory", "3".into()),
                ("network_grading", true.into()),
                ("run_cmd", "/task/go x".into()),
            ],
            Debug::No,
        )
        .unwrap();
        assert_eq!((it.soft.as_secs(), it.hard.as_secs(), it.memory_mb), (5, 15, 20));
        assert!(it.network && it.run_cmd.as_deref() == Some("/task/go x"));
        for none in [Value::Nil, 0.into(), "0".into()] {
            assert_eq!(read(&[("hard_time", none)], Debug::No).unwrap().hard.as_secs(), 90);
        }
        assert_eq!(read(&[("hard_time", 7.9.into())], Debug::No).unwrap().hard.as_secs(), 7);
        assert_eq!(read(&[("time", (-1).into())], Debug::No).unwrap().soft, Duration::ZERO);
        assert!(read(&[("time", i64::MAX.into())], Debug::No).unwrap().hard > LOOKED_INTO);
    }

    #[test]
    fn who_looks_in_has_time() {
        let it = read(&[("time", 1.into())], Debug::Ssh).unwrap();
        assert_eq!((it.soft, it.hard, &it.ports[..]), (LOOKED_INTO, LOOKED_INTO, &[22][..]));
    }

    #[test]
    fn what_is_no_number_or_does_not_fit_is_refused_in_inginious_words() {
        for (name, bad) in [
            ("time", "soon".into()),
            ("time", "3.5".into()),
            ("time", Value::Nil),
            ("time", Value::Array(Vec::new())),
            ("hard_time", "x".into()),
            ("memory", f64::NAN.into()),
            ("run_cmd", 1.into()),
        ] {
            let error = read(&[(name, bad)], Debug::No).unwrap_err();
            assert_eq!(error.to_string(), "The agent is unable to parse the parameters", "{name}");
        }
        assert_eq!(read(&[("memory", 1_000.into())], Debug::No).unwrap().memory_mb, 1_000);
        let error = read(&[("memory", 1_001.into())], Debug::No).unwrap_err();
        assert!(error.to_string().starts_with("Not enough memory on agent (available: 1000MB). "));
    }
}
