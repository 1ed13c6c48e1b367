//! What this machine offers to slots, for `slotmux doctor`.

use crate::{
    Options, cgroup::Cgroups, isolate::zygote::Zygote, ladder::Trial, options::Settings,
    server::Ground,
};
use std::sync::Arc;

/// What was found. Every rung was really stood on.
#[derive(Debug, Clone)]
pub struct Report {
    /// Best first.
    pub rungs: Vec<Trial>,
    /// How memory and processes are limited: a cgroup version, or else what stands in for it.
    pub memory_by: String,
    pub processes_by: String,
    /// `bash` or `sh`, as commands would find it.
    pub shell: Option<String>,
}

/// Tries everything out below `options.data_dir`, and removes it again. Blocks for as long as it
/// takes, about a tenth of a second.
pub async fn report(options: Options) -> Result<Report, String> {
    let settings = Settings::new(options, None).map_err(|error| error.to_string())?;
    let zygote = Zygote::start().map_err(|error| format!("start the zygote: {error}"))?;
    let ground = Ground::prepare(&settings, zygote).map_err(|error| crate::chain(&error))?;
    let ground = Arc::new(ground);
    let cgroups: &Cgroups = &ground.cgroups;
    let report = Report {
        rungs: ground.prober().survey().await,
        memory_by: cgroups.memory_by().unwrap_or("supervision by the slot-init").to_owned(),
        processes_by: cgroups.pids_by().map_or("rlimit".to_owned(), |it| format!("rlimit, {it}")),
        shell: crate::init::find_shell(),
    };
    ground.remove();
    Ok(report)
}
