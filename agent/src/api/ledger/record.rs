//! One job, as its client knows it.

use super::super::outcome;
use crate::{JobDone, SshDebug};
use slotmux_protocol::{
    JobName,
    job::{JobEvent, JobEventKind, JobPhase, JobStatus, SshAccess},
};
use std::sync::Arc;
use tokio::sync::watch;

/// Of a request.
pub(in super::super) type Digest = [u8; 32];

#[derive(Debug)]
pub(in super::super) struct Record {
    name: JobName,
    /// `None`: a job of an agent before this one, whose request is not known.
    digest: Option<Digest>,
    held_bytes: usize,
    events: Vec<JobEvent>,
    done: Option<Arc<JobDone>>,
    result_bytes: usize,
    fetched: bool,
    /// Told each event.
    told: watch::Sender<()>,
}

impl Record {
    pub(in super::super) fn new(
        name: JobName,
        digest: Option<Digest>,
        held_bytes: usize,
        now_ms: u64,
    ) -> Self {
        let mut record = Self {
            name,
            digest,
            held_bytes,
            events: Vec::new(),
            done: None,
            result_bytes: 0,
            fetched: false,
            told: watch::Sender::new(()),
        };
        record.tell(JobEventKind::Submitted, now_ms, None);
        record
    }

    pub(in super::super) fn name(&self) -> &JobName {
        &self.name
    }

    /// Whether a request with this digest is the one that this job was made for.
    pub(in super::super) fn is_for(&self, digest: &Digest) -> bool {
        self.digest.is_none_or(|it| it == *digest)
    }

    pub(super) fn held_bytes(&self) -> usize {
        if self.done.is_some() { 0 } else { self.held_bytes }
    }

    pub(super) fn result_bytes(&self) -> usize {
        self.result_bytes
    }

    pub(super) fn is_fetched(&self) -> bool {
        self.fetched
    }

    pub(in super::super) fn done(&self) -> Option<&Arc<JobDone>> {
        self.done.as_ref()
    }

    /// Marked as changed with each event from now on; closed when the job is forgotten.
    pub(in super::super) fn watch(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    pub(in super::super) fn events_after(&self, seq: u32) -> &[JobEvent] {
        self.events.get(seq as usize..).unwrap_or_default()
    }

    pub(in super::super) fn start(&mut self, now_ms: u64) {
        if self.at(JobEventKind::Started).is_none() {
            self.tell(JobEventKind::Started, now_ms, None);
        }
    }

    pub(in super::super) fn offer_ssh(&mut self, ssh: SshDebug, now_ms: u64) {
        let SshDebug { host, port, user, password } = ssh;
        self.tell(JobEventKind::Ssh, now_ms, Some(SshAccess { host, port, user, password }));
    }

    pub(super) fn finish(&mut self, done: Arc<JobDone>, now_ms: u64) {
        if self.done.is_some() {
            return;
        }
        self.result_bytes = outcome::bytes(&done);
        self.done = Some(done);
        self.tell(JobEventKind::Done, now_ms, None);
    }

    /// Whether it is the first time.
    pub(super) fn fetch(&mut self) -> bool {
        self.done.is_some() && !std::mem::replace(&mut self.fetched, true)
    }

    pub(in super::super) fn status(&self) -> JobStatus {
        let started_at_ms = self.at(JobEventKind::Started);
        let summary = self.done.as_deref().map(outcome::summary);
        let (result, ended, caused_by) = match summary {
            Some((result, ended, caused_by)) => (result, ended, Some(caused_by)),
            None => (None, None, None),
        };
        JobStatus {
            job_id: self.name.clone(),
            phase: match (&self.done, started_at_ms) {
                (Some(_), _) => JobPhase::Done,
                (None, Some(_)) => JobPhase::Running,
                (None, None) => JobPhase::Waiting,
            },
            submitted_at_ms: self.at(JobEventKind::Submitted).unwrap_or_default(),
            started_at_ms,
            done_at_ms: self.at(JobEventKind::Done),
            result,
            ended,
            caused_by,
            fetched: self.fetched,
        }
    }

    fn at(&self, kind: JobEventKind) -> Option<u64> {
        self.events.iter().find(|event| event.kind == kind).map(|event| event.at_ms)
    }

    fn tell(&mut self, kind: JobEventKind, at_ms: u64, ssh: Option<SshAccess>) {
        // A job has four events at most: ssh is offered once.
        let seq = u32::try_from(self.events.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.events.push(JobEvent { seq, at_ms, kind, ssh, status: None });
        if kind == JobEventKind::Done {
            let status = self.status();
            if let Some(last) = self.events.last_mut() {
                last.status = Some(status);
            }
        }
        self.told.send_replace(());
    }
}
