//! Containers that were started ahead, one shelf for each environment that jobs have asked for.
//!
//! A grading container does nothing before it is told its job, so one that was started waits at
//! no cost but its memory. A job then only copies its task into the folder that is mounted already.
//!
//! Invariants: a container is given to one job only; one that has ended, is old or of an image that
//! is not the environment's any more is given to none, and removed.

use crate::{
    Environment,
    containers::{House, Ticket},
    folder::Folder,
    hub::{Enrolment, Memory},
    job::{
        calls,
        core::{Event, Who},
        shell::remove_folder,
    },
    meter,
    names::Run,
    shared::Shared,
};
use slotmux_docker::{Attached, Hear};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

/// Environments that have a shelf: the one that was asked for longest ago loses it.
const SHELVES_MAX: usize = 32;

/// One that waited so long makes place for a new one.
const AGE_MAX: Duration = Duration::from_mins(30);
const DEADLINE: Duration = Duration::from_hours(24);

/// A shelf is looked at this often, whether anything was taken from it or not.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A short job is done by this.
const LATER: Duration = Duration::from_millis(100);
/// After one could not be made.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Warm {
    /// On each shelf.
    count: usize,
    shelves: Mutex<Shelves>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Shelves {
    all: HashMap<(String, String), Shelf>,
    unwanted: Vec<Ready>,
    is_closed: bool,
}

#[derive(Debug)]
struct Shelf {
    wish: Wish,
    ready: VecDeque<Ready>,
    asked: Instant,
}

/// A container that a job would have.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) environment_type: String,
    pub(crate) name: String,
    pub(crate) environment: Environment,
    pub(crate) memory_mb: u64,
}

/// A container that waits for its job.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) run: Run,
    pub(crate) id: String,
    pub(crate) memory_mb: u64,
    pub(crate) attached: Attached,
    image: String,
    /// Whether its end is to be seen without asking.
    has_cgroup: bool,
    made: Instant,
    /// Tells of its end.
    news: mpsc::UnboundedReceiver<Event>,
    /// Until a job has enrolled it anew.
    _enrolment: Enrolment,
}

