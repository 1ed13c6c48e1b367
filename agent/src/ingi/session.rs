//! One connection: what is heard on it, and what is said.
//!
//! A backend knows an agent by its connection's identity, and forgets what it had in hand when it
//! says hello again: its clients are told that those jobs are lost. So a hello waits until nothing
//! is in hand, also on a new connection, as long as the backend goes on pinging. It has to come
//! some time: a job that went down with the old connection is only then known to be lost.

use super::{
    FromBackend, Misread, ToBackend,
    door::{Chain, Door, until},
};
use crate::{
    Environments, Graded, GradedDone, JobId, JobKind, JobOrder, Kill, Priority, Refused, Verdict,
    jobs::Jobs,
    zmtp::{Dealer, DealerError, Heard},
};
use bytes::Bytes;
use slotmux_protocol::CausedBy;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// As long as this much is on its way, no further answer is put behind it, so that a pong never
/// waits behind more than one.
const ON_ITS_WAY_BYTES: usize = 64 << 10;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("it said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("it did not answer a hello within {} ms", .0.as_millis())]
    Mute(Duration),
    #[error("it said nothing at once after its silence")]
    Unnoticed,
    #[error("the connection broke")]
    Broken(#[from] DealerError),
}

/// How it stands with the hello of this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hello {
    /// Until then a backend that was silent may show that it has noticed this connection. One that
    /// had stopped finds it together with the end of the old one, takes it for a second peer of
    /// that name, and ignores it for ever: then the next one will do.
    Tried(Instant),
    /// Until then the backend may show that it still knows us.
    Held(Instant),
    /// Until then it is to be answered.
    Unanswered(Instant),
    Said,
    /// To be said once nothing is in hand.
    Due,
}

impl Hello {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Tried(at) | Self::Held(at) | Self::Unanswered(at) => Some(at),
            Self::Said | Self::Due => None,
        }
    }

    /// There is news that a hello says.
    fn or_due(self) -> Self {
        match self {
            // It will be in the hello that is to come.
            Self::Tried(_) | Self::Held(_) => self,
            Self::Unanswered(_) | Self::Said | Self::Due => Self::Due,
        }
    }
}

impl<J: Jobs> Door<J> {
    /// What ended the connection; `None` if we did.
    pub(super) async fn serve(&mut self, dealer: &mut Dealer) -> Option<Lost> {
        if let Err(lost) = self.converse(dealer).await {
            return Some(lost);
        }
        self.say_goodbye(dealer).await;
        None
    }

    async fn converse(&mut self, dealer: &mut Dealer) -> Result<(), Lost> {
        let silence_max = self.settings.silence_max;
        let shutdown = self.shutdown();
        let mut heard_at = Instant::now();
        let mut hello = self.begin(dealer);
        while !self.is_over() {
            if hello == Hello::Due && self.has_nothing_in_hand() {
                hello = self.say_hello(dealer);
            }
            // Whoever does not know us throws our answers away, and has no reason to say anything.
            let is_met = !matches!(hello, Hello::Tried(_) | Hello::Held(_));
            if is_met {
                self.pass_on(dealer);
            }
            tokio::select! {
                said = dealer.hear() => match said? {
                    Heard::Message(parts) => {
                        // Any message is a sign of life, also one that makes no sense.
                        heard_at = Instant::now();
                        hello = self.recognised(hello);
                        self.obey(dealer, &parts);
                    }
                    Heard::Receipt(number) => self.outbox.arrived(number),
                    // Sent by ZeroMQ's own threads, which live on when a backend hangs.
                    Heard::Alive => {}
                },
                (job, news) = self.followed.next() => self.note(job, news),
                Ok(()) = self.environments.changed() => hello = hello.or_due(),
                () = until(hello.deadline()) => match hello {
                    Hello::Tried(_) => return Err(Lost::Unnoticed),
                    Hello::Unanswered(_) => return Err(Lost::Mute(self.settings.mute_wait)),
                    Hello::Held(_) | Hello::Due | Hello::Said => {
                        hello = self.say_hello(dealer);
                        heard_at = Instant::now();
                    }
                },
                () = sleep_until(heard_at + silence_max), if is_met => return Err(Lost::Silent(silence_max)),
                () = shutdown.cancelled(), if self.end.is_none() => self.begin_to_end(),
                () = until(self.end) => {}
            }
        }
        Ok(())
    }

    /// With something in hand it is better to be recognised.
    fn begin(&mut self, dealer: &mut Dealer) -> Hello {
        if self.is_known && std::mem::take(&mut self.was_silent) {
            return Hello::Tried(Instant::now() + self.settings.notice_wait);
        }
        if self.is_known && !self.has_nothing_in_hand() {
            return Hello::Held(Instant::now() + self.settings.recognition_wait);
        }
        self.say_hello(dealer)
    }

    fn recognised(&mut self, hello: Hello) -> Hello {
        (self.is_known, self.has_heard) = (true, true);
        match hello {
            Hello::Tried(_) | Hello::Held(_) => {
                tracing::info!(jobs = self.followed.len(), "the backend still knows this agent");
                Hello::Due
            }
            Hello::Unanswered(_) | Hello::Said => Hello::Said,
            Hello::Due => Hello::Due,
        }
    }

    fn has_nothing_in_hand(&self) -> bool {
        self.followed.is_empty() && self.outbox.is_empty()
    }

