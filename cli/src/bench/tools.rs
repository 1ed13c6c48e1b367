//! Tool calls in batches.

use super::{
    connection::{Connection, Target},
    report::Samples,
};
use anyhow::bail;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::try_join_all;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};
use tokio::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Server or pool: http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Bearer token.
    #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// `atropos`: a sandbox-server's /batch. `v1`: a pool's /v1/batch.
    #[arg(long, value_enum, default_value_t = Wire::Atropos)]
    wire: Wire,
    /// The tool to call.
    #[arg(long, value_enum, default_value_t = Tool::Bash)]
    tool: Tool,
    /// Calls in a batch, each in a slot of its own while there are as many.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batch: u16,
    /// Connections that send batches at the same time.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// How long to measure.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Bytes that are read or written.
    #[arg(long, default_value_t = 1_024, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    bytes: u32,
    /// What `bash` runs.
    #[arg(long, default_value = "true", value_name = "COMMAND")]
    command: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    Atropos,
    V1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Tool {
    Bash,
    ReadFile,
    WriteFile,
}

/// Only what is looked at: the rest of an answer is skipped.
#[derive(Deserialize)]
struct Outcome {
    success: bool,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct PoolItem {
    result: Option<Outcome>,
    problem: Option<Value>,
}

#[derive(Deserialize)]
struct PoolAnswer {
    results: Vec<PoolItem>,
}

#[derive(Deserialize)]
struct Slots {
    slots: Vec<SlotName>,
}

#[derive(Deserialize)]
struct SlotName {
    slot_id: String,
}

#[derive(Deserialize)]
struct Leases {
    leases: Vec<LeaseName>,
}

#[derive(Deserialize)]
struct LeaseName {
    lease_id: String,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let target = Target::new(&options.url, options.token.clone())?;
    let mut setup = Connection::open(&target).await?;
    let mut clients = Vec::new();
    for number in 0..options.connections {
        let places = places(&mut setup, &options, number).await?;
        prepare(&mut setup, &options, &places).await?;
        clients.push((Connection::open(&target).await?, places));
    }
    let started = Instant::now();
    let until = started + Duration::from_secs(options.seconds);
    let loads = clients.into_iter().map(|(connection, places)| {
        let body = Bytes::from(body(&options, options.tool, &places).to_string());
        load(connection, options.wire, body, until)
    });
    let mut samples = Samples::default();
    for one in try_join_all(loads.map(tokio::spawn)).await? {
        samples.merge(one);
    }
    let elapsed = started.elapsed();
    release(&mut setup, &options).await?;
    let tool = options.tool.to_possible_value().map(|it| it.get_name().to_owned());
    let ran = json!({
        "bench": "tools", "url": options.url,
        "wire": if options.wire == Wire::V1 { "v1" } else { "atropos" },
        "tool": tool, "batch": options.batch, "connections": options.connections,
        "seconds": options.seconds, "bytes": options.bytes, "command": options.command,
    });
    samples.print("calls_per_s", options.batch.into(), elapsed, ran, options.json)
}

/// Slots of the server, the same for every connection; or leases of this connection's own.
async fn places(
    setup: &mut Connection,
    options: &Options,
    connection: u16,
) -> anyhow::Result<Vec<String>> {
    let mut places = Vec::new();
    match options.wire {
        Wire::Atropos => {
            let answer: Slots = setup.json(Method::GET, "/slots", &json!(null)).await?;
            places.extend(answer.slots.into_iter().map(|it| it.slot_id));
        }
        Wire::V1 => {
            for number in 0..options.batch {
                let request = json!({ "trajectory_id": trajectory(connection, number) });
                let answer: Leases = setup.json(Method::POST, "/v1/leases", &request).await?;
                places.extend(answer.leases.into_iter().map(|it| it.lease_id));
            }
        }
    }
    if places.is_empty() {
        bail!("the server has no slots");
    }
    Ok(places)
}

fn trajectory(connection: u16, number: u16) -> String {
    format!("bench-{}-{connection}-{number}", std::process::id())
}

async fn release(setup: &mut Connection, options: &Options) -> anyhow::Result<()> {
    if options.wire == Wire::V1 {
        for connection in 0..options.connections {
            for number in 0..options.batch {
                let request = json!({ "trajectory_id": trajectory(connection, number) });
                setup.json::<Value>(Method::POST, "/release", &request).await?;
            }
        }
    }
    Ok(())
}

async fn prepare(
    setup: &mut Connection,
    options: &Options,
    places: &[String],
) -> anyhow::Result<()> {
    if options.tool != Tool::ReadFile {
        return Ok(());
    }
    for places in places.chunks(usize::from(options.batch)) {
        let body = body(options, Tool::WriteFile, places);
        let answer = setup.send(Method::POST, path(options.wire), body.to_string().into()).await?;
        if let Err(error) = check(options.wire, &answer) {
            bail!("write the files that are to be read: {error}");
        }
    }
    Ok(())
}

fn path(wire: Wire) -> &'static str {
    match wire {
        Wire::Atropos => "/batch",
        Wire::V1 => "/v1/batch",
    }
}

fn body(options: &Options, tool: Tool, places: &[String]) -> Value {
    let (name, args) = match tool {
        Tool::Bash => ("bash", json!({ "command": options.command })),
        Tool::ReadFile => ("read_file", json!({ "path": "bench.txt" })),
        Tool::WriteFile => {
            let content = "x".repeat(options.bytes as usize);
            ("write_file", json!({ "path": "bench.txt", "content": content }))
        }
    };
    let calls = (0..usize::from(options.batch)).map(|at| {
        let place = &places[at % places.len()];
        match options.wire {
            Wire::Atropos => {
                json!({ "slot_id": place, "tool": name, "args": args, "timeout": 30.0 })
            }
            Wire::V1 => json!({ "lease_id": place, "tool": name, "args": args }),
        }
    });
    let calls: Vec<_> = calls.collect();
    match options.wire {
        Wire::Atropos => json!(calls),
        Wire::V1 => json!({ "calls": calls }),
    }
}

async fn load(mut connection: Connection, wire: Wire, body: Bytes, until: Instant) -> Samples {
    let mut samples = Samples::default();
    while Instant::now() < until {
        let before = Instant::now();
        match connection.send(Method::POST, path(wire), body.clone()).await {
            Ok(answer) => {
                samples.add(before.elapsed());
                if let Err(error) = check(wire, &answer) {
                    samples.fail(error);
                }
            }
            Err(error) => {
                samples.fail(format!("{error:#}"));
                break;
            }
        }
    }
    samples
}

/// Every call of a batch must have gone well.
fn check(wire: Wire, answer: &[u8]) -> Result<(), String> {
    let outcomes: Vec<Result<Outcome, String>> = match wire {
        Wire::Atropos => serde_json::from_slice::<Vec<Outcome>>(answer)
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(Ok)
            .collect(),
        Wire::V1 => serde_json::from_slice::<PoolAnswer>(answer)
            .map_err(|error| error.to_string())?
            .results
            .into_iter()
            .map(|it| it.result.ok_or_else(|| format!("{:?}", it.problem)))
            .collect(),
    };
    for outcome in outcomes {
        let outcome = outcome?;
        if !outcome.success {
            return Err(outcome.error);
        }
    }
    Ok(())
}
