//! One server: its slots, and what they have in common.

mod forks;
mod saves;

use crate::{
    access::Tokens,
    cgroup::{self, Cgroups},
    egress::Egress,
    isolate::{Assembly, Birth, Identity, RootKind, zygote::Zygote},
    ladder::{Prober, Trial},
    layers::{
        Layers,
        parts::Parts,
        probe::{Sharing, image_root},
    },
    listen::Slots,
    options::Settings,
    slot::{News, Slot, Works},
    snapshots::Snapshots,
    trash::{self, Trash},
    uids::UidRange,
};
use futures_util::{StreamExt, stream};
use rustix::fs::{FlockOperation, flock};
use slotmux_protocol::{Epoch, ExecutionId, Isolation, Root, SlotIndex};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Once, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Slots that are prepared at the same time.
const PREPARED_AT_ONCE: usize = 8;
const NEWS_MAX: usize = 1_024;
/// In the data directory: the cgroups that were made for it.
const CGROUPS: &str = ".cgroups";

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("use the data directory `{}`", .dir.display())]
    DataDir { dir: PathBuf, source: io::Error },
    #[error("the data directory `{}` is used by another server", .0.display())]
    InUse(PathBuf),
    #[error("draw a secret for tokens")]
    Secret(#[source] io::Error),
    #[error("start the zygote")]
    Zygote(#[source] io::Error),
    #[error(
        "no isolation of at least `{minimum}` can be had here:\n{}\nhint: lower --isolation-min \
         only if you trust what runs in the slots", list(.trials)
    )]
    Isolation { minimum: Isolation, trials: Vec<Trial> },
    #[error(
        "the image cannot be the slots' root: {why}\nhint: --root minimal shows its system directories, read-only"
    )]
    Image { why: String },
    #[error("prepare {slot}: {why}")]
    Slot { slot: SlotIndex, why: String },
}

fn list(trials: &[Trial]) -> String {
    let lines = trials
        .iter()
        .map(|it| format!("  {}: {}", it.rung, it.refused.as_deref().unwrap_or("works")));
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) struct Server {
    pub(crate) settings: Settings,
    pub(crate) isolation: Isolation,
    pub(crate) root: RootKind,
    pub(crate) sharing: Sharing,
    /// Held by the one fork at a time: each takes the turns of several slots.
    sharing_turn: tokio::sync::Mutex<()>,
    unpacked: tokio::sync::Mutex<saves::Unpacked>,
    pub(crate) slots: Vec<Arc<Slot>>,
    pub(crate) boot_id: String,
    /// Those for single slots.
    pub(crate) tokens: Tokens,
    /// For calls that come without an id.
    executions: AtomicU64,
    pub(crate) news: News,
    /// Links that there are: for a moment two, when a newer pool process takes over.
    pub(crate) links: watch::Sender<usize>,
    /// Set when no new calls are taken any more.
    pub(crate) draining: CancellationToken,
    /// Set by whoever wants the server to end.
    pub(crate) stop: CancellationToken,
    /// Set when every call has ended: what is left is to say how.
    pub(crate) ended: CancellationToken,
    /// How long running calls may go on then, if it was said along with it.
    pub(crate) grace: OnceLock<Duration>,
    pub(crate) ground: Arc<Ground>,
}

/// What slots stand on.
pub(crate) struct Ground {
    zygote: Arc<Zygote>,
    trash: Trash,
    pub(crate) layers: Layers,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) cgroups: Arc<Cgroups>,
    uids: Option<Arc<UidRange>>,
    /// Made when they are first needed.
    parts: OnceLock<Result<Parts, String>>,
    settings: Settings,
    removed: Once,
    _lock: File,
}

