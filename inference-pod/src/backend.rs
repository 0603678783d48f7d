//! Chooses what computes: libtorch, when it is compiled in, or the fake.
//! The only file outside of `torch` that knows of the feature.

#[cfg(feature = "torch")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::cut_out::FakeCutOut;
use crate::fake::{FakeFlags, FakeLoader};
use crate::finishing::Finishing;
use crate::pod::{Pod, PodFlags};
use crate::seal::SealFlags;
use crate::upscale::Repeat;
#[cfg(feature = "torch")]
use crate::{
    cut_out::CutOut,
    torch::{Placement, u2net::U2NetP, upscale::Upscaler},
    upscale::Upscale,
};

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
    /// Folder of the model that takes backgrounds away; absent: transparent backgrounds are refused
    #[arg(long, env = "EASEL_CUT_OUT", default_value = "/models/cut-out")]
    pub cut_out: PathBuf,
    /// Folder of the model that makes pictures larger; absent: upscale is refused
    #[arg(long, env = "EASEL_UPSCALE", default_value = "/models/upscale")]
    pub upscale: PathBuf,
    #[command(flatten)]
    pub seal: SealFlags,
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
            let (cut_out, upscale) = (Some(Arc::new(FakeCutOut) as _), Some(Arc::new(Repeat) as _));
            let finishing = Finishing { cut_out, upscale, seal: flags.seal.open()? };
            Pod::start_with(FakeLoader::new(flags.fake.clone()), finishing, pod).await
        }
        Backend::Torch => start_torch(flags, pod).await,
    }
}

#[cfg(feature = "torch")]
async fn start_torch(flags: &BackendFlags, pod: &PodFlags) -> anyhow::Result<Pod> {
    use crate::torch::{self, TorchLoader};
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
    let (cut_out, upscale) = (cut_out(&flags.cut_out, placement)?, upscale(&flags.upscale, placement)?);
    let finishing = Finishing { cut_out, upscale, seal: flags.seal.open()? };
    Pod::start_with(TorchLoader::new(placement), finishing, pod).await
}

/// Weights that are there and can't be used are a broken image, and no reason to go on without them.
#[cfg(feature = "torch")]
fn cut_out(folder: &Path, placement: Placement) -> anyhow::Result<Option<Arc<dyn CutOut>>> {
    use anyhow::Context as _;
    if !folder.exists() {
        tracing::info!(folder = %folder.display(), "no cut-out model; transparent backgrounds are refused");
        return Ok(None);
    }
    let model = U2NetP::load(folder, placement);
    let model = model.with_context(|| format!("failed to load the cut-out model of {}", folder.display()))?;
    Ok(Some(Arc::new(model)))
}

/// As [`cut_out`].
#[cfg(feature = "torch")]
fn upscale(folder: &Path, placement: Placement) -> anyhow::Result<Option<Arc<dyn Upscale>>> {
    use anyhow::Context as _;
    if !folder.exists() {
        tracing::info!(folder = %folder.display(), "no upscaler; larger pictures than are drawn are refused");
        return Ok(None);
    }
    let model = Upscaler::load(folder, placement);
    let model = model.with_context(|| format!("failed to load the upscaler of {}", folder.display()))?;
    Ok(Some(Arc::new(model)))
}

#[cfg(not(feature = "torch"))]
#[expect(clippy::unused_async, reason = "same shape as the one that computes")]
async fn start_torch(_: &BackendFlags, _: &PodFlags) -> anyhow::Result<Pod> {
    anyhow::bail!("this binary was built without libtorch; build it with --features torch, or say --pipeline fake")
}
