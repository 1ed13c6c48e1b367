//! A job from its slot to its end.

use super::{
    core::{Effect, Event, Failure, Job, Plan},
    prepare::{Kind, Work, prepare},
    shell::{Inbox, Shell},
};
use crate::{
    GradedDone, JobDone, JobKind, JobOrder, Verdict,
    agent::Known,
    containers::PortPair,
    names::Run,
    parameters::previous_state,
    ports::Taken,
    shared::Shared,
    warm::{Ready, Wish},
};
use slotmux_protocol::CausedBy;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// What a job is told from outside.
pub(crate) type KillAsked = watch::Receiver<bool>;

/// Returns when nothing of it is left; it is answered before.
pub(crate) async fn run(
    shared: Arc<Shared>,
    order: JobOrder,
    known: Arc<watch::Sender<Known>>,
    mut kill: KillAsked,
) {
    let JobOrder { id, kind, .. } = order;
    let refused = Refusal::of(&kind);
    let prepared = tokio::select! {
        biased;
        () = killed(&mut kill) => return refused.killed(&known),
        prepared = prepare(&shared, kind) => prepared,
    };
    let (plan, work) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return refused.failed(&known, failure),
    };
    let ready = warm(&shared, &work);
    let run = ready.as_ref().map_or_else(Run::new, |ready| ready.run.clone());
    shared.runs().insert(run.clone());
    tracing::debug!(job = %id, run = run.as_str(), "job begins");
    let name = id.to_string();
    let (mut shell, inbox) =
        Shell::new(shared.clone(), run.clone(), name, Arc::new(work), plan.hard, known);
    let (job, effects) = if let Some(ready) = ready {
        shell.warmed(ready);
        Job::begin_warm(plan)
    } else {
        Job::begin(plan)
    };
    drive(job, effects, shell, inbox, kill).await;
    forget(&shared, &run).await;
}

/// A container that was started ahead, if it is as the job would have it.
fn warm(shared: &Shared, work: &Work) -> Option<Ready> {
    let Kind::Graded(graded) = &work.kind else { return None };
    if !graded.parameters.ports.is_empty() || graded.parameters.network {
        return None;
    }
    let wish = Wish {
        environment_type: graded.order.environment_type.clone(),
        name: graded.order.environment.clone(),
        environment: graded.environment.clone(),
        memory_mb: graded.parameters.memory_mb,
    };
    shared.warm.take(wish)
}

/// One that an agent before this one has begun.
pub(crate) async fn adopt(
    shared: Arc<Shared>,
    adopted: Adopted,
    known: Arc<watch::Sender<Known>>,
    kill: KillAsked,
) {
    let (used_before, sockets_lost) = (adopted.used_before, adopted.sockets_lost.clone());
    let Adopted { run, job, plan, work, container_id, ports, hard_left, .. } = adopted;
    let (mut shell, inbox) =
        Shell::new(shared.clone(), run.clone(), job, Arc::new(work), plan.hard, known);
    shell.inherit(container_id, ports, used_before);
    shell.tell_lost(&sockets_lost);
    let (job, effects) = Job::adopt(plan, hard_left);
    drive(job, effects, shell, inbox, kill).await;
    forget(&shared, &run).await;
}

pub(crate) struct Adopted {
    pub(crate) run: Run,
    pub(crate) job: String,
    pub(crate) plan: Plan,
    pub(crate) work: Work,
    pub(crate) container_id: String,
    pub(crate) ports: (Taken, Vec<PortPair>),
    pub(crate) hard_left: Duration,
    /// Processor time from before the job.
    pub(crate) used_before: Duration,
    /// Of students that did not outlive their agent.
    pub(crate) sockets_lost: Vec<String>,
}

async fn drive(
    mut job: Job,
    effects: Vec<Effect>,
    mut shell: Shell,
    mut inbox: Inbox,
    mut kill: KillAsked,
) {
    let mut is_killed = false;
    let mut effects = effects;
    loop {
        for effect in effects {
            if effect == Effect::Over {
                return;
            }
            shell.perform(effect);
        }
        let event = if let Some(event) = shell.now.pop_front() {
            event
        } else {
            tokio::select! {
                biased;
                () = killed(&mut kill), if !is_killed => {
                    is_killed = true;
                    Event::KillAsked
                }
                Some(event) = inbox.hub_news.recv() => event,
                Some(event) = inbox.news.recv() => event,
                Some(done) = shell.tasks.join_next(), if !shell.tasks.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(job = shell.job, %error, "a task of a job failed");
                    }
                    effects = Vec::new();
                    continue;
                }
            }
        };
        shell.observe(&event);
        effects = job.apply(event);
    }
}

/// Nothing is left of it.
pub(crate) async fn forget(shared: &Shared, run: &Run) {
    shared.runs().remove(run);
    let (store, run) = (shared.store.clone(), run.clone());
    let removed = tokio::task::spawn_blocking(move || store.remove(&run)).await;
    match removed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "record of a job not removed"),
        Err(error) => tracing::error!(%error, "record of a job not removed"),
    }
}

/// Returns when somebody asked for its end.
pub(crate) async fn killed(kill: &mut KillAsked) {
    if kill.wait_for(|asked| *asked).await.is_err() {
        // Nobody is left who could.
        std::future::pending::<()>().await;
    }
}

/// How a job is answered that has not begun.
#[derive(Debug)]
pub(crate) enum Refusal {
    Graded { previous: String },
    Plain,
}

impl Refusal {
    pub(crate) fn of(kind: &JobKind) -> Self {
        match kind {
            JobKind::Graded(order) => {
                Self::Graded { previous: previous_state(&order.inputdata).to_owned() }
            }
            JobKind::Plain(_) => Self::Plain,
        }
    }

    pub(crate) fn killed(self, known: &watch::Sender<Known>) {
        use super::core::{Conclusion, Mark};
        let done = match self {
            Self::Graded { previous } => JobDone::Graded(GradedDone::without_result(
                Verdict::Killed,
                "",
                previous,
                CausedBy::Client,
            )),
            Self::Plain => JobDone::Plain(super::answer::plain(Conclusion::Marked(Mark::Killed))),
        };
        tell(known, done);
    }

    pub(crate) fn failed(self, known: &watch::Sender<Known>, failure: Failure) {
        let conclusion = super::core::Conclusion::Failed(failure);
        let done = match self {
            Self::Graded { previous } => {
                JobDone::Graded(super::answer::graded(conclusion, &previous))
            }
            Self::Plain => JobDone::Plain(super::answer::plain(conclusion)),
        };
        tell(known, done);
    }
}

fn tell(known: &watch::Sender<Known>, done: JobDone) {
    known.send_modify(|known| known.done = Some(Arc::new(done)));
}
