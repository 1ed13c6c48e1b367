//! Does what a job's state machine asks for.
//!
//! Invariant: each effect that has an answer gets one, from a task of its own; nothing here waits.

use super::{
    answer::answer,
    calls,
    core::{
        Attach, Effect, Event, Failure, NotMade, Saying, Who,
        student::{FAILED, StudentSpec},
    },
    prepare::{Kind, Work},
    recover, talk,
    talk::{Captures, Talk},
};
use crate::{
    JobDone, JobUsage, SshDebug,
    agent::Known,
    capture::Capture,
    containers::{CgroupVersion, PortPair, Ticket},
    folder::{self, Folder, Recipe},
    hub::{Enrolment, Memory},
    meter::{self, CpuSeen, Meter},
    names::Run,
    parameters::SSH_PORT,
    ports::Taken,
    shared::Shared,
    store::{GradedRecord, Record, RecordKind},
    warm::Ready,
    wire::{self, Start},
};
use bytes::Bytes;
use slotmux_docker::Engine;
use slotmux_protocol::CausedBy;
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

/// Events that wait to be looked at. A container that says more has to wait.
const NEWS_MAX: usize = 64;

/// What a container may leave unread of what it is told.
const UNSAID_MAX: usize = 1_024;

/// Nothing runs longer than its hard limit and this.
const DEADLINE_SLACK: Duration = Duration::from_mins(10);

pub(super) struct Shell {
    pub(super) shared: Arc<Shared>,
    pub(super) run: Run,
    pub(super) job: String,
    pub(super) work: Arc<Work>,
    pub(super) hard: Duration,
    pub(super) folder: Folder,
    known: Arc<watch::Sender<Known>>,
    /// The copy of the task may stop.
    unwanted: Arc<AtomicBool>,
    ids: HashMap<Who, String>,
    enrolments: HashMap<Who, Enrolment>,
    ports: HashMap<Who, (Taken, Vec<PortPair>)>,
    pub(super) news: mpsc::Sender<Event>,
    hub_news: mpsc::UnboundedSender<Event>,
    outbox: mpsc::Sender<Bytes>,
    talk: Talk,
    captures: Arc<std::sync::Mutex<Captures>>,
    cpu: CpuSeen,
    was_warm: bool,
    /// A container that was started ahead, until it is told what to do.
    warm: Option<Ready>,
    /// Processor time from before the job.
    used_before: CpuSeen,
    started: Option<Instant>,
    pub(super) tasks: JoinSet<()>,
    /// What is answered at once.
    pub(super) now: VecDeque<Event>,
}

/// What comes in.
pub(super) struct Inbox {
    pub(super) news: mpsc::Receiver<Event>,
    pub(super) hub_news: mpsc::UnboundedReceiver<Event>,
}

impl Shell {
    pub(super) fn new(
        shared: Arc<Shared>,
        run: Run,
        job: String,
        work: Arc<Work>,
        hard: Duration,
        known: Arc<watch::Sender<Known>>,
    ) -> (Self, Inbox) {
        let (news, news_in) = mpsc::channel(NEWS_MAX);
        let (hub_news, hub_news_in) = mpsc::unbounded_channel();
        let (outbox, inbox) = mpsc::channel(UNSAID_MAX);
        let talk = Talk {
            news: news.clone(),
            inbox: Arc::new(Mutex::new(inbox)),
            is_told: Arc::default(),
        };
        let output_bytes = match &work.kind {
            Kind::Plain(order) => order.limits.output_bytes,
            Kind::Graded(_) => 0,
        };
        let captures =
            Captures { stdout: Capture::new(output_bytes), stderr: Capture::new(output_bytes) };
        let shell = Self {
            folder: Folder::at(shared.jobs_dir().join(run.as_str())),
            shared,
            run,
            job,
            work,
            hard,
            known,
            unwanted: Arc::default(),
            ids: HashMap::new(),
            enrolments: HashMap::new(),
            ports: HashMap::new(),
            news,
            hub_news,
            outbox,
            talk,
            captures: Arc::new(captures.into()),
            cpu: CpuSeen::default(),
            used_before: CpuSeen::default(),
            was_warm: false,
            warm: None,
            started: None,
            tasks: JoinSet::new(),
            now: VecDeque::new(),
        };
        (shell, Inbox { news: news_in, hub_news: hub_news_in })
    }

    /// Of an agent before this one: what it had, and that it was told what to do.
    pub(super) fn inherit(&mut self, id: String, ports: Vec<PortPair>, used_before: Duration) {
        self.used_before.set(used_before);
        self.talk.is_told.store(true, Ordering::Relaxed);
        if !ports.is_empty() {
            let outer = ports.iter().map(|it| it.outer).collect();
            self.ports.insert(Who::Main, (self.shared.ports.take_these(&outer), ports));
        }
        self.started = Some(Instant::now());
        self.made(Who::Main, id);
    }

