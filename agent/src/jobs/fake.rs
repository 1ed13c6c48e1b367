//! An agent whose jobs end when a test says so.

use super::Jobs;
use crate::{
    Environments, GradedDone, JobDone, JobFollower, JobId, JobOrder, Kill, Refused, Slots,
    SshDebug, agent::Known,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct FakeJobs(Arc<Inner>);

struct Inner {
    running: Mutex<HashMap<JobId, Running>>,
    killed: Mutex<Vec<JobId>>,
    refuse: Mutex<Option<Refused>>,
    environments: watch::Sender<Environments>,
    slots: watch::Sender<Slots>,
}

struct Running {
    order: JobOrder,
    known: watch::Sender<Known>,
}

impl FakeJobs {
    pub(crate) fn new(total: u16) -> Self {
        Self(Arc::new(Inner {
            running: Mutex::default(),
            killed: Mutex::default(),
            refuse: Mutex::default(),
            environments: watch::Sender::new(Environments::default()),
            slots: watch::Sender::new(Slots { total, free: total, waiting: 0 }),
        }))
    }

    pub(crate) fn refuse(&self, why: Option<Refused>) {
        *self.0.refuse.lock().unwrap() = why;
    }

    pub(crate) fn change_environments(&self, environments: Environments) {
        self.0.environments.send_replace(environments);
    }

    pub(crate) fn running(&self) -> usize {
        self.0.running.lock().unwrap().len()
    }

    pub(crate) fn killed(&self) -> Vec<JobId> {
        self.0.killed.lock().unwrap().clone()
    }

    pub(crate) fn start(&self, id: &str) -> JobOrder {
        let running = self.0.running.lock().unwrap();
        let job = &running[&id.to_owned().try_into().unwrap()];
        job.known.send_modify(|known| known.started = true);
        job.order.clone()
    }

    pub(crate) fn ssh(&self, id: &str, ssh: SshDebug) {
        let running = self.0.running.lock().unwrap();
        let job = &running[&id.to_owned().try_into().unwrap()];
        job.known.send_modify(|known| known.ssh = Some(ssh));
    }

    pub(crate) fn finish(&self, id: &str, done: JobDone) {
        let id = id.to_owned().try_into().unwrap();
        let job = self.0.running.lock().unwrap().remove(&id).expect("a job that runs");
        job.known.send_modify(|known| known.done = Some(Arc::new(done)));
    }

    /// As an agent that ends before its jobs do.
    pub(crate) fn lose(&self, id: &str) {
        let id = id.to_owned().try_into().unwrap();
        self.0.running.lock().unwrap().remove(&id).expect("a job that runs");
    }
}

impl Jobs for FakeJobs {
    fn submit(&self, order: JobOrder) -> Result<JobFollower, Refused> {
        if let Some(why) = self.0.refuse.lock().unwrap().clone() {
            return Err(why);
        }
        let mut running = self.0.running.lock().unwrap();
        if running.contains_key(&order.id) {
            return Err(Refused::Known(order.id));
        }
        let (known, follow) = watch::channel(Known::default());
        let follower = JobFollower::new(order.id.clone(), follow);
        running.insert(order.id.clone(), Running { order, known });
        Ok(follower)
    }

    fn kill(&self, id: &JobId) -> Kill {
        if !self.0.running.lock().unwrap().contains_key(id) {
            return Kill::Unknown;
        }
        self.0.killed.lock().unwrap().push(id.clone());
        let done = GradedDone::killed_unknown("");
        self.finish(id.as_str(), JobDone::Graded(done));
        Kill::Asked
    }

    fn environments(&self) -> watch::Receiver<Environments> {
        self.0.environments.subscribe()
    }

    fn slots(&self) -> watch::Receiver<Slots> {
        self.0.slots.subscribe()
    }
}
