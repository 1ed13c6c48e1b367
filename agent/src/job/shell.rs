//! Does what a job's state machine asks for.
//!
//! Invariant: each effect that has an answer gets one, from a task of its own; nothing here waits.

mod making;
mod talking;

pub(crate) use making::remove_folder;

use super::{
    answer::answer,
    calls,
    core::{Conclusion, Effect, Event, Who},
    prepare::{Kind, Work},
    recover,
    talk::{Captures, Talk, Unsaid},
};
use crate::{
    JobUsage,
    agent::Known,
    capture::Capture,
    containers::{CgroupVersion, PortPair},
    folder::Folder,
    hub::{Enrolment, Memory},
    meter::{self, CpuSeen},
    names::Run,
    ports::Taken,
    shared::Shared,
    warm::Ready,
};
use bytes::Bytes;
use slotmux_docker::Engine;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
            inbox: Arc::new(Mutex::new(Unsaid::new(inbox))),
            is_told: Arc::default(),
            may_speak: Arc::new(watch::channel(false).0),
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
    pub(super) fn inherit(
        &mut self,
        id: String,
        ports: (Taken, Vec<PortPair>),
        used_before: Duration,
    ) {
        self.used_before.set(used_before);
        self.talk.is_told.store(true, Ordering::Relaxed);
        self.talk.may_speak.send_replace(true);
        if !ports.1.is_empty() {
            self.ports.insert(Who::Main, ports);
        }
        self.started = Some(Instant::now());
        self.made(Who::Main, id);
    }

    /// A container that was started ahead.
    pub(super) fn warmed(&mut self, ready: Ready) {
        self.made(Who::Main, ready.id.clone());
        self.talk.may_speak.send_replace(true);
        self.was_warm = true;
        self.warm = Some(ready);
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
        let memory = match self.work.house.cgroup {
            CgroupVersion::V1 => Memory::WeEnd,
            CgroupVersion::V2 => Memory::KernelEnds,
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
            Effect::Say(saying) => self.say(&saying),
            Effect::Watch(who, limit) => self.watch(engine, who, limit),
            Effect::SetClock(clock, after) => self.spawn(async move {
                sleep(after).await;
                Event::TimeUp(clock)
            }),
            Effect::TellSsh { who, user, key } => self.tell_ssh(who, user, key),
            Effect::Answer(conclusion) => self.answer(conclusion),
            Effect::Over => {}
            Effect::Start(who) => self.start(engine, who),
            Effect::Look(who) => self.look(engine, who),
            Effect::WatchProcesses => self.watch_processes(),
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
        }
    }

    fn start(&mut self, engine: Engine, who: Who) {
        if who == Who::Main && self.was_warm {
            // It runs, and has just been told what to do.
            return self.now.push_back(Event::Started(Who::Main));
        }
        let (id, may_speak) = (self.id(who), self.talk.may_speak.clone());
        let is_graded = matches!(self.work.kind, Kind::Graded(_));
        self.spawn(async move {
            match calls::start(&engine, &id).await {
                Ok(()) => {
                    if is_graded {
                        meter::end_as_one(&id);
                    }
                    if who == Who::Main {
                        may_speak.send_replace(true);
                    }
                    Event::Started(who)
                }
                Err(why) => Event::NotStarted(who, why),
            }
        });
    }

    fn look(&mut self, engine: Engine, who: Who) {
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

    fn answer(&self, conclusion: Conclusion) {
        self.unwanted.store(true, Ordering::Relaxed);
        let wall = self.started.map(|it| it.elapsed()).unwrap_or_default();
        let usage = JobUsage { wall, cpu: self.cpu.get() };
        let captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
        let done = Arc::new(answer(&self.work.kind, conclusion, usage, &captures));
        drop(captures);
        self.known.send_modify(|known| known.done = Some(done));
    }
}
