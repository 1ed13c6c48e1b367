//! `slotmux acquire`: a lease on a slot.

use crate::{
    client::{ClientOptions, PoolClient},
    fault::Fault,
    out,
};
use clap::Args;
use slotmux_protocol::{ProfileName, TrajectoryId, v1::AcquireRequest};
use std::process::ExitCode;

/// Acquire a slot of a running pool
///
/// Prints the id of the lease. A trajectory that holds a lease already gets the same one again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lease=$(slotmux acquire)
  slotmux acquire rollout-17 --profile small --ttl-s 600 --json

Exit codes: 0 acquired, 1 refused or no answer, 2 bad arguments.")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// On whose behalf [default: one drawn at random]
    #[arg(value_name = "TRAJECTORY")]
    trajectory_id: Option<TrajectoryId>,

    /// The kind of slot [default: the pool's first]
    #[arg(long, value_name = "NAME")]
    profile: Option<ProfileName>,

    /// Wait this long for a free slot
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = crate::span::parse)]
    wait_s: crate::span::Seconds,

    /// The lease ends after this long without a call or a renewal [default: the profile's]
    #[arg(long, value_name = "SECONDS", value_parser = crate::span::parse)]
    ttl_s: Option<crate::span::Seconds>,

    /// Higher goes first
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    priority: i16,

    /// Acquire this many slots at once, all or none
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// Print the answer as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let client = PoolClient::new(&options.client)?;
    let request = AcquireRequest {
        trajectory_id: match options.trajectory_id {
            Some(id) => id,
            None => drawn()?,
        },
        profile: options.profile,
        wait_s: Some(options.wait_s),
        ttl_s: options.ttl_s,
        priority: Some(options.priority),
        count: Some(options.count),
    };
    let leases = client.acquire(&request).await.map_err(|error| error.into_fault("acquire"))?;
    if options.json {
        out::print_json(&slotmux_protocol::v1::AcquireResponse { leases })?;
    } else {
        for lease in leases {
            out::print(format_args!("{}\n", lease.lease_id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn drawn() -> Result<TrajectoryId, Fault> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Seeded by the system's randomness.
    let number = RandomState::new().build_hasher().finish();
    TrajectoryId::new(format!("cli-{number:016x}"))
        .map_err(|error| Fault::because("draw a trajectory id", &error))
}
