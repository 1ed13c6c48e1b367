//! `slotmux status`: what a pool has and does.

use crate::{
    client::{ClientOptions, PoolClient},
    fault::Fault,
    out,
};
use clap::Args;
use slotmux_protocol::v1::{ProfileStatus, Status};
use std::{fmt::Write, process::ExitCode};

/// Show what a running pool has and does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux status
  slotmux status --url http://10.0.0.7:8080 --json | jq .profiles

Exit codes: 0 it answered, 1 refused or no answer, 2 bad arguments.")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// Print the status as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let client = PoolClient::new(&options.client)?;
    let status = client.status().await.map_err(|error| error.into_fault("status"))?;
    if options.json {
        out::print_json(&status)?;
    } else {
        out::print(text(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status) -> String {
    let uptime_s = status.uptime_s.as_millis() / 1_000;
    let mut text = format!("pool {} {}, up {uptime_s} s\n", status.pool, status.version);
    for (name, profile) in &status.profiles {
        // Writing to a string never fails.
        let _ = write!(text, "{name}\n{}", profile_text(profile));
    }
    text
}

fn profile_text(profile: &ProfileStatus) -> String {
    let ProfileStatus { containers, slots, waiting, totals, trouble } = profile;
    let mut text = format!(
        "  containers  {} ready, {} starting, {} draining, {} stopping (min {}, max {})\n",
        containers.ready,
        containers.starting,
        containers.draining,
        containers.stopping,
        containers.min,
        containers.max
    );
    let _ = writeln!(
        text,
        "  slots       {} free, {} leased, {} resetting, {} quarantined, {} unreachable\n  \
         waiting     {waiting}",
        slots.free, slots.leased, slots.resetting, slots.quarantined, slots.unreachable
    );
    let _ = writeln!(
        text,
        "  so far      {} acquired, {} released, {} expired, {} revoked, {} resets",
        totals.acquired, totals.released, totals.expired, totals.revoked, totals.resets
    );
    if let Some(trouble) = trouble {
        let _ = writeln!(text, "  TROUBLE     {trouble}");
    }
    text
}
