//! The command line. Each subsystem owns its flags; here they come together.
//! Knows which command needs which; starts nothing.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

use crate::controller::{Settings, StoreEgress};
use crate::gateway::GatewayArgs;
use crate::identity::RotationArgs;
use crate::leader::LeaderArgs;

/// Keeps image models on the right pods, and sends each request to the best one
#[derive(Clone, Debug, Parser)]
#[command(name = "easel-operator", version)]
pub struct Cli {
    /// What is logged: error, warn, info, debug, or a filter by module
    #[arg(long, env = "EASEL_LOG", default_value = "info", global = true)]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Index, controllers and gateway; one replica leads
    Run(Box<RunArgs>),
    /// Index and gateway alone: reads, never writes
    Gateway(Box<GatewayOnlyArgs>),
    /// Removes what uninstalling would leave behind: Deployments, certificates, finalizers, the Lease
    Cleanup(CleanupArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub leader: LeaderArgs,
    #[command(flatten)]
    pub rotation: RotationArgs,
    #[command(flatten)]
    pub inference: InferenceArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// Shown as status.url of every ImageModel
    #[arg(long, env = "EASEL_GATEWAY_URL")]
    pub gateway_url: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct GatewayOnlyArgs {
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ProcessArgs {
    /// The operator's namespace
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Names this process in the Lease and in events
    #[arg(long, env = "POD_NAME", default_value = "easel-operator")]
    pub pod_name: String,
    /// Where the leader asks what clients ask this gateway for, over mutual TLS; its port is the same in every process
    #[arg(long, default_value = "0.0.0.0:7443")]
    pub control_listen: SocketAddr,
    /// Where the kubelet asks: /healthz, /readyz
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub probe_listen: SocketAddr,
    /// Where Prometheus asks: /metrics
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub metrics_listen: SocketAddr,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Inference pods")]
pub struct InferenceArgs {
    /// Image of inference pods whose GpuPool names none
    #[arg(long, env = "EASEL_INFERENCE_IMAGE")]
    pub inference_image: String,
    /// imagePullPolicy of inference pods
    #[arg(long, env = "EASEL_IMAGE_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Where pods may fetch checkpoints: CIDR=PORT,… or namespace/NAME=PORT,…; may be given again
    #[arg(long)]
    pub store_egress: Vec<StoreEgress>,
}

#[derive(Clone, Debug, Args)]
pub struct CleanupArgs {
    /// The operator's namespace
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Deployments of the namespace to scale to 0 first, or they would make again what is removed
    #[arg(long, value_delimiter = ',', default_value = "easel-operator")]
    pub stop: Vec<String>,
    /// Seconds to wait until they have stopped
    #[arg(long, default_value_t = 120)]
    pub stop_seconds: u64,
}

impl RunArgs {
    pub fn settings(&self) -> Settings {
        let InferenceArgs { inference_image, image_pull_policy, store_egress } = self.inference.clone();
        Settings {
            namespace: self.process.namespace.clone(),
            image: inference_image,
            pull_policy: image_pull_policy,
            stores: store_egress,
        }
    }

    /// An empty flag, as a template leaves it, is none.
    pub fn gateway_url(&self) -> Option<String> {
        self.gateway_url.clone().filter(|url| !url.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_charts_flags_are_read() {
        let flags = [
            "easel-operator",
            "run",
            "--namespace=easel",
            "--inference-image=i",
            "--gateway-url=",
            "--lease-seconds=6",
            "--renew-seconds=2",
            "--request-timeout=60",
            "--store-egress=0.0.0.0/0=443",
            "--store-egress=namespace/stores=5000,9000",
        ];
        let Command::Run(run) = Cli::try_parse_from(flags).unwrap().command else { panic!("run is run") };
        assert_eq!(run.gateway_url(), None);
        assert_eq!(run.settings().namespace, "easel");
        let stores: Vec<String> = run.settings().stores.iter().map(ToString::to_string).collect();
        assert_eq!(stores, ["0.0.0.0/0=443", "namespace/stores=5000,9000"]);
    }
}
