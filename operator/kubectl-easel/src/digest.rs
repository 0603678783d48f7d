//! `digest`: what pins a checkpoint that is in no registry. Knows folders only.

use std::path::Path;

use anyhow::Context;
use easel_checkpoints::digest::{Digest, Listing};

use crate::args;
use crate::progress::Bar;

pub(crate) fn run(args::Digest { dir, output }: &args::Digest) -> anyhow::Result<()> {
    let digest = of(dir)?;
    if output.json() {
        println!("{}", serde_json::json!({ "digest": digest.to_string() }));
    } else {
        println!("{digest}");
    }
    Ok(())
}

/// Reads every byte.
pub(crate) fn of(folder: &Path) -> anyhow::Result<Digest> {
    let failed = || format!("failed to read the folder '{}'", folder.display());
    let listing = Listing::read(folder).with_context(failed)?;
    anyhow::ensure!(listing.files().next().is_some(), "the folder '{}' holds no file", folder.display());
    let bar = Bar::new("hashing", listing.total_bytes());
    let digest = listing.digest(|done, _| {
        bar.set(done);
        true
    });
    bar.finish();
    digest.with_context(failed)?.context("hashing was stopped")
}
