//! The jobs of a backend that go on, and their news in the order in which they come.

use crate::{JobFollower, JobId, JobNews};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::HashSet, future::pending};

#[derive(Default)]
pub(super) struct Followed {
    ids: HashSet<JobId>,
    waits: FuturesUnordered<BoxFuture<'static, (JobFollower, Option<JobNews>)>>,
}

impl Followed {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn holds(&self, id: &JobId) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn add(&mut self, follower: JobFollower) {
        self.ids.insert(follower.id().clone());
        self.wait(follower);
    }

    /// `None` for the news: the agent went away before the job was done. Waits for ever where there
    /// is no job. Can be dropped at any time.
    pub(super) async fn next(&mut self) -> (JobId, Option<JobNews>) {
        let Some((follower, news)) = self.waits.next().await else { return pending().await };
        let id = follower.id().clone();
        match news {
            Some(JobNews::Started | JobNews::SshDebug(_)) => self.wait(follower),
            Some(JobNews::Done(_)) | None => {
                self.ids.remove(&id);
            }
        }
        (id, news)
    }

    fn wait(&mut self, mut follower: JobFollower) {
        self.waits.push(Box::pin(async move {
            let news = follower.next().await;
            (follower, news)
        }));
    }
}
