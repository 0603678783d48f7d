//! Chooses what computes: libtorch, when it is compiled in, or the fake.
//! The only file outside of `torch` that knows of the feature.

use clap::{Args, ValueEnum};

use crate::fake::{FakeFlags, FakeLoader};
use crate::pod::{Pod, PodFlags};

#[derive(Args, Clone, Debug)]
pub struct BackendFlags {
    /// What computes: libtorch, or a fake that takes the time of a latency model and draws gradients
    #[arg(long, env = "EASEL_PIPELINE", value_enum, default_value_t = Backend::Torch)]
    pub pipeline: Backend,
    /// Where torch computes: auto, cpu, cuda or cuda:N; auto is the first GPU, else the CPU
    #[arg(long, env = "EASEL_DEVICE", default_value = "auto")]
    pub device: String,
    /// Numbers that torch computes with; auto is f16 on a GPU, f32 on a CPU
    #[arg(long, env = "EASEL_DTYPE", value_enum, default_value_t = Dtype::Auto)]
    pub dtype: Dtype,
    /// Threads of one torch operator on CPUs; 0: as many cores as the pod may use
    #[arg(long, env = "EASEL_THREADS", default_value_t = 0)]
    pub threads: u16,
    #[command(flatten)]
    pub fake: FakeFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    Torch,
    Fake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Auto,
    F32,
    Bf16,
    F16,
}

/// Must be the first act of `main`: CUDA's libraries are found now or not at all.
pub fn init() {
    #[cfg(feature = "torch")]
    crate::torch::init();
}

/// Ends the process without running destructors: libtorch's would free what the loader or the engine thread still
/// computes with, and a pod that was told to stop while it loads would end with a crash.
#[allow(unsafe_code)]
pub fn exit(code: i32) -> ! {
    // SAFETY: `_exit` only leaves; it reads no memory of ours. Nothing of ours is written at exit: logs are written
    // line by line.
    unsafe { libc::_exit(code) }
}

/// Starts a pod that computes as the flags say.
pub async fn start(flags: &BackendFlags, pod: &PodFlags) -> anyhow::Result<Pod> {
    match flags.pipeline {
        Backend::Fake => {
            tracing::warn!("the fake pipeline draws gradients; for tests and simulations only");
            Pod::start(FakeLoader::new(flags.fake.clone()), pod).await
        }
        Backend::Torch => start_torch(flags, pod).await,
    }
}

#[cfg(feature = "torch")]
async fn start_torch(flags: &BackendFlags, pod: &PodFlags) -> anyhow::Result<Pod> {
    use crate::torch::{self, Placement, TorchLoader};
    let dtype = match flags.dtype {
        Dtype::Auto => torch::Dtype::Auto,
        Dtype::F32 => torch::Dtype::F32,
        Dtype::Bf16 => torch::Dtype::Bf16,
        Dtype::F16 => torch::Dtype::F16,
    };
    let placement = Placement::choose(flags.device.parse()?, dtype)?;
    // Counts what the cgroup allows; libtorch would count the node's cores.
    let cores =
        || std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
    let threads = if flags.threads == 0 { cores() } else { flags.threads };
    torch::set_threads(threads);
    tracing::info!(device = %placement, dtype = ?flags.dtype, threads, "computing with libtorch");
    Pod::start(TorchLoader::new(placement), pod).await
}

#[cfg(not(feature = "torch"))]
#[expect(clippy::unused_async, reason = "same shape as the one that computes")]
async fn start_torch(_: &BackendFlags, _: &PodFlags) -> anyhow::Result<Pod> {
    anyhow::bail!("this binary was built without libtorch; build it with --features torch, or say --pipeline fake")
}
