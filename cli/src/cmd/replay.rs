//! `slotmux replay`: trajectories of a file, in slots.

mod drive;

use crate::{
    client::{ClientOptions, PoolClient},
    embedded::Embedded,
    fault::{FAILED, Fault, INTERRUPTED, USAGE},
    out,
    replay::{
        plan::Plan,
        report::Report,
        requires::Presence,
        results::Results,
        rollouts::{self, LineFault, Trajectory},
        run::{Held, Replayer},
        target::Target,
    },
    scratch::Scratch,
    settings::{
        BackendOptions, ContainerOptions, Flags, Journal, PoolOptions, ProfileOptions, Settings,
    },
    span::Seconds,
    stop::Signals,
};
use clap::Args;
use drive::Drive;
use slotmux_protocol::{Isolation, Network};
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Faults of the file that are named; the others are counted.
const FAULTS_MAX: usize = 100;

/// A pool that was killed leaves containers behind; they end by themselves after this long.
const ORPHANED_AFTER_MS: u64 = 30_000;

/// Trajectories at once in a pool elsewhere, whose size we do not know.
const REMOTE_CONCURRENCY: usize = 16;

/// Run the trajectories of a file in slots, and check what was expected of them
///
/// Without --url a pool is started in this process, with its containers as child processes or, with
/// --backend docker, at a Docker engine, and everything is removed in the end. Each line of the file is a JSON object with `trajectory_id`,
/// `calls` and, if wanted, `files`, `reward`, `requires`, `group` and `profile`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux replay examples/rollouts.jsonl
  slotmux replay rollouts.jsonl --slots 8 --containers 2 --trajectories 1000 --out results.jsonl
  slotmux replay rollouts.jsonl --backend docker --image debian:12
  slotmux replay rollouts.jsonl --url http://127.0.0.1:8080 --json | jq .calls_per_s

The report counts every call that was made: those that write files, those of `calls`, and rewards.
Times are round trips as seen from here.

Exit codes: 0 everything was as expected, 1 something was not (it is named), 2 bad arguments or a
malformed file (every fault is named by line and field; nothing was run), 130 interrupted.")]
pub(crate) struct Options {
    /// Trajectories, one JSON object a line
    file: PathBuf,

    /// Use a pool that runs already
    #[arg(long, env = "SLOTMUX_URL", conflicts_with_all = ["slots", "containers", "isolation_min", "network", "backend", "image"])]
    url: Option<String>,

    /// That pool's token
    #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Slots of each container
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    slots: u16,

    /// Containers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    containers: u32,

    /// Trajectories at once [default: as many as there are slots; 16 with --url]
    #[arg(long, value_name = "N", value_parser = positive)]
    concurrency: Option<usize>,

    /// Run the whole file so many times
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive)]
    repeat: usize,

    /// Run so many trajectories, going round in the file
    #[arg(long, value_name = "N", conflicts_with = "repeat", value_parser = positive)]
    trajectories: Option<usize>,

    /// Write what came of each trajectory, one JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Refuse to run below this: namespaces, uid, landlock or none [default: landlock]
    #[arg(long, value_name = "RUNG")]
    isolation_min: Option<Isolation>,

    /// Whether slots reach the network: on or off [default: off]
    #[arg(long, value_name = "on|off", value_parser = crate::settings::parse_network)]
    network: Option<Network>,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    backend: BackendOptions,

    #[command(flatten)]
    container: ContainerOptions,
}

pub(crate) fn run(options: Options) -> Result<ExitCode, Fault> {
    let trajectories = read(&options.file)?;
    let total = options.trajectories.unwrap_or(trajectories.len().saturating_mul(options.repeat));
    let plan = Plan::new(trajectories, total)
        .map_err(|error| Fault::because("number the trajectories", &error).exit(USAGE))?;
    let results = options.out.as_deref().map(Results::create).transpose()?;
    let json = options.json;
    let report = crate::on_runtime(replay(options, plan, results))?;
    if json {
        out::print_json(&report)?;
    } else {
        out::print(&report)?;
    }
    Ok(ExitCode::from(exit(&report)))
}