impl Warm {
    pub(crate) fn new(count: u16) -> Self {
        Self { count: count.into(), shelves: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of this environment, if there is any; and there will be more of them.
    pub(crate) fn take(&self, wish: Wish) -> Option<Ready> {
        if self.count == 0 {
            return None;
        }
        let mut shelves = self.lock();
        let key = (wish.environment_type.clone(), wish.name.clone());
        let now = Instant::now();
        let place = shelves.all.entry(key).or_insert_with(|| Shelf {
            wish: wish.clone(),
            ready: VecDeque::new(),
            asked: now,
        });
        place.asked = now;
        // The next ones are as this one should have been.
        place.wish = wish;
        let mut unwanted = Vec::new();
        let mut taken = None;
        while let Some(mut ready) = place.ready.pop_front() {
            if ready.is_good(&place.wish) {
                taken = Some(ready);
                break;
            }
            unwanted.push(ready);
        }
        shelves.unwanted.append(&mut unwanted);
        shelves.drop_oldest();
        self.changed.notify_one();
        taken
    }

    /// No more are made.
    pub(crate) fn close(&self) {
        let mut shelves = self.lock();
        shelves.is_closed = true;
        let all = std::mem::take(&mut shelves.all);
        shelves.unwanted.extend(all.into_values().flat_map(|it| it.ready));
        self.changed.notify_one();
    }

    fn unwanted(&self) -> Vec<Ready> {
        let mut shelves = self.lock();
        let Shelves { all, unwanted, .. } = &mut *shelves;
        for shelf in all.values_mut() {
            for mut ready in std::mem::take(&mut shelf.ready) {
                let is_good = ready.is_good(&shelf.wish);
                if is_good { shelf.ready.push_back(ready) } else { unwanted.push(ready) }
            }
        }
        std::mem::take(unwanted)
    }

    /// Which is to be made next.
    fn missing(&self) -> Option<Wish> {
        let shelves = self.lock();
        let short = shelves.all.values().filter(|it| it.ready.len() < self.count);
        short.min_by_key(|it| it.ready.len()).map(|it| it.wish.clone())
    }

    fn put(&self, wish: &Wish, ready: Ready) {
        let mut shelves = self.lock();
        let key = (wish.environment_type.clone(), wish.name.clone());
        match shelves.all.get_mut(&key) {
            Some(place) => place.ready.push_back(ready),
            None => shelves.unwanted.push(ready),
        }
    }
}

impl Shelves {
    fn drop_oldest(&mut self) {
        if self.all.len() <= SHELVES_MAX {
            return;
        }
        let oldest = self.all.iter().min_by_key(|(_, it)| it.asked).map(|(key, _)| key.clone());
        if let Some(shelf) = oldest.and_then(|key| self.all.remove(&key)) {
            self.unwanted.extend(shelf.ready);
        }
    }
}

impl Ready {
    fn is_good(&mut self, wish: &Wish) -> bool {
        // Any news of it is that it has ended, or may have. They may still be on their way.
        let has_ended = self.news.try_recv().is_ok()
            || (self.has_cgroup && meter::has_processes(&self.id) != Some(true));
        !has_ended && self.image == wish.environment.id && self.made.elapsed() < AGE_MAX
    }
}

/// Fills the shelves, to the end of the agent.
pub(crate) async fn keep(shared: Arc<Shared>) {
    if shared.warm.count == 0 || shared.facts_ever().await.is_none() {
        return;
    }
    loop {
        // Either way, all of them are looked at.
        let _ = timeout(LOOK_EVERY, shared.warm.changed.notified()).await;
        // The job that has taken one has the machine first.
        sleep(LATER).await;
        remove_unwanted(&shared).await;
        while let Some(wish) = shared.warm.missing() {
            // One after another: jobs that run have the machine first.
            match make(&shared, &wish).await {
                Ok(ready) => shared.warm.put(&wish, ready),
                Err(why) => {
                    tracing::warn!(environment = wish.name, why, "no container started ahead");
                    sleep(AGAIN).await;
                }
            }
            remove_unwanted(&shared).await;
        }
    }
}

async fn remove_unwanted(shared: &Shared) {
    for ready in shared.warm.unwanted() {
        discard(shared, &ready.run, &ready.id).await;
    }
}

/// Nothing is left of any of them.
pub(crate) async fn clear(shared: &Shared) {
    remove_unwanted(shared).await;
}

async fn discard(shared: &Shared, run: &Run, id: &str) {
    calls::remove(&shared.engine, id).await;
    remove_folder(shared, &Folder::at(shared.jobs_dir().join(run.as_str()))).await;
    shared.runs().remove(run);
}

async fn make(shared: &Arc<Shared>, wish: &Wish) -> Result<Ready, String> {
    let run = Run::new();
    shared.runs().insert(run.clone());
    let made = fill(shared, wish, &run).await;
    if made.is_err() {
        discard(shared, &run, &run.container(Who::Main)).await;
    }
    made
}

async fn fill(shared: &Arc<Shared>, wish: &Wish, run: &Run) -> Result<Ready, String> {
    let facts = shared.facts_known().await.ok_or("the engine is away")?;
    let folder = Folder::at(shared.jobs_dir().join(run.as_str()));
    let empty = folder.clone();
    let made = shared.on_disk(move || empty.make_empty()).await;
    made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let house = House::new(&shared.settings, facts.cgroup, shared.open_files);
    let deadline = SystemTime::now().checked_add(DEADLINE).unwrap_or_else(SystemTime::now);
    let ticket = Ticket { run, role: "main", deadline, ports: &[] };
    let body = house.grading(&ticket, &wish.environment, &folder, wish.memory_mb, false);
    let engine = &shared.engine;
    let created = calls::create(engine, &run.container(Who::Main), body).await;
    let id = created.map_err(|failure| failure.why)?;
    let (news, told) = mpsc::unbounded_channel();
    let enrolment = shared.hub.enrol(id.clone(), Who::Main, Memory::WeEnd, news);
    let attached = engine.talk(&id, Hear::Stdout).await;
    let attached = attached.map_err(|error| calls::chain(&error))?;
    calls::start(engine, &id).await?;
    meter::end_as_one(&id);
    let has_cgroup = meter::has_processes(&id).is_some();
    if !has_cgroup && calls::look(engine, &id, async || {}).await.is_some() {
        return Err("it ended at once".to_owned());
    }
    Ok(Ready {
        run: run.clone(),
        has_cgroup,
        id,
        memory_mb: wish.memory_mb,
        attached,
        image: wish.environment.id.clone(),
        made: Instant::now(),
        news: told,
        _enrolment: enrolment,
    })
}
