//! What this machine offers to slots, for `slotmux doctor`.

use crate::{
    ImageBy, Options,
    isolate::{RootKind, zygote::Zygote},
    ladder::Trial,
    limited::LimitedBy,
    options::Settings,
    server::Ground,
};
use std::sync::Arc;

/// What was found. Every rung was really stood on.
#[derive(Debug, Clone)]
pub struct Report {
    /// Best first.
    pub rungs: Vec<Trial>,
    /// How the whole image can be the slots' root, or why it cannot.
    pub image: Result<ImageBy, String>,
    /// By a cgroup version, or else what stands in for it; on the best rung.
    pub limited_by: LimitedBy,
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
    let rungs = ground.prober().survey().await;
    let best = rungs.iter().find(|it| it.refused.is_none()).map(|it| it.rung);
    let image = match best {
        Some(rung) => ground.image_root(rung).await,
        None => Err("no rung works".to_owned()),
    };
    let report = Report {
        image: image.and_then(|root| root.image_by().ok_or_else(|| "it is none".to_owned())),
        limited_by: LimitedBy::new(&ground.cgroups, best, RootKind::Minimal),
        rungs,
        shell: crate::init::find_shell(),
    };
    ground.remove();
    Ok(report)
}
