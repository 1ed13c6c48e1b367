//! What we say to a backend, field by field as INGInious's own agent does: absent values are nil
//! and present, grades are floats, archives are bytes.

use crate::{Environments, GradedDone, SshDebug, msgpack};
use rmpv::Value;

#[derive(Debug)]
pub(crate) enum ToBackend<'a> {
    Hello { friendly_name: &'a str, job_slots: u16, environments: &'a Environments },
    JobStarted { job_id: &'a str },
    JobDone { job_id: &'a str, done: &'a GradedDone },
    JobSshDebug { job_id: &'a str, ssh: &'a SshDebug },
    Pong,
}

impl ToBackend<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, mut fields) = match self {
            Self::Hello { friendly_name, job_slots, environments } => {
                let fields = vec![
                    ("friendly_name", Value::from(*friendly_name)),
                    ("available_job_slots", Value::from(*job_slots)),
                    ("available_environments", available(environments)),
                ];
                ("AgentHello", fields)
            }
            Self::JobStarted { job_id } => ("AgentJobStarted", vec![("job_id", (*job_id).into())]),
            Self::JobDone { job_id, done } => ("AgentJobDone", job_done(job_id, done)),
            Self::JobSshDebug { job_id, ssh } => {
                let fields = vec![
                    ("job_id", Value::from(*job_id)),
                    ("host", ssh.host.as_str().into()),
                    ("port", ssh.port.into()),
                    ("user", ssh.user.as_str().into()),
                    ("password", ssh.password.as_str().into()),
                ];
                ("AgentJobSSHDebug", fields)
            }
            Self::Pong => ("Pong", Vec::new()),
        };
        fields.push(("@type", kind.into()));
        msgpack::write(&map(fields))
    }
}

fn job_done(job_id: &str, done: &GradedDone) -> Vec<(&'static str, Value)> {
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Nil, Value::from);
    vec![
        ("job_id", job_id.into()),
        ("result", Value::Array(vec![done.verdict.as_str().into(), done.text.as_str().into()])),
        ("grade", Value::F64(done.grade)),
        ("problems", done.problems.clone()),
        ("tests", done.tests.clone()),
        ("custom", done.custom.clone()),
        ("state", done.state.as_str().into()),
        ("archive", done.archive.as_deref().map_or(Value::Nil, Value::from)),
        ("stdout", text(&done.stdout)),
        ("stderr", text(&done.stderr)),
    ]
}

/// Of each type of environment, each environment. What an agent for containers adds to the common
/// fields is `title` and `runtime`.
fn available(environments: &Environments) -> Value {
    let types = environments.0.iter().map(|(kind, named)| {
        let named = named.iter().map(|(name, environment)| {
            let ports = environment.ports.iter().copied().map(Value::from).collect();
            let fields = vec![
                ("id", environment.id.as_str().into()),
                ("created", environment.created.into()),
                ("ports", Value::Array(ports)),
                ("advertised", environment.advertised.into()),
                ("title", environment.title.as_str().into()),
                ("runtime", environment.runtime.as_str().into()),
            ];
            (Value::from(name.as_str()), map(fields))
        });
        (Value::from(kind.as_str()), Value::Map(named.collect()))
    });
    Value::Map(types.collect())
}

fn map(fields: Vec<(&str, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}
