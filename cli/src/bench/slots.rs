//! What a sandbox-server does in one slot, one thing after another: sessions, resets, forks.

use super::{
    connection::{Connection, Target},
    report::Samples,
};
use anyhow::bail;
use clap::{Args, ValueEnum};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};
use tokio::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Sandbox-server with two slots at least: http://HOST:PORT. Its slots 0 and 1 are emptied.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Bearer token.
    #[arg(long, env = "SLOTMUX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How long to measure.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Files in the workspace that is reset or forked.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    files: u32,
    /// Bytes of each of them.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    bytes: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum What {
    /// `true` by `bash_stateful`.
    Stateful,
    /// Keys to a terminal, the wait for what they start, and its screen.
    Terminal,
    /// A reset of a workspace full of files. The filling is not measured.
    Reset,
    /// A fork of a workspace full of files into an empty slot.
    Fork,
}

#[derive(Deserialize)]
struct Outcome {
    success: bool,
    error: String,
}

struct Bench {
    connection: Connection,
    options: Options,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let target = Target::new(&options.url, options.token.clone())?;
    let mut bench = Bench { connection: Connection::open(&target).await?, options };
    bench.reset(0).await?;
    bench.reset(1).await?;
    bench.prepare().await?;
    let started = Instant::now();
    let until = started + Duration::from_secs(bench.options.seconds);
    let mut samples = Samples::default();
    while Instant::now() < until {
        match bench.once().await {
            Ok(took) => samples.add(took),
            Err(error) => {
                samples.fail(format!("{error:#}"));
                break;
            }
        }
    }
    let elapsed = started.elapsed();
    bench.reset(0).await?;
    bench.reset(1).await?;
    let Options { what, url, files, bytes, seconds, json, .. } = bench.options;
    let what = what.to_possible_value().map(|it| it.get_name().to_owned());
    let ran = json!({
        "bench": "slots", "what": what, "url": url, "seconds": seconds,
        "files": files, "bytes": bytes,
    });
    samples.print("per_s", 1, elapsed, ran, json)
}

impl Bench {
    async fn prepare(&mut self) -> anyhow::Result<()> {
        match self.options.what {
            What::Stateful => self.stateful().await,
            What::Terminal => {
                let start = json!({ "action": "start", "rows": 24, "cols": 80 });
                self.call(0, "terminal", start).await
            }
            What::Reset => Ok(()),
            What::Fork => self.fill().await,
        }
    }

    /// One sample: how long what is measured took.
    async fn once(&mut self) -> anyhow::Result<Duration> {
        if self.options.what == What::Reset {
            self.fill().await?;
        }
        let before = Instant::now();
        match self.options.what {
            What::Stateful => self.stateful().await?,
            What::Terminal => {
                let keys =
                    json!({ "action": "send_keys", "keys": ["true", "Enter"], "wait": true });
                self.call(0, "terminal", keys).await?;
                self.call(0, "terminal", json!({ "action": "capture" })).await?;
            }
            What::Reset => self.reset(0).await?,
            What::Fork => {
                let body = json!({ "to": ["slot_1"], "stop": true });
                self.post("/v1/slots/slot_0/fork", &body).await?;
            }
        }
        Ok(before.elapsed())
    }

    async fn stateful(&mut self) -> anyhow::Result<()> {
        self.call(0, "bash_stateful", json!({ "command": "true" })).await
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        let Options { files, bytes, .. } = self.options;
        // A hundred directories, as a repository has; one process writes them all.
        let command = format!(
            "n={files} b={bytes}; for ((d = 0; d < 100; d++)); do mkdir -p dir$d; done; \
             if ((b > 0)); then head -c $b /dev/zero > .seed; else : > .seed; fi; \
             seq 1 $n | awk '{{ print \"dir\" ($1 % 100) \"/file\" $1 }}' > .names; \
             if ((b > 0)); then while read -r name; do cat .seed > $name; done < .names; \
             else xargs touch < .names; fi; rm .seed .names"
        );
        self.call(0, "bash", json!({ "command": command })).await
    }

    async fn reset(&mut self, slot: u16) -> anyhow::Result<()> {
        self.post(&format!("/v1/slots/slot_{slot}/reset"), &json!({})).await
    }

    async fn call(&mut self, slot: u16, tool: &str, args: Value) -> anyhow::Result<()> {
        let body = json!({ "tool": tool, "args": args, "timeout_s": 600 });
        let path = format!("/v1/slots/slot_{slot}/execute");
        let outcome: Outcome = self.connection.json(Method::POST, &path, &body).await?;
        if !outcome.success {
            bail!("{tool}: {}", outcome.error);
        }
        Ok(())
    }

    async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<()> {
        self.connection.send(Method::POST, path, body.to_string().into()).await.map(|_| ())
    }
}
