//! One connection: what is heard on it, and what is said.
//!
//! A backend forgets what an agent had in hand when the agent says hello again on the same
//! connection. So later hellos wait until nothing is in hand.

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
    #[error("the connection broke")]
    Broken(#[from] DealerError),
}

impl<J: Jobs> Door<J> {
    /// Whether the backend has said anything, and what ended the connection; `None` if we did.
    pub(super) async fn serve(&mut self, dealer: &mut Dealer) -> (bool, Option<Lost>) {
        let mut heard = false;
        if let Err(lost) = self.converse(dealer, &mut heard).await {
            return (heard, Some(lost));
        }
        self.say_goodbye(dealer).await;
        (heard, None)
    }

    async fn converse(&mut self, dealer: &mut Dealer, heard: &mut bool) -> Result<(), Lost> {
        let silence_max = self.settings.silence_max;
        let shutdown = self.shutdown();
        let mut heard_at = Instant::now();
        let mut news_due = false;
        self.say_hello(dealer);
        while !self.is_over() {
            if news_due && self.has_nothing_in_hand() {
                self.say_hello(dealer);
                news_due = false;
            }
            self.pass_on(dealer);
            tokio::select! {
                said = dealer.hear() => match said? {
                    Heard::Message(parts) => {
                        // Any message is a sign of life, also one that makes no sense.
                        (*heard, heard_at) = (true, Instant::now());
                        self.obey(dealer, &parts);
                    }
                    Heard::Receipt(number) => self.outbox.arrived(number),
                    // Sent by ZeroMQ's own threads, which live on when a backend hangs.
                    Heard::Alive => {}
                },
                (job, news) = self.followed.next() => self.note(job, news),
                Ok(()) = self.environments.changed() => news_due = true,
                () = sleep_until(heard_at + silence_max) => return Err(Lost::Silent(silence_max)),
                () = shutdown.cancelled(), if self.end.is_none() => self.begin_to_end(),
                () = until(self.end) => {}
            }
        }
        Ok(())
    }

    fn has_nothing_in_hand(&self) -> bool {
        self.followed.is_empty() && self.outbox.is_empty()
    }

    fn say_hello(&mut self, dealer: &mut Dealer) {
        let job_slots = self.slots.borrow().total;
        let environments = self.environments.borrow_and_update();
        let friendly_name = &self.settings.friendly_name;
        tracing::info!(job_slots, environments = environments.0.len(), "hello to the backend");
        let hello = ToBackend::Hello { friendly_name, job_slots, environments: &environments };
        dealer.say(&hello.encode());
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