    /// A container that was started ahead.
    pub(super) fn warmed(&mut self, ready: Ready) {
        self.made(Who::Main, ready.id.clone());
        self.was_warm = true;
        self.warm = Some(ready);
    }

    /// Students of an agent before this one, which their parent waits for.
    pub(super) fn tell_lost(&mut self, sockets: &[String]) {
        for socket_id in sockets {
            let (socket_id, code) = (socket_id.clone(), FAILED);
            self.say(&Saying::StudentEnded { socket_id, code });
        }
    }

    /// What has to be known before the state machine hears of it.
    pub(super) fn observe(&mut self, event: &Event) {
        match event {
            Event::Made(who, id) => self.made(*who, id.clone()),
            Event::Started(Who::Main) => self.started = Some(Instant::now()),
            Event::Removed(who) => {
                self.enrolments.remove(who);
                self.ids.remove(who);
            }
            _ => {}
        }
    }

    fn made(&mut self, who: Who, id: String) {
        let memory = match (&self.work.kind, self.work.house.cgroup) {
            (Kind::Graded(_), CgroupVersion::V1) => Memory::WeEnd,
            (Kind::Graded(_), CgroupVersion::V2) | (Kind::Plain(_), _) => Memory::KernelEnds,
        };
        let enrolment = self.shared.hub.enrol(id.clone(), who, memory, self.hub_news.clone());
        self.enrolments.insert(who, enrolment);
        self.ids.insert(who, id);
    }

    /// By its id, or by the name that it would have.
    fn id(&self, who: Who) -> String {
        self.ids.get(&who).cloned().unwrap_or_else(|| self.run.container(who))
    }

    fn spawn(&mut self, event: impl Future<Output = Event> + Send + 'static) {
        let news = self.news.clone();
        self.tasks.spawn(async move {
            let event = event.await;
            // Without a reader the job is over.
            let _ = news.send(event).await;
        });
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        let engine = self.shared.engine.clone();
        match effect {
            Effect::TakePorts(who, count) => self.take_ports(who, count),
            Effect::GivePorts(who) => drop(self.ports.remove(&who)),
            Effect::MakeFolder => self.make_folder(),
            Effect::RemoveFolder => self.remove_folder(),
            Effect::CreateMain => self.create_main(engine),
            Effect::CreateStudent(id, spec) => self.create_student(engine, id, *spec),
            Effect::Attach(attach) => self.attach(engine, attach),
            // It runs, and has just been told what to do.
            Effect::Start(Who::Main) if self.was_warm => {
                self.now.push_back(Event::Started(Who::Main));
            }
            Effect::Start(who) => {
                let id = self.id(who);
                self.spawn(async move {
                    match calls::start(&engine, &id).await {
                        Ok(()) => Event::Started(who),
                        Err(why) => Event::NotStarted(who, why),
                    }
                });
            }
            Effect::Say(saying) => self.say(&saying),
            Effect::Watch(who, limit) => self.watch(engine, who, limit),
            Effect::WatchProcesses => {
                let (id, news) = (self.id(Who::Main), self.news.clone());
                self.tasks.spawn(async move {
                    if meter::emptied(&id).await {
                        // Without a reader the job is over.
                        let _ = news.send(Event::Emptied).await;
                    }
                });
            }
            Effect::SetClock(clock, after) => self.spawn(async move {
                sleep(after).await;
                Event::TimeUp(clock)
            }),
            Effect::Look(who) => {
                let (id, news) = (self.id(who), self.news.clone());
                self.spawn(async move {
                    // Without a reader the job is over.
                    let is_away = async || drop(news.send(Event::Away(who)).await);
                    match calls::look(&engine, &id, is_away).await {
                        Some(end) => Event::Ended(who, end),
                        None => Event::Runs(who),
                    }
                });
            }
            Effect::Remove(who) => {
                let id = self.id(who);
                self.spawn(async move {
                    calls::remove(&engine, &id).await;
                    Event::Removed(who)
                });
            }
            Effect::Recover => {
                let id = self.id(Who::Main);
                self.spawn(async move { Event::Recovered(recover::feedback(&engine, &id).await) });
            }
            Effect::TellSsh { who, user, key } => self.tell_ssh(who, user, key),
            Effect::Answer(conclusion) => {
                self.unwanted.store(true, Ordering::Relaxed);
                let wall = self.started.map(|it| it.elapsed()).unwrap_or_default();
                let usage = JobUsage { wall, cpu: self.cpu.get() };
                let captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
                let done = answer(&self.work.kind, conclusion, usage, &captures);
                drop(captures);
                self.tell_done(done);
            }
            Effect::Over => {}
        }
    }

    fn tell_done(&self, done: JobDone) {
        let done = Arc::new(done);
        self.known.send_modify(|known| known.done = Some(done));
    }

