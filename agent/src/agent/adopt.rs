//! What an agent before this one has left: its jobs go on, or are answered; the rest is removed.
//!
//! Invariant: no job begins before this is done, so that nothing of a new job is taken for a
//! leftover.

use super::{Book, JobFollower, Known, Refusal, Seat, sweep};
use crate::{
    Debug, Environment, Graded, JobId,
    containers::{CgroupVersion, House},
    folder::Folder,
    images::Facts,
    job::{
        chain,
        core::{Failure, Plan, student::Rules},
        prepare::{GradedWork, Kind, Work},
        run::{self, Adopted},
        shell::remove_folder,
    },
    names::{self, Run},
    parameters::Parameters,
    ports::Taken,
    shared::Shared,
    store::{GradedRecord, Record, RecordKind},
};
use rmpv::Value;
use slotmux_docker::{Listed, State};
use slotmux_protocol::CausedBy;
use std::{
    collections::{BTreeSet, HashSet},
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::sleep};

const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// What a job is told that did not get as far as its container.
const NOT_STARTED: &str = "The agent was restarted before this job's container was started.";
const NOT_KEPT: &str = "The agent was restarted, and what the command has printed is lost.";

/// A job of before, which has a seat again.
pub(super) struct Left {
    run: Run,
    record: Record,
    seat: Seat,
    /// Taken before any other job could take them.
    ports: Taken,
}

/// Gives each job of before its seat, so that doors may follow it.
pub(super) fn enter(
    shared: &Shared,
    book: &Arc<Book>,
) -> io::Result<(Vec<Left>, Vec<JobFollower>)> {
    let mut left = Vec::new();
    let mut followers = Vec::new();
    for (run, record) in shared.store.all()? {
        let Ok(id) = JobId::try_from(record.job.clone()) else {
            tracing::warn!(job = record.job, "a record of no job is removed");
            shared.store.remove(&run)?;
            continue;
        };
        let mut seat = Book::enter_adopted(book, id.clone());
        seat.answered_by(refusal(&record));
        followers.push(JobFollower::new(id, seat.known().subscribe()));
        shared.runs().insert(run.clone());
        let ports = shared.ports.take_these(&ports(&record));
        left.push(Left { run, record, seat, ports });
    }
    Ok((left, followers))
}

/// Waits for the engine, as long as it takes.
pub(super) async fn run(shared: Arc<Shared>, left: Vec<Left>) {
    let facts = loop {
        if let Some(facts) = shared.facts_known().await {
            break facts;
        }
    };
    // Students of those that go on are of these.
    if let Err(error) = shared.discovery.look().await {
        tracing::warn!(error = chain(&error), "images not listed");
    }
    let listed = list(&shared).await;
    let mut kept = HashSet::new();
    let mut jobs = Vec::new();
    for it in left {
        kept.insert(it.run.as_str().to_owned());
        let of_run = |container: &&Listed| {
            container.labels.get(names::RUN).map(String::as_str) == Some(it.run.as_str())
        };
        let containers: Vec<Listed> = listed.iter().filter(of_run).cloned().collect();
        jobs.push((it, containers));
    }
    sweep::remove_orphans(&shared, &listed).await;
    remove_folders(&shared, &kept).await;
    for (left, containers) in jobs {
        tokio::spawn(take_up(shared.clone(), facts.clone(), left, containers));
    }
    shared.is_settled.send_replace(true);
}

async fn list(shared: &Shared) -> Vec<Listed> {
    let mut apart = ASK_AGAIN_MIN;
    loop {
        match sweep::list(shared).await {
            Ok(listed) => return listed,
            Err(error) => tracing::debug!(error = chain(&error), "containers not listed"),
        }
        sleep(apart).await;
        apart = (apart * 2).min(ASK_AGAIN_MAX);
    }
}

