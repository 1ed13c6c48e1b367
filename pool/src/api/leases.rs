//! `/v1/leases`: acquire, look at, renew, release.

use super::{
    Api,
    body::{Json, MaybeJson},
};
use crate::routes::unknown;
use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderValue, StatusCode, header::LOCATION, request::Parts},
    response::IntoResponse,
};
use slotmux_edge::{Answer, Refusal, json, ok};
use slotmux_protocol::{
    Code, LeaseId, Problem,
    v1::{AcquireRequest, AcquireResponse, Lease, RenewRequest},
};

/// The lease of a path. Anything that is not spelled like a lease is an unknown one.
pub(super) struct LeasePath(pub(super) LeaseId);

impl FromRequestParts<Api> for LeasePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, api).await else {
            return Err(Refusal(Problem::new(Code::NotFound, "the path is not UTF-8")));
        };
        text.parse().map(Self).map_err(|_| {
            let shown: String = text.chars().take(100).collect();
            Refusal(unknown(shown))
        })
    }
}

/// Acquire a slot, or with `count` several of them, all or none.
///
/// Waits up to `wait_s` for its turn. A client that goes away while it waits loses nothing and
/// holds nothing. A trajectory that holds a lease already gets the same one again.
#[utoipa::path(
    post, path = "/v1/leases", operation_id = "acquire_lease", tag = "leases", request_body(
        content = AcquireRequest,
        example = json!({"trajectory_id": "rollout-17", "wait_s": 30, "ttl_s": 300})
    ),
    responses((status = 201, description = "The leases, as many as were asked for", body = AcquireResponse)),
)]
pub(super) async fn acquire(State(api): State<Api>, Json(request): Json<AcquireRequest>) -> Answer {
    let leases = api.pool.acquire(request).await?;
    let location = match leases.as_slice() {
        [lease] => HeaderValue::from_str(&format!("/v1/leases/{}", lease.lease_id)).ok(),
        _ => None,
    };
    let mut response = json(StatusCode::CREATED, &AcquireResponse { leases });
    if let Some(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Look at a lease.
#[utoipa::path(
    get, path = "/v1/leases/{lease_id}", operation_id = "get_lease", tag = "leases",
    params(("lease_id" = LeaseId, Path, example = "lease-6a1b2c")),
    responses((status = 200, description = "The lease", body = Lease)),
)]
pub(super) async fn get(State(api): State<Api>, LeasePath(lease): LeasePath) -> Answer {
    Ok(ok(&api.pool.lease(lease).await?))
}

/// Renew a lease: its time to live begins anew. Tool calls do so too.
#[utoipa::path(
    post, path = "/v1/leases/{lease_id}/renew", operation_id = "renew_lease", tag = "leases",
    params(("lease_id" = LeaseId, Path, example = "lease-6a1b2c")),
    request_body(content = RenewRequest, example = json!({"ttl_s": 600})),
    responses((status = 200, description = "The renewed lease", body = Lease)),
)]
pub(super) async fn renew(
    State(api): State<Api>,
    LeasePath(lease): LeasePath,
    MaybeJson(request): MaybeJson<RenewRequest>,
) -> Answer {
    Ok(ok(&api.pool.renew(lease, request.ttl_s).await?))
}

/// Release a lease. Its slot is reset before anybody else gets it. Again is fine.
#[utoipa::path(
    delete, path = "/v1/leases/{lease_id}", operation_id = "release_lease", tag = "leases",
    params(("lease_id" = LeaseId, Path, example = "lease-6a1b2c")),
    responses((status = 204, description = "The lease is released")),
)]
pub(super) async fn release(State(api): State<Api>, LeasePath(lease): LeasePath) -> Answer {
    match api.pool.release(lease).await {
        Err(problem) if problem.code != Code::LeaseReleased => Err(problem.into()),
        Ok(()) | Err(_) => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}