    fn take_ports(&mut self, who: Who, count: usize) {
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

    fn pairs(&self, who: Who) -> Vec<PortPair> {
        self.ports.get(&who).map(|(_, pairs)| pairs.clone()).unwrap_or_default()
    }

    fn tell_ssh(&self, who: Who, user: String, password: String) {
        let pairs = self.pairs(who);
        let Some(port) = pairs.iter().find(|it| it.inner == SSH_PORT).map(|it| it.outer) else {
            return tracing::warn!(job = self.job, "ssh is offered where no port is");
        };
        let host = self.shared.settings.public_host.clone();
        let ssh = SshDebug { host, port, user, password };
        self.known.send_modify(|known| known.ssh = Some(ssh));
    }

    fn make_folder(&mut self) {
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

    fn remove_folder(&mut self) {
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

    fn create_main(&mut self, engine: Engine) {
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

    fn record(&self, ports: &[PortPair]) -> Record {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kind = match &self.work.kind {
            Kind::Plain(_) => RecordKind::Plain,
            Kind::Graded(work) => RecordKind::Graded(GradedRecord {
                previous_state: crate::parameters::previous_state(&work.order.inputdata).to_owned(),
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

    fn create_student(&mut self, engine: Engine, id: u32, spec: StudentSpec) {
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

    fn attach(&mut self, engine: Engine, attach: Attach) {
        let id = self.id(Who::Main);
        match &self.work.kind {
            Kind::Plain(order) => {
                let (stdin, captures) = (order.stdin.clone(), self.captures.clone());
                let news = self.news.clone();
                self.tasks.spawn(talk::transcribe(engine, id, stdin, captures, attach, news));
            }
            Kind::Graded(work) => {
                let start = Start {
                    input: &work.order.inputdata,
                    debug: work.order.debug,
                    environment_types: work.types.iter().map(String::as_str).collect(),
                    run_cmd: work.parameters.run_cmd.as_deref(),
                    run_as_root: work.environment.run_as_root,
                };
                match start.framed() {
                    Ok(first) if self.warm.is_some() => self.wake(engine, first),
                    Ok(first) => {
                        self.tasks.spawn(self.talk.clone().run(engine, id, first, attach));
                    }
                    Err(error) => {
                        self.now.push_back(Event::NotAttached(error.to_string()));
                    }
                }
            }
        }
    }

    /// Its limits first, then what it is to do.
    fn wake(&mut self, engine: Engine, first: Bytes) {
        let (Some(ready), Kind::Graded(work)) = (self.warm.take(), &self.work.kind) else { return };
        let memory_mb = work.parameters.memory_mb;
        let used = meter::cpu_now(&ready.id).unwrap_or_default();
        self.used_before.set(used);
        let mut record = self.record(&[]);
        record.used_before(used);
        let (store, talk) = (self.shared.store.clone(), self.talk.clone());
        let processes = self.work.house.processes;
        self.tasks.spawn(async move {
            let record = tokio::task::spawn_blocking(move || store.write_soon(&record));
            let limited = if ready.memory_mb == memory_mb {
                Ok(())
            } else {
                engine.limit(&ready.id, memory_mb << 20, processes).await
            };
            let ready_to_go = match (limited, record.await) {
                (Ok(()), Ok(Ok(()))) => Ok(()),
                (Err(error), _) => Err(calls::chain(&error)),
                (_, Ok(Err(error))) => Err(error.to_string()),
                (_, Err(error)) => Err(error.to_string()),
            };
            match ready_to_go {
                Ok(()) => talk.converse(ready.attached, first).await,
                // Without a reader the job is over.
                Err(why) => drop(talk.news.send(Event::NotAttached(why)).await),
            }
        });
    }

    fn say(&mut self, saying: &Saying) {
        let message = match saying {
            Saying::StudentStarted { socket_id, container_id } => {
                wire::student_started(socket_id, container_id)
            }
            Saying::StudentEnded { socket_id, code } => wire::student_ended(socket_id, *code),
        };
        let is_said = message.is_ok_and(|message| self.outbox.try_send(message).is_ok());
        if !is_said {
            let why = "Grading container does not read what it is told.".to_owned();
            self.now.push_back(Event::StreamEnded(super::core::StreamEnd::Faulty(why)));
        }
    }

    fn watch(&mut self, engine: Engine, who: Who, limit: Duration) {
        let is_main = who == Who::Main;
        let meter = Meter {
            engine,
            container_id: self.id(who),
            who,
            limit,
            used_before: if is_main { self.used_before.clone() } else { CpuSeen::default() },
            ends_on_memory: matches!(self.work.kind, Kind::Graded(_)),
            cpus: self.work.facts.cpus,
            seen: if is_main { self.cpu.clone() } else { CpuSeen::default() },
            news: self.news.clone(),
        };
        self.tasks.spawn(meter.run());
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
