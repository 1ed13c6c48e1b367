//! Acquire and release, with or without a call in between.

use super::{
    connection::{Connection, Target},
    report::Samples,
};
use clap::Args;
use futures_util::future::try_join_all;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};
use tokio::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Pool: http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Bearer token.
    #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Clients at the same time, each with a connection and at most one lease.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    parallel: u16,
    /// Run this by bash between acquire and release.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// How long to measure.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Acquired {
    leases: Vec<Lease>,
}

#[derive(Deserialize)]
struct Lease {
    lease_id: String,
}

#[derive(Deserialize)]
struct Outcome {
    success: bool,
    error: String,
}

/// A cycle, and its acquire alone.
#[derive(Default)]
struct Measured {
    cycles: Samples,
    acquires: Samples,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let target = Target::new(&options.url, options.token.clone())?;
    let mut connections = Vec::new();
    for _ in 0..options.parallel {
        connections.push(Connection::open(&target).await?);
    }
    let started = Instant::now();
    let until = started + Duration::from_secs(options.seconds);
    let clients = (0..).zip(connections).map(|(number, connection)| {
        tokio::spawn(cycle_until(connection, number, options.command.clone(), until))
    });
    let mut measured = Measured::default();
    for one in try_join_all(clients).await? {
        measured.cycles.merge(one.cycles);
        measured.acquires.merge(one.acquires);
    }
    let elapsed = started.elapsed();
    let (acquire_p50_ms, acquire_p99_ms) = measured.acquires.quantiles_ms();
    let ran = json!({
        "bench": "leases", "url": options.url, "parallel": options.parallel,
        "seconds": options.seconds, "command": options.command,
        "acquire_p50_ms": acquire_p50_ms, "acquire_p99_ms": acquire_p99_ms,
    });
    measured.cycles.print("pairs_per_s", 1, elapsed, ran, options.json)
}

async fn cycle_until(
    mut connection: Connection,
    number: u32,
    command: Option<String>,
    until: Instant,
) -> Measured {
    let mut measured = Measured::default();
    while Instant::now() < until {
        let before = Instant::now();
        match cycle(&mut connection, number, command.as_deref(), &mut measured.acquires).await {
            Ok(()) => measured.cycles.add(before.elapsed()),
            Err(error) => {
                measured.cycles.fail(format!("{error:#}"));
                break;
            }
        }
    }
    measured
}

async fn cycle(
    connection: &mut Connection,
    number: u32,
    command: Option<&str>,
    acquires: &mut Samples,
) -> anyhow::Result<()> {
    let before = Instant::now();
    let request = json!({ "trajectory_id": format!("bench-{}-{number}", std::process::id()) });
    let answer: Acquired = connection.json(Method::POST, "/v1/leases", &request).await?;
    acquires.add(before.elapsed());
    for lease in answer.leases {
        let path = format!("/v1/leases/{}", lease.lease_id);
        if let Some(command) = command {
            let call = json!({ "tool": "bash", "args": { "command": command } });
            let path = format!("{path}/execute");
            let outcome: Outcome = connection.json(Method::POST, &path, &call).await?;
            anyhow::ensure!(outcome.success, "{}", outcome.error);
        }
        connection.send(Method::DELETE, &path, Value::Null.to_string().into()).await?;
    }
    Ok(())
}
