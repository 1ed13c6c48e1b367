//! The small executable: a sandbox-server and nothing else.

use clap::Parser;
use std::{io::IsTerminal as _, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Serve slots: isolated workspaces in which bash and file tools run.
#[derive(Debug, Parser)]
#[command(name = "slotmux-sandbox-server", version)]
struct Cli {
    #[command(flatten)]
    options: slotmux_sandbox_server::Options,
}

fn main() -> ExitCode {
    if let Some(code) = slotmux_sandbox_server::maybe_slot_zygote() {
        return code;
    }
    let filter = EnvFilter::try_from_env("SLOTMUX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    slotmux_sandbox_server::main(Cli::parse().options)
}
