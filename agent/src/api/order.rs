//! What a client asks for, as the agent takes it.

use super::{
    json::{NotBase64, pack_map},
    upload::Upload,
};
use crate::{Debug, Graded, JobId, JobKind, JobOrder, Plain, PlainLimits, PlainNetwork, Priority};
use bytes::Bytes;
use slotmux_protocol::{
    Code, Problem,
    job::{GradedJob, PlainJob, PlainJobLimits, PlainJobNetwork},
    v1::Seconds,
};
use std::time::Duration;

pub(super) fn order(id: JobId, upload: Upload) -> Result<JobOrder, Problem> {
    let Upload { request, files, .. } = upload;
    let kind = match (request.graded, request.plain) {
        (Some(job), None) => JobKind::Graded(graded(job, files)?),
        (None, Some(job)) => JobKind::Plain(plain(job, files)?),
        _ => return Err(invalid("exactly one of `graded` and `plain` is needed", "graded")),
    };
    // Here higher goes first, there smaller.
    let priority = Priority(-i64::from(request.priority.unwrap_or(0)));
    Ok(JobOrder { id, kind, priority })
}

fn graded(job: GradedJob, files: Option<Bytes>) -> Result<Graded, Problem> {
    if job.course_id.is_some() != job.task_id.is_some() {
        return Err(invalid("a task has a course, and a course a task", "graded.task_id"));
    }
    let not_base64 = |field| move |fault: NotBase64| invalid(fault.to_string(), field);
    Ok(Graded {
        course_id: job.course_id,
        task_id: job.task_id,
        problems: pack_map(job.task_problems).map_err(not_base64("graded.task_problems"))?,
        inputdata: pack_map(job.inputdata).map_err(not_base64("graded.inputdata"))?,
        environment_type: job.environment_type,
        environment: job.environment,
        parameters: pack_map(job.environment_parameters)
            .map_err(not_base64("graded.environment_parameters"))?,
        debug: match (job.ssh, job.debug) {
            (true, _) => Debug::Ssh,
            (false, true) => Debug::Yes,
            (false, false) => Debug::No,
        },
        files,
    })
}

fn plain(job: PlainJob, files: Option<Bytes>) -> Result<Plain, Problem> {
    if job.image.is_empty() {
        return Err(invalid("an image is needed", "plain.image"));
    }
    if !job.files_dir.starts_with('/') {
        return Err(invalid("the directory must be absolute", "plain.files_dir"));
    }
    let nul = |text: &String| text.contains('\0');
    if job.command.iter().any(nul) {
        return Err(invalid("an argument has no NUL byte", "plain.command"));
    }
    let odd = |(name, value): (&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || nul(value)
    };
    if job.env.iter().any(odd) {
        return Err(invalid("a name is not empty and has no `=`; no NUL bytes", "plain.env"));
    }
    Ok(Plain {
        image: job.image,
        command: job.command,
        env: job.env.into_iter().collect(),
        working_dir: job.working_dir,
        user: job.user,
        files,
        files_dir: job.files_dir,
        stdin: job.stdin.into(),
        limits: limits(&job.limits)?,
        network: match job.network {
            PlainJobNetwork::None => PlainNetwork::None,
            PlainJobNetwork::Bridge => PlainNetwork::Bridge,
        },
    })
}

fn limits(asked: &PlainJobLimits) -> Result<PlainLimits, Problem> {
    let own = PlainLimits::default();
    let duration = |seconds: Seconds| Duration::from_millis(seconds.as_millis());
    let limits = PlainLimits {
        wall: asked.wall_s.map_or(own.wall, duration),
        cpu: asked.cpu_s.map(duration).or(own.cpu),
        memory_bytes: asked.memory_bytes.unwrap_or(own.memory_bytes),
        processes: asked.processes.unwrap_or(own.processes),
        output_bytes: asked.output_bytes.map_or(own.output_bytes, |it| it as usize),
    };
    let none = [
        ("wall_s", limits.wall.is_zero()),
        ("cpu_s", limits.cpu.is_some_and(|it| it.is_zero())),
        ("memory_bytes", limits.memory_bytes == 0),
        ("processes", limits.processes == 0),
    ];
    match none.into_iter().find(|(_, none)| *none) {
        Some((name, _)) => {
            Err(invalid("nothing runs with none of it", &format!("plain.limits.{name}")))
        }
        None => Ok(limits),
    }
}

fn invalid(detail: impl Into<String>, field: &str) -> Problem {
    Problem::new(Code::Invalid, detail).at(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ordered(request: Value) -> Result<JobOrder, Problem> {
        let request = serde_json::from_value(request).unwrap();
        order("j".to_owned().try_into().unwrap(), Upload { request, files: None, bytes: 0 })
    }

    #[test]
    fn a_graded_job_is_what_a_backend_would_have_sent() {
        let request = json!({"priority": 5, "graded": {
            "environment": "e", "course_id": "c", "task_id": "t", "debug": true,
            "inputdata": {"file": {"filename": "a", "value": {"$binary": "AP8="}}},
            "environment_parameters": {"limits": {"time": 3}},
        }});
        let order = ordered(request).unwrap();
        assert_eq!(order.priority, Priority(-5));
        let JobKind::Graded(job) = order.kind else { panic!("another kind") };
        assert_eq!(job.inputdata["file"]["value"], rmpv::Value::Binary(vec![0, 255]));
        assert_eq!(job.parameters["limits"]["time"], 3.into());
        assert_eq!((job.problems, job.debug), (rmpv::Value::Map(Vec::new()), Debug::Yes));
    }

    #[test]
    fn a_plain_job_has_limits_of_its_own_and_of_the_agent() {
        let request = json!({"plain": {
            "image": "i", "limits": {"wall_s": 1.5, "memory_bytes": 7}, "network": "bridge",
        }});
        let JobKind::Plain(job) = ordered(request).unwrap().kind else { panic!("another kind") };
        let wall = Duration::from_millis(1_500);
        assert_eq!(job.limits, PlainLimits { wall, memory_bytes: 7, ..PlainLimits::default() });
        assert_eq!(job.network, PlainNetwork::Bridge);
    }

    #[test]
    fn what_cannot_be_run_names_its_field() {
        let graded = |more: Value| {
            let mut job = json!({"environment": "e"});
            job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"graded": job})
        };
        let plain = |more: Value| {
            let mut job = json!({"image": "i"});
            job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"plain": job})
        };
        for (request, field) in [
            (json!({}), "graded"),
            (json!({"graded": {"environment": "e"}, "plain": {"image": "i"}}), "graded"),
            (graded(json!({"task_id": "t"})), "graded.task_id"),
            (graded(json!({"inputdata": {"a": {"$binary": "*"}}})), "graded.inputdata"),
            (plain(json!({"image": ""})), "plain.image"),
            (plain(json!({"files_dir": "tmp"})), "plain.files_dir"),
            (plain(json!({"command": ["a\0"]})), "plain.command"),
            (plain(json!({"env": {"A=": ""}})), "plain.env"),
            (plain(json!({"limits": {"wall_s": 0}})), "plain.limits.wall_s"),
            (plain(json!({"limits": {"processes": 0}})), "plain.limits.processes"),
        ] {
            let problem = ordered(request).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (Code::Invalid, Some(field)));
        }
    }
}
