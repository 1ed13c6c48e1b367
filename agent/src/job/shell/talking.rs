//! A job's conversation with its container, and what is watched of it.

use super::Shell;
use crate::{
    SshDebug,
    job::{
        calls,
        core::{Attach, Event, Saying, StreamEnd, Who, student::FAILED},
        prepare::Kind,
        talk,
    },
    meter::{self, CpuSeen, Meter},
    parameters::SSH_PORT,
    wire::{self, Start},
};
use bytes::Bytes;
use slotmux_docker::Engine;
use std::time::Duration;

impl Shell {
    /// Students of an agent before this one, which their parent waits for.
    pub(in crate::job) fn tell_lost(&mut self, sockets: &[String]) {
        for socket_id in sockets {
            let (socket_id, code) = (socket_id.clone(), FAILED);
            self.say(&Saying::StudentEnded { socket_id, code });
        }
    }

    pub(super) fn tell_ssh(&self, who: Who, user: String, password: String) {
        let pairs = self.pairs(who);
        let Some(port) = pairs.iter().find(|it| it.inner == SSH_PORT).map(|it| it.outer) else {
            return tracing::warn!(job = self.job, "ssh is offered where no port is");
        };
        let host = self.shared.settings.public_host.clone();
        let ssh = SshDebug { host, port, user, password };
        self.known.send_modify(|known| known.ssh = Some(ssh));
    }

    pub(super) fn attach(&mut self, engine: Engine, attach: Attach) {
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
    pub(super) fn wake(&mut self, engine: Engine, first: Bytes) {
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

    pub(super) fn say(&mut self, saying: &Saying) {
        let message = match saying {
            Saying::StudentStarted { socket_id, container_id } => {
                wire::student_started(socket_id, container_id)
            }
            Saying::StudentEnded { socket_id, code } => wire::student_ended(socket_id, *code),
        };
        let is_said = message.is_ok_and(|message| self.outbox.try_send(message).is_ok());
        if !is_said {
            let why = "Grading container does not read what it is told.".to_owned();
            self.now.push_back(Event::StreamEnded(StreamEnd::Faulty(why)));
        }
    }

    pub(super) fn watch(&mut self, engine: Engine, who: Who, limit: Duration) {
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

    /// A result is the last one when nothing is left that could give another.
    pub(super) fn watch_processes(&mut self) {
        let (id, news) = (self.id(Who::Main), self.news.clone());
        self.tasks.spawn(async move {
            if meter::emptied(&id).await {
                // Without a reader the job is over.
                let _ = news.send(Event::Emptied).await;
            }
        });
    }
}