    fn say_hello(&mut self, dealer: &mut Dealer) -> Hello {
        let job_slots = self.slots.borrow().total;
        let environments = self.environments.borrow_and_update();
        let friendly_name = &self.settings.friendly_name;
        tracing::info!(job_slots, environments = environments.0.len(), "hello to the backend");
        let hello = ToBackend::Hello { friendly_name, job_slots, environments: &environments };
        dealer.say(&hello.encode());
        if self.is_known && !self.has_heard {
            // It may be that of a connection which the backend believes to be there.
            return Hello::Unanswered(Instant::now() + self.settings.mute_wait);
        }
        Hello::Said
    }

    /// Sends what there is, with regard to what is on its way already.
    fn pass_on(&mut self, dealer: &mut Dealer) {
        if !dealer.gives_receipts() && dealer.unsent_bytes() == 0 {
            self.outbox.all_arrived();
        }
        for note in self.notes.drain(..) {
            dealer.say(&note);
        }
        while dealer.unsent_bytes() < ON_ITS_WAY_BYTES {
            let Some((message, receipt)) = self.outbox.send_next() else { break };
            dealer.say(&message);
            if dealer.gives_receipts() {
                dealer.ask_receipt(receipt);
            }
        }
    }

    fn obey(&mut self, dealer: &mut Dealer, parts: &[Bytes]) {
        let [payload] = parts else {
            tracing::warn!(parts = parts.len(), "message of more than one frame ignored");
            return;
        };
        match FromBackend::parse(payload) {
            Ok(FromBackend::Ping) => dealer.say(&ToBackend::Pong.encode()),
            Ok(FromBackend::NewJob { job_id, job }) => self.take(dealer, job_id, *job),
            Ok(FromBackend::KillJob { job_id, state }) => self.kill(job_id, state),
            Err(misread) => {
                tracing::warn!(error = %Chain(&misread), "message not understood");
                self.answer_misread(dealer, misread);
            }
        }
    }

    fn take(&mut self, dealer: &mut Dealer, job_id: String, job: Graded) {
        let state = job.inputdata_state();
        let Some(id) = self.known_to_be_new(job_id) else { return };
        dealer.say(&ToBackend::JobStarted { job_id: id.as_str() }.encode());
        let order =
            JobOrder { id: id.clone(), kind: JobKind::Graded(job), priority: Priority::default() };
        match self.jobs.submit(order) {
            Ok(follower) => self.followed.add(follower),
            Err(refused) => {
                tracing::warn!(job = %id, error = %refused, "job refused");
                self.answer_crash(id, refusal(&refused), state);
            }
        }
    }

    fn kill(&mut self, job_id: String, state: String) {
        let Ok(id) = JobId::try_from(job_id) else {
            tracing::warn!("kill of a job whose id no job can have");
            return;
        };
        if self.followed.holds(&id) {
            // An answer comes either way: if it was done already, that is on its way.
            let (Kill::Asked | Kill::Unknown) = self.jobs.kill(&id);
        } else if !self.outbox.holds(&id) {
            self.answer(id, &GradedDone::killed_unknown(state));
        }
    }

    /// Somebody waits for a job that came mutilated.
    fn answer_misread(&mut self, dealer: &mut Dealer, misread: Misread) {
        if let Misread::Fields { kind: "BackendNewJob", job_id: Some(job_id), fault } = misread {
            let Some(id) = self.known_to_be_new(job_id) else { return };
            dealer.say(&ToBackend::JobStarted { job_id: id.as_str() }.encode());
            self.answer_crash(id, format!("The agent does not understand this job: {fault}"), "");
        }
    }

    /// `None`: it is in hand already, and will be answered once.
    fn known_to_be_new(&self, job_id: String) -> Option<JobId> {
        match JobId::try_from(job_id) {
            Ok(id) if self.followed.holds(&id) || self.outbox.withholds(&id) => {
                tracing::warn!(job = %id, "job that came again ignored");
                None
            }
            Ok(id) => Some(id),
            Err(error) => {
                tracing::warn!(%error, "job ignored");
                None
            }
        }
    }

    fn answer_crash(&mut self, id: JobId, text: impl Into<String>, state: impl Into<String>) {
        let done = GradedDone::without_result(Verdict::Crash, text, state, CausedBy::Infra);
        self.answer(id, &done);
    }

    /// A last hello, of an agent that can do nothing: it gets no job in the seconds until its
    /// silence is noticed.
    async fn say_goodbye(&mut self, dealer: &mut Dealer) {
        let friendly_name = &self.settings.friendly_name;
        let environments = &Environments::default();
        let hello = ToBackend::Hello { friendly_name, job_slots: 0, environments };
        dealer.say(&hello.encode());
        // Who is gone already hears nothing.
        let _ = timeout(self.settings.answers_wait, dealer.flush()).await;
    }
}

impl Graded {
    /// Of the job before this one; the core does the same.
    fn inputdata_state(&self) -> String {
        let entries = self.inputdata.as_map().map(Vec::as_slice).unwrap_or_default();
        let state = entries.iter().find(|(key, _)| key.as_str() == Some("@state"));
        state.and_then(|(_, state)| state.as_str()).unwrap_or_default().to_owned()
    }
}

fn refusal(refused: &Refused) -> &'static str {
    match refused {
        Refused::Known(_) => "The agent has another job of this id.",
        Refused::Full => "Too many jobs wait on this agent. Please retry later.",
        Refused::ShuttingDown => "The agent is shutting down. Please retry later.",
    }
}
