//! The pool that is replayed against: one in this process, or one elsewhere.

use crate::client::{ClientError, PoolClient};
use crate::fault::Chain;
use slotmux_pool::{
    api::Leases,
    link::{Abandoned, LinkCall},
};
use slotmux_protocol::{
    Code, ExecutionId, LeaseId, Problem, ToolCall, ToolResult,
    v1::{AcquireRequest, ExecuteRequest, Lease, Seconds, Status},
};
use std::{sync::Arc, time::Duration};

/// How often a request is repeated whose answer did not come. Both requests are safe to repeat:
/// a trajectory gets the lease that it has, and an execution id is run once.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(crate) enum Target {
    Embedded(Arc<dyn Leases>),
    Remote(PoolClient),
}

/// A call of a tool, as both pools take it.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) tool: ToolCall,
    pub(crate) timeout: Option<Seconds>,
    pub(crate) execution_id: ExecutionId,
}

impl Target {
    pub(crate) async fn acquire(&self, request: AcquireRequest) -> Result<Lease, Problem> {
        let leases = match self {
            Self::Embedded(pool) => pool.acquire(request).await?,
            Self::Remote(client) => persist(async || client.acquire(&request).await).await?,
        };
        leases.into_iter().next().ok_or_else(|| internal("the pool granted no lease"))
    }

    pub(crate) async fn call(&self, lease: LeaseId, wish: Wish) -> Result<ToolResult, Problem> {
        match self {
            Self::Embedded(pool) => {
                let route = pool.routes().find(lease)?;
                let mut limits = route.limits;
                if let Some(timeout) = wish.timeout {
                    limits.timeout_ms = timeout.as_millis();
                }
                let call = LinkCall {
                    slot: route.slot,
                    epoch: route.epoch,
                    execution_id: wish.execution_id,
                    tool: wish.tool,
                    limits,
                    abandoned: Abandoned::Cancel,
                    output: None,
                    beating: Some(route.pulse.beat()),
                };
                route.link.call(call).await
            }
            Self::Remote(client) => {
                let request = ExecuteRequest {
                    tool: wish.tool.name().to_owned(),
                    args: args(&wish.tool)?,
                    timeout_s: wish.timeout,
                    cpu_s: None,
                    execution_id: Some(wish.execution_id),
                };
                persist(async || client.execute(lease, &request).await).await
            }
        }
    }

    pub(crate) async fn release(&self, lease: LeaseId) -> Result<(), Problem> {
        match self {
            Self::Embedded(pool) => pool.release(lease).await,
            Self::Remote(client) => persist(async || client.release(lease).await).await,
        }
    }

    pub(crate) async fn status(&self) -> Result<Status, Problem> {
        match self {
            Self::Embedded(pool) => pool.status().await,
            Self::Remote(client) => client.status().await.map_err(into_problem),
        }
    }
}

/// Repeats what got no answer.
async fn persist<T>(request: impl AsyncFn() -> Result<T, ClientError>) -> Result<T, Problem> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match request().await {
            Err(ClientError::Unreachable { .. }) => tokio::time::sleep(pause).await,
            other => return other.map_err(into_problem),
        }
        pause *= 2;
    }
    request().await.map_err(into_problem)
}

fn into_problem(error: ClientError) -> Problem {
    match error {
        ClientError::Refused(problem) => *problem,
        other => internal(Chain(&other).to_string()),
    }
}

fn internal(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Internal, detail)
}

/// As they stand on the wire.
fn args(tool: &ToolCall) -> Result<serde_json::Value, Problem> {
    tool.args().map_err(|error| internal(error.to_string()))
}
