//! Fetches one checkpoint into a cache and prints how long it took: `fetch CACHE SOURCE DIGEST`, where SOURCE is
//! `http://REGISTRY/REPOSITORY`, `https://REGISTRY/REPOSITORY` or `s3://BUCKET/PREFIX` (with ENDPOINT in the environment).

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use easel_api::engine::{Access, Checkpoint, Secret, Source};
use easel_checkpoints::{Effort, Fetcher, Progress, Settings, Timeouts};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let [cache, source, digest] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| {
        anyhow::anyhow!(
            "usage: fetch CACHE SOURCE DIGEST; ACCESS_KEY_ID and SECRET_ACCESS_KEY, or USERNAME and PASSWORD"
        )
    })?;
    rustls::crypto::ring::default_provider().install_default().ok();
    let checkpoint = Checkpoint { source: parse(&source)?, digest, signature: None };
    let fetcher = Fetcher::new(Settings {
        cache_dir: cache.into(),
        cache_bytes: None,
        keys: Vec::new(),
        effort: Effort::default(),
        timeouts: Timeouts::default(),
    });
    let started = Instant::now();
    let held = fetcher.fetch(&checkpoint, access().as_ref(), &Arc::new(Progress::default())).await?;
    let (seconds, bytes) = (started.elapsed().as_secs_f64(), held.verified.total_bytes);
    let rate = bytes as f64 / seconds / 1e6;
    println!("{seconds:.3} s, {bytes} bytes, {rate:.0} MB/s, hit: {}, at {}", held.receipt.hit, held.folder.display());
    Ok(())
}

fn parse(source: &str) -> anyhow::Result<Source> {
    let (scheme, rest) = source.split_once("://").context("the source has no scheme")?;
    let (first, second) = rest.split_once('/').context("the source has no path")?;
    match scheme {
        "http" | "https" => {
            let (registry, repository) = (first.to_owned(), second.to_owned());
            Ok(Source::Oci { registry, repository, plain_http: scheme == "http" })
        }
        "s3" => {
            let (bucket, prefix, endpoint) = (first.to_owned(), second.to_owned(), std::env::var("ENDPOINT").ok());
            Ok(Source::S3 { bucket, prefix, endpoint, region: None })
        }
        other => anyhow::bail!("unknown scheme {other}"),
    }
}

fn access() -> Option<Access> {
    let read = |name| std::env::var(name).ok();
    if let (Some(access_key_id), Some(secret)) = (read("ACCESS_KEY_ID"), read("SECRET_ACCESS_KEY")) {
        return Some(Access::S3 { access_key_id, secret_access_key: Secret(secret), session_token: None, ca: None });
    }
    let password = Secret(read("PASSWORD")?);
    Some(Access::Registry { username: read("USERNAME")?, password, ca: None })
}
