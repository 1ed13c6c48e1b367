//! `slotmux doctor`: what this machine offers.

use crate::{
    backends,
    fault::{FAILED, Fault},
    out,
    scratch::Scratch,
    settings::{BackendSettings, DockerChoice, Flags, Settings},
};
use clap::{Args, Parser};
use rustix::system::uname;
use serde::Serialize;
use slotmux_backend::{Backend, Diagnosis};
use slotmux_protocol::Isolation;
use slotmux_sandbox_server::{ImageBy, LimitedBy};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Say what this machine offers: isolation, limits, a shell, a place for state
///
/// Every rung of the isolation ladder is really tried, in a temporary directory. With --backend
/// docker, say what the Docker engine offers instead.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux doctor
  slotmux doctor --json | jq '.rungs[] | select(.works)'
  slotmux doctor --backend docker --image debian:12
  slotmux doctor --config slotmux.toml

Exit codes: 0 slots can be had here, 1 they cannot, 2 bad arguments.")]
pub(crate) struct Options {
    /// What `serve` would be started with, in TOML
    #[arg(long, env = "SLOTMUX_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Serialize)]
struct Report {
    usable: bool,
    kernel: String,
    uid: u32,
    /// On this machine; `None`: they are elsewhere.
    #[serde(flatten)]
    slots: Option<Slots>,
    backend: &'static str,
    /// Of the backend: a line for each thing that was looked at.
    findings: Vec<String>,
    /// What keeps slots from being had.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Slots {
    /// The best that works.
    isolation: Option<Isolation>,
    /// Best first.
    rungs: Vec<Rung>,
    /// How `root = "image"` is had.
    image: Option<ImageBy>,
    /// Why it cannot be had.
    image_refused: Option<String>,
    /// What enforces each limit of a slot, on that rung.
    limited_by: Option<LimitedBy>,
    /// What runs commands.
    shell: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rung {
    isolation: Isolation,
    works: bool,
    /// Why it cannot be had.
    refused: Option<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let settings = Settings::new(options.config.as_deref(), options.flags)?;
    let report = match settings.backend {
        BackendSettings::Local => look_here(&settings.state_dir).await?,
        BackendSettings::Docker(choice) => look_at_engine(*choice).await?,
    };
    if options.json {
        out::print_json(&report)?;
    } else {
        out::print(&report)?;
    }
    Ok(if report.usable { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

impl Report {
    fn new(slots: Option<Slots>, backend: &dyn Backend, found: Diagnosis) -> Self {
        let kernel = uname();
        let name = kernel.sysname().to_string_lossy();
        let mut faults = Vec::new();
        if !found.usable {
            faults.push(format!("the {} backend cannot run containers", backend.name()));
        }
        Self {
            usable: found.usable,
            kernel: format!("{name} {}", kernel.release().to_string_lossy()),
            uid: rustix::process::geteuid().as_raw(),
            slots,
            backend: backend.name(),
            findings: found.findings,
            faults,
        }
    }

    fn fault(&mut self, what: impl Into<String>) {
        self.usable = false;
        self.faults.push(what.into());
    }
}

/// The rungs of its containers are those of another machine, or of another filter.
async fn look_at_engine(choice: DockerChoice) -> Result<Report, Fault> {
    let scratch = Scratch::new("doctor")?;
    let docker = backends::docker(choice, scratch.path())?;
    let found = docker.diagnose().await;
    Ok(Report::new(None, &docker, found))
}

async fn look_here(state_dir: &Path) -> Result<Report, Fault> {
    let scratch = Scratch::new("doctor")?;
    let local = backends::local(state_dir)?;
    let found = local.diagnose().await;
    let mut report = Report::new(None, &local, found);
    let slots = match sandbox(&scratch).await {
        Ok(found) => {
            let rungs: Vec<Rung> = found.rungs.into_iter().map(Rung::from).collect();
            let isolation = rungs.iter().find(|rung| rung.works).map(|rung| rung.isolation);
            Slots {
                isolation,
                rungs,
                image: found.image.as_ref().ok().copied(),
                image_refused: found.image.err(),
                limited_by: Some(found.limited_by),
                shell: found.shell,
            }
        }
        Err(why) => {
            report.fault(format!("slots cannot be tried out: {why}"));
            Slots {
                isolation: None,
                rungs: Vec::new(),
                image: None,
                image_refused: Some(why),
                limited_by: None,
                shell: None,
            }
        }
    };
    if slots.isolation.is_none() {
        report.fault("no rung of the isolation ladder works");
    }
    if slots.shell.is_none() {
        report.fault("there is no bash");
    }
    Ok(Report { slots: Some(slots), ..report })
}

async fn sandbox(scratch: &Scratch) -> Result<slotmux_sandbox_server::doctor::Report, String> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        options: slotmux_sandbox_server::Options,
    }
    let args = ["doctor".into(), "--data-dir".into(), scratch.path().as_os_str().to_owned()];
    let defaults = Defaults::try_parse_from(args).map_err(|error| error.to_string())?;
    slotmux_sandbox_server::doctor::report(defaults.options).await
}

impl From<slotmux_sandbox_server::Trial> for Rung {
    fn from(trial: slotmux_sandbox_server::Trial) -> Self {
        Self { isolation: trial.rung, works: trial.refused.is_none(), refused: trial.refused }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel      {}, as uid {}", self.kernel, self.uid)?;
        if let Some(slots) = &self.slots {
            slots.fmt(f)?;
        }
        for (at, finding) in self.findings.iter().enumerate() {
            writeln!(f, "{:<10}  {finding}", if at == 0 { self.backend } else { "" })?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT       {fault}")?;
        }
        writeln!(f, "{}", if self.usable { "slots can be had here" } else { "slots cannot be had" })
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "isolation   {}", self.isolation.map_or("NONE", Isolation::as_str))?;
        for rung in &self.rungs {
            let how = rung.refused.as_deref().unwrap_or("works");
            writeln!(f, "  {:<10}  {how}", rung.isolation.as_str())?;
        }
        match (&self.image, &self.image_refused) {
            (Some(ImageBy { by, changes }), _) => {
                writeln!(f, "root image  works: {by}, changes: {changes}")?;
            }
            (None, why) => writeln!(f, "root image  {}", why.as_deref().unwrap_or("NONE"))?,
        }
        let limits = self.limited_by.iter().flat_map(LimitedBy::rows);
        for (at, (name, by)) in limits.enumerate() {
            writeln!(f, "{:<10}  {name:<10}  by {by}", if at == 0 { "limits" } else { "" })?;
        }
        writeln!(f, "shell       {}", self.shell.as_deref().unwrap_or("NONE"))
    }
}
