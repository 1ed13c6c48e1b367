//! `slotmux renew` and `slotmux release`.

use crate::{
    client::{ClientOptions, PoolClient},
    fault::Fault,
    out,
};
use clap::Args;
use serde_json::json;
use slotmux_protocol::{LeaseId, v1::RenewRequest};
use std::process::ExitCode;

/// Renew a lease: its time to live begins anew
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  slotmux renew lease-6a1b --ttl-s 3600

Exit codes: 0 renewed, 1 refused or no answer, 2 bad arguments.")]
pub(crate) struct RenewOptions {
    #[command(flatten)]
    client: ClientOptions,

    /// As `slotmux acquire` printed it
    lease: LeaseId,

    /// From now on the lease lives this long without a sign of life [default: as before]
    #[arg(long, value_name = "SECONDS", value_parser = crate::span::parse)]
    ttl_s: Option<crate::span::Seconds>,

    /// Print the lease as one JSON object
    #[arg(long)]
    json: bool,
}

/// Release leases: their slots are emptied and given to others
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  slotmux release lease-6a1b

Exit codes: 0 released (also if it was so before), 1 refused or no answer, 2 bad arguments.")]
pub(crate) struct ReleaseOptions {
    #[command(flatten)]
    client: ClientOptions,

    /// As `slotmux acquire` printed them
    #[arg(required = true)]
    leases: Vec<LeaseId>,

    /// Print what was released as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn renew(options: RenewOptions) -> Result<ExitCode, Fault> {
    let client = PoolClient::new(&options.client)?;
    let request = RenewRequest { ttl_s: options.ttl_s };
    let renewed = client.renew(options.lease, &request).await;
    let lease = renewed.map_err(|error| error.into_fault("renew"))?;
    if options.json {
        out::print_json(&lease)?;
    } else {
        let left_s = f64::from(lease.expires_in_s);
        out::print(format_args!("{} expires in {left_s} s\n", lease.lease_id))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn release(options: ReleaseOptions) -> Result<ExitCode, Fault> {
    let client = PoolClient::new(&options.client)?;
    for lease in &options.leases {
        let released = client.release(*lease).await;
        released.map_err(|error| error.into_fault(&format!("release {lease}")))?;
    }
    if options.json {
        out::print_json(&json!({ "released": options.leases }))?;
    }
    Ok(ExitCode::SUCCESS)
}