impl Ground {
    pub(crate) fn prepare(settings: &Settings, zygote: Zygote) -> Result<Self, StartError> {
        let dir = &settings.data_dir;
        let fault = |source| StartError::DataDir { dir: dir.clone(), source };
        fs::create_dir_all(dir).map_err(fault)?;
        let lock = lock(dir)?;
        let trash = Trash::open(dir.join("trash")).map_err(fault)?;
        let slots = dir.join("slots");
        trash.take(&slots).map_err(fault)?;
        fs::create_dir(&slots).map_err(fault)?;
        let layers = Layers::open(dir.join("layers"), trash.clone()).map_err(fault)?;
        let snapshots = Snapshots::open(
            dir.join("snapshots"),
            trash.clone(),
            settings.snapshot_bytes_max,
            settings.slot_limits.disk_bytes_max,
        )
        .map_err(fault)?;
        let root = rustix::process::geteuid().is_root();
        let uids = root.then(UidRange::take).transpose();
        let uids = uids.unwrap_or_else(|error| {
            tracing::warn!(%error, "no uids for slots");
            None
        });
        if root {
            // Slot users pass through on their way to their own.
            for path in [dir, &slots] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o711)).map_err(fault)?;
            }
        }
        // Of a server that was killed here before this one.
        cgroup::remove_recorded(&dir.join(CGROUPS));
        let cgroups = if settings.cgroups {
            Cgroups::detect(settings.container.as_str())
        } else {
            Cgroups::default()
        };
        cgroups.record(&dir.join(CGROUPS)).map_err(fault)?;
        Ok(Self {
            zygote: Arc::new(zygote),
            trash,
            layers,
            snapshots: Arc::new(snapshots),
            cgroups: Arc::new(cgroups),
            uids: uids.map(Arc::new),
            parts: OnceLock::new(),
            settings: settings.clone(),
            removed: Once::new(),
            _lock: lock,
        })
    }

    /// What was asked for may have been any port.
    pub(crate) fn serves_at(&mut self, port: u16) {
        self.settings.port = port;
    }

    pub(crate) fn prober(self: &Arc<Self>) -> Prober {
        let ground = Arc::clone(self);
        Prober { works: Box::new(move |rung| ground.probe(rung, RootKind::Minimal)) }
    }

    fn probe(&self, rung: Isolation, root: RootKind) -> Result<Works, String> {
        // Beyond the real slots, so that it is nobody's user.
        self.works(rung, root, "probe", crate::uids::SLOTS_MAX - 1)
    }

    /// What the slots' root will be, and how they get one another's files.
    async fn probe_files(&self, rung: Isolation) -> Result<(RootKind, Sharing), StartError> {
        let root = match self.settings.root {
            Root::Minimal => RootKind::Minimal,
            Root::Image => self.image_root(rung).await.map_err(|why| StartError::Image { why })?,
        };
        let sharing = match rung {
            Isolation::Namespaces => match self.probe(rung, root) {
                Ok(works) => Sharing::probe(works, &self.layers).await,
                Err(why) => Sharing::Copy(why),
            },
            other => Sharing::Copy(format!("overlays need namespaces, and this is `{other}`")),
        };
        Ok((root, sharing))
    }

    /// How the whole image can be the slots' root, or why it cannot.
    pub(crate) async fn image_root(&self, rung: Isolation) -> Result<RootKind, String> {
        match rung {
            Isolation::Namespaces => image_root(|root| self.probe(rung, root)).await,
            other => Err(format!("it needs namespaces, and this is the rung `{other}`")),
        }
    }

    /// A user of no slot, for files that are shown as others'.
    fn nobody(&self) -> Option<Identity> {
        let probe = self.uids.as_ref()?.slot(crate::uids::SLOTS_MAX - 1);
        Some(Identity { uid: probe.reaper_uid, ..probe })
    }

    /// A slot's works for a rung, or why they cannot be had.
    fn works(
        &self,
        rung: Isolation,
        root: RootKind,
        name: &str,
        index: u16,
    ) -> Result<Works, String> {
        // In parts all slots are the container's root, each in a user namespace of its own.
        let identity = if root.is_in_parts() { None } else { self.identity(rung, index)? };
        let assembly = if root.is_in_parts() { Some(self.assembly()?) } else { None };
        let slot_dir = self.settings.data_dir.join("slots").join(name);
        fs::create_dir_all(&slot_dir).map_err(|error| format!("make its directory: {error}"))?;
        let permissions = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&slot_dir, permissions).map_err(|error| error.to_string())?;
        let limits = self.settings.slot_limits;
        let cgroup = self
            .cgroups
            .slot(name, &limits)
            .map_err(|error| format!("make its cgroup: {error}"))?;
        let birth = Birth {
            rung,
            network: self.settings.network,
            identity,
            mounts_as_slot: identity.is_some() && !may_mount(),
            server_uid: rustix::process::geteuid().as_raw(),
            server_gid: rustix::process::getegid().as_raw(),
            slot_dir,
            exposed: self.settings.exposed.clone(),
            layers: Vec::new(),
            root,
            image_layers: Vec::new(),
            assembly,
            hidden: self.settings.data_dir.canonicalize().into_iter().collect(),
            limits,
            memory_cgroup: cgroup.holds_memory(),
            pids_cgroup: cgroup.holds_pids(),
            cpu_time_cgroup: cgroup.counts_cpu_time(),
        };
        let egress = self.settings.allowed.clone();
        let egress = egress.map(|allowed| Egress { allowed, own_port: self.settings.port });
        let works = Works::new(Arc::clone(&self.zygote), self.trash.clone(), birth, cgroup);
        Ok(works.with_egress(egress))
    }

    /// Of the container's image.
    fn assembly(&self) -> Result<Assembly, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let parts = self.parts.get_or_init(|| {
            let base = self.layers.make(None).map_err(|error| format!("make a layer: {error}"))?;
            let hidden: Vec<_> = self.settings.data_dir.canonicalize().into_iter().collect();
            Parts::of_container(base, &hidden).map_err(|error| crate::chain(&error))
        });
        parts.as_ref().map(|it| it.assembly.clone()).map_err(Clone::clone)
    }

    fn identity(&self, rung: Isolation, index: u16) -> Result<Option<Identity>, String> {
        let root = rustix::process::geteuid().is_root();
        match (rung, &self.uids) {
            (Isolation::Landlock, _) if root => {
                Err("commands would run as root: not behind file rules alone".to_owned())
            }
            (Isolation::None | Isolation::Landlock, _) => Ok(None),
            (Isolation::Namespaces, None) if !root => Ok(None),
            (Isolation::Uid, None) if !root => {
                Err("needs root, to give each slot a user of its own".to_owned())
            }
            (_, None) => Err("no uids for slots: their locks can be made nowhere".to_owned()),
            (_, Some(uids)) => Ok(Some(uids.slot(index))),
        }
    }

    /// Removes everything that was made for slots.
    pub(crate) fn remove(&self) {
        // What bears these names later is somebody else's.
        self.removed.call_once(|| {
            self.zygote.end();
            self.cgroups.remove();
            remove_files(&self.settings.data_dir);
        });
    }
}

