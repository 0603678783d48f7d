//! Flags of the cache and of signatures. What they are for is in `easel-checkpoints`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use easel_checkpoints::signature::public_keys;
use easel_checkpoints::{Effort, Fetcher, Settings, Timeouts};

#[derive(Args, Clone, Debug)]
pub struct CheckpointFlags {
    /// Folder for checkpoints that come from a registry or a bucket; pods of one node may share it
    #[arg(long, env = "EASEL_CACHE_DIR", default_value = "/var/cache/easel")]
    pub cache_dir: PathBuf,
    /// Bytes that the cache may hold; what was not used for the longest time leaves first. 0: as much as the disk holds
    #[arg(long, env = "EASEL_CACHE_BYTES", default_value_t = 0)]
    pub cache_bytes: u64,
    /// Public keys in PEM, one of which must have signed a checkpoint; empty: none is demanded
    #[arg(long, env = "EASEL_VERIFICATION_KEYS", default_value = "", hide_env_values = true)]
    pub verification_keys: String,
}

impl CheckpointFlags {
    pub fn fetcher(&self) -> anyhow::Result<Fetcher> {
        let Self { cache_dir, cache_bytes, verification_keys } = self;
        // A key that can't be read must not become a pod that demands none.
        let keys = match verification_keys.trim() {
            "" => Vec::new(),
            text => public_keys(text).context("failed to read --verification-keys")?,
        };
        Ok(Fetcher::new(Settings {
            cache_dir: cache_dir.clone(),
            cache_bytes: (*cache_bytes > 0).then_some(*cache_bytes),
            keys,
            effort: Effort::default(),
            timeouts: Timeouts::default(),
        }))
    }
}
