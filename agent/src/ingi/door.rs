//! The door itself: one connection after the other, and what has to outlive each of them.
//!
//! A connection can end at any time, and the jobs go on. What they come to is kept, and said on the
//! next connection, which begins with a hello of its own.

use super::{
    ToBackend,
    followed::Followed,
    outbox::{Outbox, Room},
    pause::Pause,
    session::Lost,
};
use crate::{
    Address, Environments, GradedDone, JobDone, JobFollower, JobId, JobNews, Slots, SshDebug,
    Verdict,
    jobs::Jobs,
    zmtp::{Dealer, DealerError, Identity},
};
use slotmux_protocol::CausedBy;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How to behave towards a backend.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    pub address: Address,
    /// By which people know this agent.
    pub friendly_name: String,
    /// One message of the backend: a job with all that its student has sent.
    pub message_bytes_max: usize,
    /// Answers kept for a backend that is away, and their bytes.
    pub kept_answers_max: usize,
    pub kept_bytes_max: usize,
    /// For a connection, a greeting and a handshake.
    pub connect_wait: Duration,
    /// A backend that says nothing for this long is not there: it pings each second.
    pub silence_max: Duration,
    /// After a silence, the next connection is noticed by a backend that is there again within this
    /// time, or another one is made.
    pub notice_wait: Duration,
    /// After a connection was lost with jobs in hand: a backend that still knows this agent pings
    /// it within this time. One that does not gets a hello.
    pub recognition_wait: Duration,
    /// A hello on a connection that is to follow another one is answered with a ping within this
    /// time, or the backend has not noticed that the other one is gone.
    pub mute_wait: Duration,
    /// For jobs to end, once the agent is to end.
    pub jobs_wait: Duration,
    /// For their answers to arrive, after that.
    pub answers_wait: Duration,
}

impl BackendSettings {
    pub fn new(address: Address, friendly_name: impl Into<String>) -> Self {
        Self {
            address,
            friendly_name: friendly_name.into(),
            message_bytes_max: 128 << 20,
            kept_answers_max: 10_000,
            kept_bytes_max: 512 << 20,
            connect_wait: Duration::from_secs(10),
            silence_max: Duration::from_secs(10),
            notice_wait: Duration::from_millis(1_500),
            recognition_wait: Duration::from_millis(2_500),
            mute_wait: Duration::from_secs(4),
            jobs_wait: Duration::from_secs(70),
            answers_wait: Duration::from_secs(5),
        }
    }
}

/// Passes jobs of one backend to `agent` until `shutdown`, and then what they came to: jobs have to
/// be ended by whoever ends the agent. `adopted` are jobs of an agent before this one.
pub async fn serve_backend(
    agent: crate::AgentHandle,
    settings: BackendSettings,
    adopted: Vec<JobFollower>,
    shutdown: CancellationToken,
) {
    Door::new(agent, settings, adopted).run(shutdown).await;
}

pub(super) struct Door<J> {
    pub(super) jobs: J,
    pub(super) settings: Arc<BackendSettings>,
    pub(super) environments: watch::Receiver<Environments>,
    pub(super) slots: watch::Receiver<Slots>,
    pub(super) followed: Followed,
    pub(super) outbox: Outbox,
    /// Under which the backend knows this agent, over all connections until it turns out that it
    /// does not.
    identity: Option<Identity>,
    /// Whether a backend has said anything to this identity.
    pub(super) is_known: bool,
    /// Or on this connection.
    pub(super) has_heard: bool,
    /// Which is why the connection before was left.
    pub(super) was_silent: bool,
    /// Sent once, where there is somebody to hear it.
    pub(super) notes: VecDeque<Vec<u8>>,
    /// Once it is to end: when it does so, whatever is left.
    pub(super) end: Option<Instant>,
    shutdown: CancellationToken,
}

