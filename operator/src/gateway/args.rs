//! The gateway's flags.
//! Knows their defaults and bounds; reads no environment by itself.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::value_parser;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayArgs {
    /// Where clients connect.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub gateway_listen: SocketAddr,
    /// Seconds until a request must be answered, waiting included; a request's x-easel-deadline-ms can only shorten it.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = value_parser!(u64).range(1..=86_400))]
    pub request_timeout: u64,
    /// Requests that may wait for a pod; more are answered 429.
    #[arg(long, value_name = "REQUESTS", default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub max_waiting: u32,
    /// Pods that may fail one request before it is given up.
    #[arg(long, value_name = "PODS", default_value_t = 5, value_parser = value_parser!(u32).range(1..=100))]
    pub max_attempts: u32,
    /// Connections from clients; more wait to be accepted.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 4096, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Memory for pictures between pod and client, in MiB; when it is used up, pods wait before they answer.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = value_parser!(u32).range(64..=1_048_576))]
    pub response_memory_mib: u32,
    /// Memory for pictures that clients send to be edited, in MiB; when it is used up, further ones are not read.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = value_parser!(u32).range(64..=1_048_576))]
    pub edit_memory_mib: u32,
    /// Model calls of a picture between two snapshots of it, which a lost pod's work is resumed from; 0: only a pod that
    /// goes in peace gives one.
    #[arg(long, value_name = "STEPS", default_value_t = 5, value_parser = value_parser!(u32).range(0..=10_000))]
    pub snapshot_steps: u32,
    /// Memory for snapshots of pictures on their way, in MiB; when it is used up, further ones are thrown away, and what
    /// they are of is drawn from an older one or from the beginning if its pod is lost.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = value_parser!(u32).range(0..=1_048_576))]
    pub snapshot_memory_mib: u32,
    /// Seconds that requests under way have to finish after shutdown has begun.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = value_parser!(u64).range(0..=86_400))]
    pub gateway_drain_seconds: u64,
}

impl GatewayArgs {
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout)
    }

    pub(super) fn drain(&self) -> Duration {
        Duration::from_secs(self.gateway_drain_seconds)
    }
}
