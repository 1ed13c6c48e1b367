//! What a container uses.

use super::{Engine, EngineError, error::Doing};
use bollard::{models::ContainerStatsResponse, query_parameters::StatsOptions};
use futures_util::{StreamExt, stream::BoxStream};

/// One look at a container. What the engine does not know is 0; of one that does not run it is
/// everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Since its start, on all processors together.
    pub cpu_ns: u64,
    /// Without what the kernel could let go of at once: files that were read and are not in use.
    pub memory_bytes: u64,
    /// The most there ever was, with files. `None`: its cgroup does not keep it (version 2).
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: u64,
}

impl Engine {
    pub async fn stats(&self, id: &str) -> Result<Stats, EngineError> {
        let options = StatsOptions { stream: false, one_shot: true };
        let docker = self.docker().await?;
        let mut answer = docker.stats(id, Some(options)).boxed();
        match answer.next().await {
            Some(stats) => Ok(Stats::read(stats.doing(DOING)?)),
            // It ended while it was looked at.
            None => Ok(Stats::default()),
        }
    }

    /// About one a second, to the end of the container or of the connection. Who reads them late
    /// reads old ones.
    pub async fn watch_stats(
        &self,
        id: &str,
    ) -> Result<BoxStream<'static, Result<Stats, EngineError>>, EngineError> {
        let options = StatsOptions { stream: true, one_shot: false };
        let docker = self.docker().await?;
        let stats = docker.stats(id, Some(options));
        let mut has_run = false;
        // Engines go on, with nothing, as long as the container is not removed.
        let stats = stats.map(|stats| Ok(Stats::read(stats.doing(DOING)?)));
        let to_its_end = stats.take_while(move |stats| {
            let runs = !matches!(stats, Ok(Stats { cpu_ns: 0, tasks: 0, .. }));
            let goes_on = runs || !has_run;
            has_run |= runs;
            async move { goes_on }
        });
        Ok(to_its_end.boxed())
    }
}

const DOING: &str = "ask what the container uses";

impl Stats {
    fn read(stats: ContainerStatsResponse) -> Self {
        let cpu = stats.cpu_stats.and_then(|it| it.cpu_usage).and_then(|it| it.total_usage);
        let memory = stats.memory_stats.unwrap_or_default();
        let idle = memory.stats.as_ref().and_then(|all| {
            // Of cgroup version 1, where the plain one leaves out what is below; or of version 2.
            all.get("total_inactive_file").or_else(|| all.get("inactive_file")).copied()
        });
        let memory_bytes = memory.usage.unwrap_or_default();
        Self {
            cpu_ns: cpu.unwrap_or_default(),
            memory_bytes: memory_bytes.saturating_sub(idle.unwrap_or_default()),
            memory_peak_bytes: memory.max_usage.filter(|peak| *peak > 0),
            tasks: stats.pids_stats.and_then(|it| it.current).unwrap_or_default(),
        }
    }
}
