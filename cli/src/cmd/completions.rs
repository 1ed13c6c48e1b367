//! `slotmux completions`: for the shell.

use crate::{fault::Fault, out};
use clap::{Args, Command};
use clap_complete::Shell;
use std::process::ExitCode;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  slotmux completions bash > ~/.local/share/bash-completion/completions/slotmux

Exit codes: 0 printed, 2 bad arguments.")]
pub(crate) struct Options {
    shell: Shell,
}

pub(crate) fn run(options: &Options, mut command: Command) -> Result<ExitCode, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "slotmux", &mut script);
    out::print(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