async fn remove_folders(shared: &Shared, kept: &HashSet<String>) {
    let dir = shared.jobs_dir();
    let listed = shared.on_disk(move || {
        let entries = std::fs::read_dir(dir)?;
        entries.map(|it| it.map(|it| it.path())).collect::<io::Result<Vec<_>>>()
    });
    match listed.await {
        Ok(Ok(paths)) => {
            let is_kept =
                |name: &std::ffi::OsStr| name.to_str().is_some_and(|it| kept.contains(it));
            for path in paths.into_iter().filter(|it| !it.file_name().is_some_and(is_kept)) {
                remove_folder(shared, &Folder::at(path)).await;
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "folders of jobs not listed"),
        Err(error) => tracing::error!(%error, "folders of jobs not listed"),
    }
}

/// One job of before, to its end.
async fn take_up(shared: Arc<Shared>, facts: Arc<Facts>, left: Left, containers: Vec<Listed>) {
    let Left { run, record, seat, ports } = left;
    seat.begin();
    let role = |it: &Listed| it.labels.get(names::ROLE).cloned().unwrap_or_default();
    let mut sockets_lost = Vec::new();
    let mut main = None;
    for container in containers {
        if role(&container) == "main" {
            main = Some(container.id);
        } else {
            sockets_lost.extend(container.labels.get(names::SOCKET).cloned());
            sweep::remove(&shared, container.id).await;
        }
    }
    let begun = match &main {
        Some(id) => has_begun(&shared, id).await,
        None => false,
    };
    match (main, record.kind.clone()) {
        (Some(container_id), RecordKind::Graded(graded)) if begun => {
            tracing::info!(job = record.job, "job of an agent before this one goes on");
            let (plan, work) = graded_work(&shared, &facts, &graded);
            let adopted = Adopted {
                hard_left: plan.hard.saturating_sub(record.age(SystemTime::now())),
                run,
                job: record.job,
                plan,
                work,
                container_id,
                ports: (ports, graded.port_pairs()),
                used_before: Duration::from_nanos(graded.used_before_ns),
                sockets_lost,
            };
            run::adopt(shared, adopted, seat.known(), seat.kill()).await;
        }
        (main, kind) => {
            let text = match (&kind, begun) {
                (RecordKind::Plain, true) => NOT_KEPT,
                _ => NOT_STARTED,
            };
            give_up(&shared, &run, main, &seat.known(), &kind, text).await;
        }
    }
}

async fn has_begun(shared: &Shared, id: &str) -> bool {
    let mut apart = ASK_AGAIN_MIN;
    loop {
        match shared.engine.find(id).await {
            Ok(found) => {
                return found
                    .is_some_and(|it| matches!(it.state, State::Running | State::Ended(_)));
            }
            Err(error) => tracing::debug!(error = chain(&error), "container not seen"),
        }
        sleep(apart).await;
        apart = (apart * 2).min(ASK_AGAIN_MAX);
    }
}

/// Answers it when its container is gone.
async fn give_up(
    shared: &Shared,
    run: &Run,
    main: Option<String>,
    known: &watch::Sender<Known>,
    kind: &RecordKind,
    text: &str,
) {
    if let Some(id) = main {
        sweep::remove(shared, id).await;
    }
    let failure = Failure { text: text.to_owned(), caused_by: CausedBy::Infra };
    refusal_of(kind).failed(known, failure);
    remove_folder(shared, &Folder::at(shared.jobs_dir().join(run.as_str()))).await;
    run::forget(shared, run).await;
}

/// Of this machine.
fn ports(record: &Record) -> BTreeSet<u16> {
    match &record.kind {
        RecordKind::Graded(graded) => graded.ports.iter().map(|(_, outer)| *outer).collect(),
        RecordKind::Plain => BTreeSet::new(),
    }
}

fn refusal(record: &Record) -> Refusal {
    refusal_of(&record.kind)
}

fn refusal_of(kind: &RecordKind) -> Refusal {
    match kind {
        RecordKind::Graded(it) => Refusal::Graded { previous: it.previous_state.clone() },
        RecordKind::Plain => Refusal::Plain,
    }
}

/// As far as a job needs it that has begun.
fn graded_work(shared: &Shared, facts: &Arc<Facts>, record: &GradedRecord) -> (Plan, Work) {
    let (soft, hard) =
        (Duration::from_millis(record.soft_ms), Duration::from_millis(record.hard_ms));
    let ports: Vec<u16> = record.ports.iter().map(|(inner, _)| *inner).collect();
    let plan = Plan {
        soft,
        hard,
        ports: ports.len(),
        has_folder: true,
        inspects: facts.cgroup == CgroupVersion::V2,
        speaks: true,
        students: Some(Rules {
            environments: shared.environments(),
            environment_type: record.environment_type.clone(),
            environment: record.environment.clone(),
            soft,
            hard,
            memory_mb: record.memory_mb,
            slot_memory_mb: shared.slot_memory_mb(facts),
            students_max: shared.settings.students.into(),
            ssh: false,
        }),
    };
    let state = (Value::from("@state"), Value::from(record.previous_state.as_str()));
    let order = Graded {
        course_id: None,
        task_id: None,
        problems: Value::Map(Vec::new()),
        inputdata: Value::Map(vec![state]),
        environment_type: record.environment_type.clone(),
        environment: record.environment.clone(),
        parameters: Value::Map(Vec::new()),
        debug: Debug::No,
        files: None,
    };
    let environment = Environment {
        id: String::new(),
        created: 0,
        ports: ports.clone(),
        advertised: false,
        title: String::new(),
        runtime: String::new(),
        run_as_root: false,
    };
    let memory_mb = record.memory_mb;
    let parameters = Parameters { network: false, soft, hard, memory_mb, run_cmd: None, ports };
    let work = GradedWork { order, parameters, environment, types: Vec::new(), task: None };
    let house = House::new(&shared.settings, facts.cgroup, shared.open_files);
    (plan, Work { house, facts: facts.clone(), kind: Kind::Graded(work.into()) })
}