/// Also when a server did not come to serve.
impl Drop for Ground {
    fn drop(&mut self) {
        self.remove();
    }
}

fn may_mount() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|it| it.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

fn remove_files(data_dir: &Path) {
    for name in ["slots", "layers", "snapshots", "trash"] {
        if let Err(error) = trash::delete(&data_dir.join(name)) {
            tracing::warn!(dir = name, %error, "not removed");
        }
    }
    // Last: it says what else there is to remove.
    if let Err(error) = fs::remove_file(data_dir.join(CGROUPS))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = CGROUPS, %error, "not removed");
    }
}

/// Removes what a server that was killed has left. What belongs to one that lives is refused.
pub(crate) fn clean_up_after(settings: &Settings) -> Result<(), StartError> {
    let dir = &settings.data_dir;
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    cgroup::remove_recorded(&dir.join(CGROUPS));
    remove_files(dir);
    Ok(())
}

/// Held for as long as the file is open: no two servers use one directory.
fn lock(dir: &Path) -> Result<File, StartError> {
    let lock = File::create(dir.join(".lock"))
        .map_err(|source| StartError::DataDir { dir: dir.to_owned(), source })?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| StartError::InUse(dir.to_owned()))?;
    Ok(lock)
}

impl Server {
    pub(crate) async fn start(settings: Settings, ground: Ground) -> Result<Arc<Self>, StartError> {
        let ground = Arc::new(ground);
        let minimum = settings.isolation_min;
        let climbed = ground.prober().climb(minimum..=settings.isolation_max).await;
        let isolation = climbed.map_err(|trials| StartError::Isolation { minimum, trials })?;
        if isolation == Isolation::None {
            tracing::warn!("NO ISOLATION: commands can do whatever this process can do");
        }
        let (root, sharing) = ground.probe_files(isolation).await?;
        let (news, _) = broadcast::channel(NEWS_MAX);
        let slots = (0..settings.slots).map(SlotIndex).map(|index| {
            let works = ground.works(isolation, root, &index.to_string(), index.0);
            let works = works.map_err(|why| StartError::Slot { slot: index, why })?;
            let (network, limits) = (settings.network, settings.limits.clone());
            Ok(Arc::new(Slot::new(index, network, limits, works, news.clone())))
        });
        let slots = slots.collect::<Result<Vec<_>, StartError>>()?;
        prepare_all(&slots).await?;
        Ok(Arc::new(Self {
            isolation,
            root,
            sharing,
            sharing_turn: tokio::sync::Mutex::new(()),
            unpacked: tokio::sync::Mutex::default(),
            slots,
            boot_id: boot_id(),
            tokens: Tokens::draw().map_err(StartError::Secret)?,
            executions: AtomicU64::new(0),
            news,
            links: watch::channel(0).0,
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            grace: OnceLock::new(),
            ground,
            settings,
        }))
    }

