//! `pull`: an artifact's files in a folder, fetched and proved as a pod does it.
//! Knows where they come to lie; how they come is known by `easel-checkpoints`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use easel_api::engine::{Access, Checkpoint, Secret, Source};
use easel_checkpoints::{Effort, Fetcher, Progress, Settings, Stage, Timeouts};
use oci_client::secrets::RegistryAuth;

use crate::args::{self, Pull};
use crate::progress::Bar;
use crate::reference::Artifact;
use crate::{credentials, keys, output};

pub(crate) async fn run(Pull { artifact, dir, key, registry }: Pull) -> anyhow::Result<()> {
    let keys = key.as_deref().map(keys::trusted).transpose()?.unwrap_or_default();
    let access = access(&registry, &artifact)?;
    let partial = partial(&dir)?;
    let settings = Settings {
        cache_dir: partial.clone(),
        cache_bytes: None,
        keys,
        effort: Effort::default(),
        timeouts: Timeouts::default(),
    };
    let started = Instant::now();
    let held = fetch(&Fetcher::new(settings), &checkpoint(&artifact, registry.plain_http), access.as_ref()).await;
    let held = held.with_context(|| format!("failed to pull {artifact}{}", what_stays(&partial)))?;
    let moved = std::fs::rename(&held.folder, &dir);
    moved.with_context(|| format!("failed to move '{}' to '{}'", held.folder.display(), dir.display()))?;
    let bytes = held.verified.total_bytes;
    drop(held);
    std::fs::remove_dir_all(&partial).with_context(|| format!("failed to remove '{}'", partial.display()))?;
    let rate = output::bytes((bytes as f64 / started.elapsed().as_secs_f64().max(0.001)) as u64);
    eprintln!("pulled and verified {} in {}, {rate}/s", output::bytes(bytes), output::seconds(started.elapsed()));
    println!("{}", dir.display());
    Ok(())
}

fn checkpoint(Artifact { registry, repository, digest }: &Artifact, plain_http: bool) -> Checkpoint {
    let (registry, repository) = (registry.clone(), repository.clone());
    Checkpoint { source: Source::Oci { registry, repository, plain_http }, digest: digest.to_string(), signature: None }
}

fn access(flags: &args::Registry, artifact: &Artifact) -> anyhow::Result<Option<Access>> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("failed to read the authority '{}'", path.display()))
    };
    let ca = flags.ca.as_ref().map(read).transpose()?;
    match credentials::find(flags, &artifact.registry)? {
        RegistryAuth::Anonymous => Ok(ca.map(|ca| Access::Authority { ca })),
        RegistryAuth::Basic(username, password) => {
            Ok(Some(Access::Registry { username, password: Secret(password), ca }))
        }
        RegistryAuth::Bearer(_) => {
            bail!("a registry token can't pull; give --username and --password-stdin")
        }
    }
}

/// Beside the folder, so that the last step is a rename; hidden, because it is nobody's checkpoint.
fn partial(dir: &Path) -> anyhow::Result<PathBuf> {
    if dir.exists() {
        bail!("'{}' exists and is not overwritten; name a folder that does not", dir.display());
    }
    let name = dir.file_name().with_context(|| format!("'{}' is not the name of a folder", dir.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".partial");
    Ok(dir.with_file_name(hidden))
}

fn what_stays(partial: &Path) -> String {
    if partial.exists() {
        return format!("; what came stays in '{}', and the next pull goes on with it", partial.display());
    }
    String::new()
}

async fn fetch(
    fetcher: &Fetcher,
    checkpoint: &Checkpoint,
    access: Option<&Access>,
) -> Result<easel_checkpoints::Held, easel_checkpoints::Refusal> {
    let progress = Arc::new(Progress::default());
    let fetching = fetcher.fetch(checkpoint, access, &progress);
    tokio::pin!(fetching);
    let mut bar = None;
    loop {
        let held = tokio::time::timeout(Duration::from_millis(100), &mut fetching).await;
        if let Ok(held) = held {
            if let Some(bar) = bar {
                Bar::finish(bar);
            }
            return held;
        }
        match progress.stage() {
            Stage::Asking => {}
            Stage::Fetching { done_bytes, total_bytes } | Stage::Verifying { done_bytes, total_bytes } => {
                bar.get_or_insert_with(|| Bar::new("pulling", total_bytes)).set(done_bytes);
            }
        }
    }
}