impl<J: Jobs> Door<J> {
    pub(super) fn new(jobs: J, settings: BackendSettings, adopted: Vec<JobFollower>) -> Self {
        let room =
            Room { answers_max: settings.kept_answers_max, bytes_max: settings.kept_bytes_max };
        let mut followed = Followed::default();
        for follower in adopted {
            followed.add(follower);
        }
        Self {
            environments: jobs.environments(),
            slots: jobs.slots(),
            jobs,
            settings: Arc::new(settings),
            followed,
            outbox: Outbox::new(room),
            identity: None,
            is_known: false,
            has_heard: false,
            was_silent: false,
            notes: VecDeque::new(),
            end: None,
            shutdown: CancellationToken::new(),
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        self.shutdown = shutdown;
        let mut pause = Pause::default();
        let mut wait = Duration::ZERO;
        while let Some(mut dealer) = self.connect(&mut pause, wait).await {
            let address = &self.settings.address;
            tracing::info!(%address, attempts = pause.failures() + 1, "connected to the backend");
            self.outbox.begin_again();
            self.notes.clear();
            self.has_heard = false;
            let Some(why) = self.serve(&mut dealer).await else { break };
            tracing::warn!(error = %Chain(&why), jobs = self.followed.len(), "backend lost");
            // Somebody who lets us in and says nothing is no reason to hurry.
            if self.has_heard {
                pause.begin_again();
            }
            self.was_silent = matches!(why, Lost::Silent(_));
            if let Lost::Mute(_) = why {
                (self.identity, self.is_known) = (None, false);
            }
            wait = pause.after_failure();
        }
        if !self.outbox.is_empty() {
            tracing::warn!("answers that no backend has taken are gone");
        }
    }

    /// `None`: it is time to end.
    async fn connect(&mut self, pause: &mut Pause, mut wait: Duration) -> Option<Dealer> {
        let settings = Arc::clone(&self.settings);
        loop {
            let drawn = self.identity.map_or_else(Identity::draw, Ok);
            self.identity = drawn.as_ref().ok().copied();
            let attempt = async {
                sleep(wait).await;
                let identity = drawn.map_err(DealerError::Connect)?;
                let BackendSettings { address, message_bytes_max, connect_wait, .. } = &*settings;
                Dealer::connect(address, identity, *message_bytes_max, *connect_wait).await
            };
            match self.meanwhile(attempt).await? {
                Ok(dealer) => return Some(dealer),
                Err(error) => {
                    let address = &settings.address;
                    // A backend can be away for days.
                    if pause.failures() == 0 {
                        tracing::warn!(%address, error = %Chain(&error), "backend not reached");
                    } else {
                        tracing::debug!(%address, error = %Chain(&error), "backend not reached");
                    }
                    wait = pause.after_failure();
                }
            }
        }
    }

    /// Does `work`, and takes note of what happens to jobs. `None`: it is time to end.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        while !self.is_over() {
            tokio::select! {
                done = &mut work => return Some(done),
                (job, news) = self.followed.next() => self.note(job, news),
                () = self.shutdown.cancelled(), if self.end.is_none() => self.begin_to_end(),
                () = until(self.end) => {}
            }
        }
        None
    }

    /// Nothing is left to say, or no time to say it.
    pub(super) fn is_over(&self) -> bool {
        let Some(end) = self.end else { return false };
        (self.followed.is_empty() && self.outbox.is_empty()) || Instant::now() >= end
    }

    pub(super) fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    pub(super) fn begin_to_end(&mut self) {
        let now = Instant::now();
        let jobs_wait = self.settings.jobs_wait;
        self.end = Some(now + jobs_wait + self.settings.answers_wait);
        self.hurry();
    }

    /// Answers that are all there are sent soon or never.
    fn hurry(&mut self) {
        if let (Some(end), true) = (self.end, self.followed.is_empty()) {
            self.end = Some(end.min(Instant::now() + self.settings.answers_wait));
        }
    }

    /// What became of a job of the backend's.
    pub(super) fn note(&mut self, job: JobId, news: Option<JobNews>) {
        match news {
            // Said when the job came.
            Some(JobNews::Started) => {}
            Some(JobNews::SshDebug(ssh)) => self.note_ssh(&job, &ssh),
            Some(JobNews::Done(done)) => match &*done {
                JobDone::Graded(done) => self.answer(job, done),
                // Adopted, and of another door.
                JobDone::Plain(_) => tracing::debug!(%job, "a job of another door is done"),
            },
            None => {
                let text = "The agent has lost this job.";
                let done = GradedDone::without_result(Verdict::Crash, text, "", CausedBy::Infra);
                self.answer(job, &done);
            }
        }
        self.hurry();
    }

    fn note_ssh(&mut self, job: &JobId, ssh: &SshDebug) {
        self.notes.push_back(ToBackend::JobSshDebug { job_id: job.as_str(), ssh }.encode());
    }

    pub(super) fn answer(&mut self, job: JobId, done: &GradedDone) {
        let message = ToBackend::JobDone { job_id: job.as_str(), done }.encode();
        for lost in self.outbox.put(job, message.into()) {
            tracing::error!(job = %lost, "an answer made room for later ones");
        }
    }
}

pub(super) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// An error and its causes, on one line.
pub(super) struct Chain<'a>(pub(super) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut next = Some(self.0);
        let mut between = "";
        while let Some(error) = next {
            write!(f, "{between}{error}")?;
            (next, between) = (error.source(), ": ");
        }
        Ok(())
    }
}