    /// How slots could come to the server's own port.
    pub(crate) fn slots_at_the_door(&self) -> Slots {
        let in_parts = self.root.is_in_parts();
        let own_users = self.ground.uids.is_some() && !in_parts;
        match Slots::of(self.isolation, self.settings.network, own_users) {
            // They may become any user of the image.
            Slots::SharedUser { .. } if in_parts => Slots::AnyUser,
            slots => slots,
        }
    }

    pub(crate) fn slot(&self, index: SlotIndex) -> Option<&Arc<Slot>> {
        self.slots.get(usize::from(index.0))
    }

    pub(crate) fn draw_execution_id(&self) -> ExecutionId {
        let number = self.executions.fetch_add(1, Ordering::Relaxed);
        let id = ExecutionId::new(format!("{}-{number}", self.boot_id));
        id.unwrap_or_else(|error| unreachable!("a boot id is short and plain: {error}"))
    }

    /// Lets what runs finish within `grace`, ends the rest, and leaves nothing behind.
    pub(crate) async fn drain(&self, grace: Duration) {
        self.draining.cancel();
        let idle = stream::iter(&self.slots).for_each_concurrent(None, |slot| slot.idle());
        if tokio::time::timeout(grace, idle).await.is_err() {
            tracing::warn!("calls did not end within the grace period; they are cancelled");
        }
        stream::iter(&self.slots).for_each_concurrent(None, |slot| slot.close()).await;
        self.ground.remove();
    }
}

async fn prepare_all(slots: &[Arc<Slot>]) -> Result<(), StartError> {
    let prepared = stream::iter(slots)
        .map(|slot| async move { (slot.index, slot.empty(Epoch(0)).await) })
        .buffer_unordered(PREPARED_AT_ONCE);
    let results: Vec<_> = prepared.collect().await;
    for (slot, result) in results {
        result.map_err(|why| StartError::Slot { slot, why })?;
    }
    Ok(())
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| std::process::id().to_string(), |it| it.trim().to_owned())
}
