//! A job's ports, folder and containers.

use super::Shell;
use crate::{
    containers::{PortPair, Ticket},
    folder::{self, Folder, Recipe},
    job::{
        calls,
        core::{Event, Failure, NotMade, Who, student::StudentSpec},
        prepare::Kind,
    },
    parameters::{SSH_PORT, previous_state},
    shared::Shared,
    store::{GradedRecord, Record, RecordKind},
};
use slotmux_docker::Engine;
use slotmux_protocol::CausedBy;
use std::{
    io,
    time::{Duration, SystemTime},
};
use tokio::time::sleep;

/// Nothing runs longer than its hard limit and this.
const DEADLINE_SLACK: Duration = Duration::from_mins(10);

impl Shell {
    pub(super) fn take_ports(&mut self, who: Who, count: usize) {
        let Some(taken) = self.shared.ports.take(count) else {
            return self.now.push_back(Event::PortsShort(who));
        };
        let inner = match (&self.work.kind, who) {
            (Kind::Graded(work), Who::Main) => work.parameters.ports.clone(),
            _ => vec![SSH_PORT],
        };
        let pairs = inner.into_iter().zip(taken.ports());
        let pairs = pairs.map(|(inner, outer)| PortPair { inner, outer: *outer }).collect();
        self.ports.insert(who, (taken, pairs));
        self.now.push_back(Event::PortsTaken(who));
    }

    pub(super) fn pairs(&self, who: Who) -> Vec<PortPair> {
        self.ports.get(&who).map(|(_, pairs)| pairs.clone()).unwrap_or_default()
    }

    pub(super) fn make_folder(&mut self) {
        let Kind::Graded(work) = &self.work.kind else {
            return self.now.push_back(Event::FolderMade);
        };
        let recipe = Recipe {
            tasks: self.shared.settings.tasks.clone(),
            task: work.task.clone(),
            files: work.order.files.clone(),
            unwanted: self.unwanted.clone(),
        };
        let (shared, folder, job) = (self.shared.clone(), self.folder.clone(), self.job.clone());
        self.spawn(async move {
            let why: Box<dyn std::error::Error + Send + Sync> =
                match shared.on_disk(move || folder.make(&recipe)).await {
                    Ok(Ok(())) => return Event::FolderMade,
                    Ok(Err(error)) => error.into(),
                    Err(error) => error.into(),
                };
            let source = why.source().map(ToString::to_string);
            tracing::warn!(job, error = %why, source, "no folder for a job");
            let text = "Task unavailable on agent. Please retry later.".to_owned();
            Event::FolderFailed(Failure { text, caused_by: CausedBy::Infra })
        });
    }

    pub(super) fn remove_folder(&mut self) {
        let (shared, folder) = (self.shared.clone(), self.folder.clone());
        self.spawn(async move {
            remove_folder(&shared, &folder).await;
            Event::FolderRemoved
        });
    }

    fn deadline(&self) -> SystemTime {
        let left = self.hard.saturating_add(DEADLINE_SLACK);
        SystemTime::now().checked_add(left).unwrap_or_else(SystemTime::now)
    }

    pub(super) fn create_main(&mut self, engine: Engine) {
        let ports = self.pairs(Who::Main);
        let ticket =
            Ticket { run: &self.run, role: "main", deadline: self.deadline(), ports: &ports };
        let house = &self.work.house;
        let (body, files) = match &self.work.kind {
            Kind::Graded(work) => {
                let (memory_mb, network) = (work.parameters.memory_mb, work.parameters.network);
                let environment = &work.environment;
                (house.grading(&ticket, environment, &self.folder, memory_mb, network), None)
            }
            Kind::Plain(order) => {
                let files = order.files.clone().map(|files| (order.files_dir.clone(), files));
                (house.plain(&ticket, order), files)
            }
        };
        let name = self.run.container(Who::Main);
        let (store, record) = (self.shared.store.clone(), self.record(&ports));
        self.spawn(async move {
            // Both at once: the record has to be there only before the start.
            let record = tokio::task::spawn_blocking(move || store.write(&record));
            let created = calls::create(&engine, &name, body).await;
            let recorded = match record.await {
                Ok(recorded) => recorded.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let id = match created {
                Ok(id) => id,
                Err(failure) => return Event::NotMade(Who::Main, failure),
            };
            let mut ready = recorded;
            if let (Ok(()), Some((dir, files))) = (&ready, files) {
                let put = engine.put(&id, &dir, [files]).await;
                ready = put.map_err(|error| calls::chain(&error));
            }
            match ready {
                Ok(()) => Event::Made(Who::Main, id),
                Err(why) => Event::NotMade(Who::Main, NotMade { why, in_doubt: true }),
            }
        });
    }

    pub(super) fn record(&self, ports: &[PortPair]) -> Record {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kind = match &self.work.kind {
            Kind::Plain(_) => RecordKind::Plain,
            Kind::Graded(work) => RecordKind::Graded(GradedRecord {
                previous_state: previous_state(&work.order.inputdata).to_owned(),
                environment_type: work.order.environment_type.clone(),
                environment: work.order.environment.clone(),
                soft_ms: ms(work.parameters.soft),
                hard_ms: ms(work.parameters.hard),
                memory_mb: work.parameters.memory_mb,
                ports: ports.iter().map(|it| (it.inner, it.outer)).collect(),
                used_before_ns: 0,
            }),
        };
        Record::new(&self.run, &self.job, kind)
    }

    pub(super) fn create_student(&mut self, engine: Engine, id: u32, spec: StudentSpec) {
        let who = Who::Student(id);
        let ports = self.pairs(who);
        let (run, deadline, parent) = (self.run.clone(), self.deadline(), self.id(Who::Main));
        let (work, folder, shared) = (self.work.clone(), self.folder.clone(), self.shared.clone());
        self.spawn(async move {
            let (sockets, socket_id) = (folder.clone(), spec.socket_id.clone());
            let name = id.to_string();
            let bound = shared.on_disk(move || sockets.bind_socket(&socket_id, &name)).await;
            let socket = match bound.map_err(io::Error::other).and_then(|bound| bound) {
                Ok(socket) => socket,
                Err(error) => {
                    let why = error.to_string();
                    return Event::NotMade(who, NotMade { why, in_doubt: false });
                }
            };
            let ticket = Ticket { run: &run, role: "student", deadline, ports: &ports };
            let body = work.house.student(&ticket, &spec, &folder, &socket, &parent);
            match calls::create(&engine, &run.container(who), body).await {
                Ok(id) => Event::Made(who, id),
                Err(failure) => Event::NotMade(who, failure),
            }
        });
    }
}

/// Tries again a few times: what a container has done last may still be on its way.
pub(crate) async fn remove_folder(shared: &Shared, folder: &Folder) {
    const ATTEMPTS: u32 = 4;
    for attempt in 1..=ATTEMPTS {
        let root = folder.root().to_owned();
        let shown = root.display().to_string();
        match shared.on_disk(move || folder::remove(&root)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(folder = shown, attempt, %error, why, "folder not removed");
            }
            Err(error) => tracing::error!(folder = shown, %error, "folder not removed"),
        }
        sleep(Duration::from_millis(100) * attempt).await;
    }
}
