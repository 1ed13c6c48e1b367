//! `slotmux doctor`: what this machine offers.

use crate::{
    fault::{FAILED, Fault},
    out,
    scratch::Scratch,
    settings::default_state_dir,
};
use clap::{Args, Parser};
use rustix::system::uname;
use serde::Serialize;
use slotmux_backend::Backend;
use slotmux_local::{LocalBackend, LocalSettings};
use slotmux_protocol::Isolation;
use slotmux_sandbox_server::LimitedBy;
use std::{fmt, path::PathBuf, process::ExitCode};

/// Say what this machine offers: isolation, limits, a shell, a place for state
///
/// Every rung of the isolation ladder is really tried, in a temporary directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux doctor
  slotmux doctor --json | jq '.rungs[] | select(.works)'

Exit codes: 0 slots can be had here, 1 they cannot, 2 bad arguments.")]
pub(crate) struct Options {
    /// Where `serve` would keep its state
    #[arg(long, env = "SLOTMUX_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    usable: bool,
    kernel: String,
    uid: u32,
    /// The best that works.
    isolation: Option<Isolation>,
    /// Best first.
    rungs: Vec<Rung>,
    /// What enforces each limit of a slot, on that rung.
    limited_by: Option<LimitedBy>,
    /// What runs commands.
    shell: Option<String>,
    local_backend: Vec<String>,
    /// What keeps slots from being had.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Rung {
    isolation: Isolation,
    works: bool,
    /// Why it cannot be had.
    refused: Option<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let report = look(options.state_dir.unwrap_or_else(default_state_dir)).await?;
    if options.json {
        out::print_json(&report)?;
    } else {
        out::print(&report)?;
    }
    Ok(if report.usable { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn look(state_dir: PathBuf) -> Result<Report, Fault> {
    let scratch = Scratch::new("doctor")?;
    let sandbox = sandbox(&scratch).await;
    let backend = LocalBackend::new(LocalSettings {
        program: crate::embedded::own_program()?,
        args_before: vec!["sandbox-server".into()],
        state_dir,
    });
    let local = backend.diagnose().await;
    let mut faults = Vec::new();
    if !local.usable {
        faults.push("the local backend cannot run containers".to_owned());
    }
    let (rungs, limited_by, shell) = match sandbox {
        Ok(found) => (found.rungs, Some(found.limited_by), found.shell),
        Err(why) => {
            faults.push(format!("slots cannot be tried out: {why}"));
            (Vec::new(), None, None)
        }
    };
    let rungs: Vec<Rung> = rungs.into_iter().map(Rung::from).collect();
    let isolation = rungs.iter().find(|rung| rung.works).map(|rung| rung.isolation);
    if isolation.is_none() {
        faults.push("no rung of the isolation ladder works".to_owned());
    }
    if shell.is_none() {
        faults.push("there is no bash".to_owned());
    }
    let kernel = uname();
    Ok(Report {
        usable: faults.is_empty(),
        kernel: format!(
            "{} {}",
            kernel.sysname().to_string_lossy(),
            kernel.release().to_string_lossy()
        ),
        uid: rustix::process::geteuid().as_raw(),
        isolation,
        rungs,
        limited_by,
        shell,
        local_backend: local.findings,
        faults,
    })
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
        writeln!(f, "isolation   {}", self.isolation.map_or("NONE", Isolation::as_str))?;
        for rung in &self.rungs {
            let how = rung.refused.as_deref().unwrap_or("works");
            writeln!(f, "  {:<10}  {how}", rung.isolation.as_str())?;
        }
        let limits = self.limited_by.iter().flat_map(LimitedBy::rows);
        for (at, (name, by)) in limits.enumerate() {
            writeln!(f, "{:<10}  {name:<10}  by {by}", if at == 0 { "limits" } else { "" })?;
        }
        writeln!(f, "shell       {}", self.shell.as_deref().unwrap_or("NONE"))?;
        for (at, finding) in self.local_backend.iter().enumerate() {
            writeln!(f, "{:<10}  {finding}", if at == 0 { "local" } else { "" })?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT       {fault}")?;
        }
        writeln!(f, "{}", if self.usable { "slots can be had here" } else { "slots cannot be had" })
    }
}