fn exit(report: &Report) -> u8 {
    if report.interrupted_of.is_some() {
        INTERRUPTED
    } else if report.failed + report.infra_errors > 0 {
        FAILED
    } else {
        0
    }
}

fn read(path: &Path) -> Result<Vec<Trajectory>, Fault> {
    let reading = |error: std::io::Error| {
        Fault::because(format!("read `{}`", path.display()), &error).exit(USAGE)
    };
    let file = File::open(path).map_err(reading)?;
    rollouts::read(BufReader::new(file))
        .map_err(reading)?
        .map_err(|faults| malformed(path, &faults))
}

fn malformed(path: &Path, faults: &[LineFault]) -> Fault {
    let mut text = format!("`{}` is malformed; nothing was run", path.display());
    for fault in faults.iter().take(FAULTS_MAX) {
        // Writing to a string never fails.
        let _ = write!(text, "\n  {}:{fault}", path.display());
    }
    if faults.len() > FAULTS_MAX {
        let _ = write!(text, "\n  … and {} more", faults.len() - FAULTS_MAX);
    }
    Fault::usage(text)
}

async fn replay(options: Options, plan: Plan, results: Option<Results>) -> Result<Report, Fault> {
    // From here on a signal must not end us before everything is stopped and released.
    let mut signals = Signals::new()?;
    let (embedded, target, pool) = if let Some(url) = &options.url {
        (None, Target::Remote(reach(url, options.token.as_ref()).await?), url.clone())
    } else {
        let embedded = start(&options, &plan, &mut signals).await?;
        let target = embedded.target();
        (Some(embedded), target, "embedded".to_owned())
    };
    let drive = Drive {
        replayer: Replayer {
            target,
            slots_are_here: embedded.as_ref().is_some_and(Embedded::slots_are_here),
            presence: Presence::default(),
            held: Held::default(),
        },
        concurrency: concurrency(&options),
        file: options.file.display().to_string(),
        pool,
    };
    let report = drive.run(&plan, results, &mut signals).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    report
}

async fn reach(url: &str, token: Option<&String>) -> Result<PoolClient, Fault> {
    let client = PoolClient::new(&ClientOptions { url: url.to_owned(), token: token.cloned() })?;
    client.status().await.map_err(|error| error.into_fault("reach the pool"))?;
    Ok(client)
}

async fn start(options: &Options, plan: &Plan, signals: &mut Signals) -> Result<Embedded, Fault> {
    let scratch = Scratch::new("replay")?;
    let flags = Flags {
        pool: PoolOptions {
            pool: Some("replay".to_owned()),
            state_dir: Some(scratch.path().join("state")),
            journal: Some(Journal::Off),
            ..PoolOptions::default()
        },
        profile: ProfileOptions {
            slots: Some(options.slots),
            containers_min: Some(1),
            containers_max: Some(options.containers),
            isolation_min: options.isolation_min,
            network: options.network,
            orphaned_after_s: Some(Seconds::from_millis(ORPHANED_AFTER_MS)),
            ..ProfileOptions::default()
        },
        backend: options.backend.clone(),
        container: options.container.clone(),
    };
    let named: BTreeSet<_> =
        plan.trajectories().iter().filter_map(|it| it.profile.clone()).collect();
    Embedded::start(Settings::alike(flags, named)?, scratch, signals).await
}

fn concurrency(options: &Options) -> usize {
    let slots = usize::from(options.slots)
        .saturating_mul(usize::try_from(options.containers).unwrap_or(usize::MAX));
    let default = if options.url.is_some() { REMOTE_CONCURRENCY } else { slots };
    options.concurrency.unwrap_or(default)
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("a whole number over 0".to_owned()),
    }
}
