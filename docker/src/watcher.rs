//! Hears of the engine that containers may have ended, and has their keepers look.
//!
//! Invariant: a container that ended is looked at whatever became of the event that said so: after
//! each cut, and every now and then, all of them are compared with the engine's list. What has
//! outlived its time goes then, whose ever it was, and volumes that an engine has left whose container
//! it did not get to make.

use crate::{
    backend::Shared,
    causes::chain,
    engine::{EngineError, Listed, News, NewsFeed, Selector},
    names,
};
use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// A connection that died without a word is found out by this.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How long a volume is seen in no container before it is debris: its container is made right after it.
const LOOSE_FOR: Duration = Duration::from_secs(2);
const SWEEPS_MAX: usize = 5;
/// After a look that failed; twice as long after each more.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(8);

pub(crate) fn selector(owner: &str) -> Selector {
    Selector {
        label: names::OWNER.to_owned(),
        value: owner.to_owned(),
        actions: &["kill", "die", "destroy"],
    }
}

/// To the end of the backend.
pub(crate) async fn watch(shared: Weak<Shared>, mut feed: NewsFeed) {
    let mut again = None;
    let mut chores = Chores::default();
    loop {
        let news = timeout(again.unwrap_or(LOOK_EVERY), feed.next()).await;
        let Some(shared) = shared.upgrade() else { return };
        match news {
            Ok(News::Event(event)) => match shared.held_by_id(&event.id) {
                Some(held) if event.action == "kill" => held.was_killed(),
                Some(held) => held.ask_to_look(),
                None => {}
            },
            Ok(News::LookAgain) | Err(_) => {
                again = (!look(&shared, &mut chores).await).then(|| {
                    again.map_or(LOOK_AGAIN_MIN, |it: Duration| (it * 2).min(LOOK_AGAIN_MAX))
                });
            }
        }
    }
}

/// What can wait is done beside the watching, one round at a time. It ends with the watcher.
#[derive(Default)]
struct Chores(JoinSet<()>);

impl Chores {
    fn start(&mut self, shared: &Arc<Shared>, outlived: Vec<Listed>) {
        while self.0.try_join_next().is_some() {}
        if !self.0.is_empty() {
            return;
        }
        let shared = shared.clone();
        self.0.spawn(async move {
            for listed in &outlived {
                shared.discard(listed).await;
            }
            // An engine that has just come back may not be quite there.
            for _ in 0..SWEEPS_MAX {
                match sweep(&shared).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "volumes not swept");
                        sleep(LOOSE_FOR).await;
                    }
                }
            }
        });
    }
}

/// Whether the engine said what there is.
async fn look(shared: &Arc<Shared>, chores: &mut Chores) -> bool {
    // Before the list: what was started since is not on it.
    let held = shared.all_held();
    let listed = match shared.engine.list(names::OWNER).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "containers not listed");
            return false;
        }
    };
    let running: HashSet<&str> =
        listed.iter().filter(|it| it.is_running).map(|it| it.id.as_str()).collect();
    for held in held {
        if !running.contains(held.id.as_str()) {
            held.ask_to_look();
        }
    }
    let outlived = listed.into_iter();
    let outlived = outlived
        .filter(|it| names::has_outlived(&it.labels) && shared.held_by_id(&it.id).is_none());
    chores.start(shared, outlived.collect());
    true
}

async fn sweep(shared: &Shared) -> Result<(), EngineError> {
    let label = format!("{}={}", names::OWNER, shared.settings.owner);
    let loose = shared.engine.loose_volumes(&label).await?;
    if loose.is_empty() {
        return Ok(());
    }
    sleep(LOOSE_FOR).await;
    let still: HashSet<String> = shared.engine.loose_volumes(&label).await?.into_iter().collect();
    for volume in loose.iter().filter(|volume| still.contains(*volume)) {
        tracing::warn!(volume, "a volume without a container");
        // Some container may have it by now.
        if let Err(error) = shared.engine.remove_volume(volume).await
            && !error.is_conflict()
        {
            tracing::warn!(volume, error = %chain(&error), "volume not removed");
        }
    }
    Ok(())
}
