//! Limits of a container that is there already.

use super::{Engine, EngineError, error::Doing};
use bollard::models::ContainerUpdateBody;

impl Engine {
    /// Of memory without swap, and of processes. It may run.
    pub async fn limit(
        &self,
        id: &str,
        memory_bytes: u64,
        processes: u32,
    ) -> Result<(), EngineError> {
        let memory = Some(i64::try_from(memory_bytes).unwrap_or(i64::MAX));
        let limits = ContainerUpdateBody {
            memory,
            memory_swap: memory,
            pids_limit: Some(processes.into()),
            ..Default::default()
        };
        let updated = self.docker().await?.update_container(id, limits).await;
        updated.doing("set the container's limits")
    }
}
