//! From an order to what is to be done, or to why it is not.

use super::core::{Failure, Plan, student::Rules};
use crate::{
    Environment, Graded, JobKind, Plain,
    containers::{CgroupVersion, House},
    folder::TaskPath,
    images::Facts,
    parameters::{BadParameters, Parameters},
    shared::Shared,
};
use slotmux_protocol::CausedBy;
use std::{sync::Arc, time::Duration};

const NO_ENVIRONMENT: &str =
    "This environment is not available in this agent. Please contact your course administrator.";
const NO_TASK: &str = "Task unavailable on agent. Please retry later, the agents should \
     synchronize soon. If the error persists, please contact your course administrator.";
const NO_ENGINE: &str = "Cannot create container.";

/// A container has at least so much: less does not start.
const PLAIN_MEMORY_MIN: u64 = 6 << 20;
/// Longer than any container runs.
const NO_LIMIT: Duration = Duration::from_hours(1 << 20);
const PLAIN_OUTPUT_MAX: usize = 64 << 20;

/// What all that is done for a job needs to know of it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) house: House,
    pub(crate) facts: Arc<Facts>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Graded(Box<GradedWork>),
    Plain(Box<Plain>),
}

#[derive(Debug)]
pub(crate) struct GradedWork {
    pub(crate) order: Graded,
    pub(crate) parameters: Parameters,
    pub(crate) environment: Environment,
    /// All that this agent has.
    pub(crate) types: Vec<String>,
    pub(crate) task: Option<TaskPath>,
}

pub(crate) async fn prepare(shared: &Shared, kind: JobKind) -> Result<(Plan, Work), Failure> {
    let facts = shared.facts().await.ok_or_else(|| infra(NO_ENGINE))?;
    let house = House::new(&shared.settings, facts.cgroup, shared.open_files);
    let (plan, kind) = match kind {
        JobKind::Graded(order) => graded(shared, &facts, order).await?,
        JobKind::Plain(order) => plain(shared, &facts, order)?,
    };
    Ok((plan, Work { house, facts, kind }))
}

async fn graded(shared: &Shared, facts: &Facts, order: Graded) -> Result<(Plan, Kind), Failure> {
    let wanted = |shared: &Shared| {
        shared.environments().get(&order.environment_type, &order.environment).cloned()
    };
    let mut environment = wanted(shared);
    if environment.is_none() {
        // It may have come this moment.
        if let Err(error) = shared.discovery.look().await {
            tracing::warn!(%error, "images not listed");
        }
        environment = wanted(shared);
    }
    let environment = environment.ok_or_else(|| client(NO_ENVIRONMENT))?;
    let task = task(shared, &order).await?;
    let slot_memory_mb = shared.slot_memory_mb(facts);
    let parameters = Parameters::read(&order, &environment.ports, slot_memory_mb);
    let parameters = parameters.map_err(|error: BadParameters| client(&error.to_string()))?;
    let plan = plan(shared, facts, &order, &parameters);
    let types = shared.environments().0.into_keys().collect();
    Ok((plan, Kind::Graded(GradedWork { order, parameters, environment, types, task }.into())))
}

fn plan(shared: &Shared, facts: &Facts, order: &Graded, parameters: &Parameters) -> Plan {
    Plan {
        soft: parameters.soft,
        hard: parameters.hard,
        ports: parameters.ports.len(),
        has_folder: true,
        inspects: facts.cgroup == CgroupVersion::V2,
        speaks: true,
        students: Some(Rules {
            environments: shared.environments(),
            environment_type: order.environment_type.clone(),
            environment: order.environment.clone(),
            soft: parameters.soft,
            hard: parameters.hard,
            memory_mb: parameters.memory_mb,
            slot_memory_mb: shared.slot_memory_mb(facts),
            students_max: shared.settings.students.into(),
            ssh: shared.settings.ssh
                && order.environment_type.contains("ssh")
                && parameters.network,
        }),
    }
}

/// `None`: the job has no task.
async fn task(shared: &Shared, order: &Graded) -> Result<Option<TaskPath>, Failure> {
    let (course, task) = match (&order.course_id, &order.task_id) {
        (None, None) => return Ok(None),
        (Some(course), Some(task)) => (course, task),
        _ => return Err(infra(NO_TASK)),
    };
    let path = TaskPath::new(course, task).map_err(|error| {
        tracing::warn!(%error, "task refused");
        client(NO_TASK)
    })?;
    let Some(tasks) = shared.settings.tasks.clone() else { return Err(infra(NO_TASK)) };
    let looked = path.clone();
    match shared.on_disk(move || looked.is_there(&tasks)).await {
        Ok(true) => Ok(Some(path)),
        Ok(false) | Err(_) => Err(infra(NO_TASK)),
    }
}

fn plain(shared: &Shared, facts: &Facts, mut order: Plain) -> Result<(Plan, Kind), Failure> {
    let memory_max = shared.slot_memory_mb(facts) << 20;
    if order.limits.memory_bytes > memory_max {
        let text = format!("not enough memory: a job has at most {} MB", memory_max >> 20);
        return Err(client(&text));
    }
    if !order.files_dir.starts_with('/') {
        return Err(client("the files' directory is an absolute path"));
    }
    order.limits.memory_bytes = order.limits.memory_bytes.max(PLAIN_MEMORY_MIN);
    order.limits.output_bytes = order.limits.output_bytes.min(PLAIN_OUTPUT_MAX);
    let hard = order.limits.wall;
    let plan = Plan {
        soft: order.limits.cpu.unwrap_or(NO_LIMIT),
        hard,
        ports: 0,
        has_folder: false,
        inspects: true,
        speaks: false,
        students: None,
    };
    Ok((plan, Kind::Plain(order.into())))
}

fn infra(text: &str) -> Failure {
    Failure { text: text.to_owned(), caused_by: CausedBy::Infra }
}

fn client(text: &str) -> Failure {
    Failure { text: text.to_owned(), caused_by: CausedBy::Client }
}
