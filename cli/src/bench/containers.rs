//! How long containers take to start, each beside a bare one of the engine's own.

use super::report::Samples;
use crate::{
    backends::Running,
    scratch::Scratch,
    settings::{BackendOptions, BackendSettings, ContainerOptions, Flags, PoolOptions, Settings},
};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use slotmux_backend::{Backend, Fact, Facts, Labels, LaunchSpec};
use slotmux_protocol::{ContainerId, Isolation, Network, ProfileName, Root, SlotLimits};
use std::{
    collections::HashSet,
    io::Write as _,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

/// To become ready. A pull is not measured: it is done before.
const READY_MAX: Duration = Duration::from_mins(10);
/// Ours end by themselves, should this program be killed.
const LIFETIME: Duration = Duration::from_mins(30);
const GRACE: Duration = Duration::from_secs(10);
const PROFILE: &str = "bench";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds; the first is not counted.
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Containers started at a time.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    parallel: u32,
    /// Slots of each.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    slots: u16,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendOptions,
    #[command(flatten)]
    container: ContainerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::new("bench")?;
    let profile = ProfileName::new(PROFILE)?;
    let flags = Flags {
        pool: PoolOptions {
            state_dir: Some(scratch.path().join("state")),
            ..PoolOptions::default()
        },
        backend: options.backend,
        container: options.container,
        ..Flags::default()
    };
    let settings = Settings::alike(flags, [profile.clone()])?;
    let bare = Bare::of(&settings.backend, &profile);
    let running = Running::start(settings.backend, &settings.state_dir)?;
    let mut ours = Ours {
        backend: running.backend(),
        facts: running.backend().facts(),
        spec: spec(profile, options.slots)?,
    };
    let (mut ready, mut floor) = (Samples::default(), Samples::default());
    for round in 0..=options.rounds {
        // In turn, since machines drift. The first of each finds nothing in the caches.
        let took = ours.round(round, options.parallel).await?;
        let bare_took = match &bare {
            Some(bare) => bare.round(options.parallel).await?,
            None => Vec::new(),
        };
        if round > 0 {
            for it in took {
                ready.add(it);
            }
            for it in bare_took {
                floor.add(it);
            }
        }
    }
    running.settled().await;
    let (ready_p50, ready_p99) = ready.quantiles_ms();
    let mut report = json!({
        "ready_p50_ms": ready_p50, "ready_p99_ms": ready_p99, "containers": ready.count(),
        "parallel": options.parallel, "slots": options.slots,
    });
    if bare.is_some() {
        let (run_p50, run_p99) = floor.quantiles_ms();
        report["docker_run_p50_ms"] = json!(run_p50);
        report["docker_run_p99_ms"] = json!(run_p99);
        report["ratio"] = json!((ready_p50 / run_p50 * 1_000.0).round() / 1_000.0);
    }
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{report}")?;
    } else {
        for (name, value) in report.as_object().into_iter().flatten() {
            writeln!(out, "{name:<18} {value}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn spec(profile: ProfileName, slots: u16) -> anyhow::Result<LaunchSpec> {
    Ok(LaunchSpec {
        container: ContainerId::new("none")?,
        labels: Labels { pool: "bench".to_owned(), generation: 1, profile },
        slots,
        isolation_min: Isolation::Landlock,
        root: Root::Minimal,
        network: Network::Off,
        slot_limits: SlotLimits::default(),
        lifetime: LIFETIME,
        orphaned_after: LIFETIME,
    })
}

struct Ours {
    backend: Arc<dyn Backend>,
    facts: Facts,
    spec: LaunchSpec,
}

impl Ours {
    /// From the order to slots that answer, of each.
    async fn round(&mut self, round: u32, parallel: u32) -> anyhow::Result<Vec<Duration>> {
        let mut waiting = HashSet::new();
        let begun = Instant::now();
        let mut launches = tokio::task::JoinSet::new();
        for number in 0..parallel {
            let container = ContainerId::new(format!("bench-{round}-{number}"))?;
            waiting.insert(container.clone());
            let (backend, spec) = (self.backend.clone(), self.spec.clone());
            launches.spawn(async move { backend.launch(LaunchSpec { container, ..spec }).await });
        }
        let containers: Vec<_> = waiting.iter().cloned().collect();
        let mut took = Vec::new();
        let went = timeout(READY_MAX, async {
            while !waiting.is_empty() {
                tokio::select! {
                    Some(order) = launches.join_next() => order?.context("launch")?,
                    fact = self.facts.recv() => match fact.context("hear of containers")? {
                        Fact::Ready { container, .. } if waiting.remove(&container) => {
                            took.push(begun.elapsed());
                        }
                        Fact::Gone { container, exit } if waiting.contains(&container) => {
                            bail!("{container}: {}", exit.reason)
                        }
                        Fact::Ready { .. } | Fact::Gone { .. } => {}
                    },
                }
            }
            Ok(())
        });
        let went = went.await;
        // Also those of a round that failed.
        while launches.join_next().await.is_some() {}
        for container in &containers {
            self.backend.stop(container, GRACE).await.context("stop")?;
        }
        went.context("become ready")??;
        Ok(took)
    }
}

/// `docker run` of the same image, by the client that everybody has.
struct Bare {
    host: Option<String>,
    image: String,
}

impl Bare {
    /// `None`: there is no such thing.
    fn of(settings: &BackendSettings, profile: &ProfileName) -> Option<Self> {
        let BackendSettings::Docker(choice) = settings else { return None };
        let image = choice.settings.profiles.get(profile)?.image.clone();
        Some(Self { host: choice.settings.host.clone(), image })
    }

    /// Until `docker run --detach` has returned, of each.
    async fn round(&self, parallel: u32) -> anyhow::Result<Vec<Duration>> {
        let run = ["run", "--detach", "--entrypoint", "sleep", &self.image, "600"];
        let begun = Instant::now();
        let runs = (0..parallel).map(|_| async {
            let id = self.docker(&run).await;
            (id, begun.elapsed())
        });
        let runs = futures_util::future::join_all(runs).await;
        let mut took = Vec::new();
        for (id, elapsed) in runs {
            let id = id?;
            self.docker(&["rm", "--force", "--volumes", &id]).await?;
            took.push(elapsed);
        }
        Ok(took)
    }

    async fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("docker");
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        let output = command.args(arguments).stdin(Stdio::null()).output().await;
        let output = output.context("run the client `docker`")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {}: {}", arguments[0], error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
