//! A checkpoint, a server that has it both ways, and fetchers with caches.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use easel_api::engine::{Access, Checkpoint, RefusalReason, Secret, Source};
use easel_checkpoints::digest::{Digest, Listing};
use easel_checkpoints::{Effort, Fetcher, Held, Progress, Refusal, Settings, Timeouts};
use serde_json::json;

use crate::server::Server;

pub(crate) const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
/// Several ranges of the tests' effort, and a rest.
pub(crate) const WEIGHT_BYTES: usize = 123_456;

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
}

/// Path and bytes of every file.
pub(crate) fn files(seed: u8) -> Vec<(String, Vec<u8>)> {
    let weights = (0..WEIGHT_BYTES).map(|i| (i * 31 % 251) as u8 ^ seed).collect();
    vec![
        ("model_index.json".into(), b"{}".to_vec()),
        (WEIGHTS.into(), weights),
        ("tokenizer/merges.txt".into(), Vec::new()),
        ("vae/diffusion_pytorch_model.safetensors".into(), vec![7; 20_000]),
    ]
}

impl World {
    pub(crate) async fn new() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok(); // another test has
        Self { server: Server::start().await, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        self.fetcher_with(None)
    }

    pub(crate) fn fetcher_with(&self, cache_bytes: Option<u64>) -> Fetcher {
        let effort = Effort { range_bytes: 10_000, ranges_per_file: 4, tries: 3, pause: Duration::from_millis(5) };
        let timeouts = Timeouts { connect: Duration::from_secs(2), silence: Duration::from_millis(400) };
        Fetcher::new(Settings { cache_dir: self.cache(), cache_bytes, keys: Vec::new(), effort, timeouts })
    }

    pub(crate) fn cache(&self) -> std::path::PathBuf {
        self.folder.path().join("cache")
    }

    /// As `oras push` writes it.
    pub(crate) fn push(&self, files: &[(String, Vec<u8>)]) -> Checkpoint {
        let layers: Vec<_> = files
            .iter()
            .map(|(path, bytes)| {
                let digest = Digest::of(bytes).to_string();
                self.server.put(&digest, bytes.clone());
                json!({
                    "mediaType": "application/octet-stream",
                    "digest": digest,
                    "size": bytes.len(),
                    "annotations": {"org.opencontainers.image.title": path},
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}").to_string(), "size": 2},
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest).to_string();
        self.server.put_manifest(&digest, manifest);
        let source =
            Source::Oci { registry: self.server.address.to_string(), repository: "model".into(), plain_http: true };
        Checkpoint { source, digest, signature: None }
    }

    pub(crate) fn upload(&self, files: &[(String, Vec<u8>)]) -> Checkpoint {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            self.server.put(&format!("models/x/{path}"), bytes.clone());
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let digest = Listing::read(folder.path()).unwrap().digest(|_, _| true).unwrap().unwrap().to_string();
        let endpoint = Some(format!("http://{}", self.server.address));
        let source = Source::S3 { bucket: "bucket".into(), prefix: "models/x".into(), endpoint, region: None };
        Checkpoint { source, digest, signature: None }
    }
}

pub(crate) fn registry_access(password: &str) -> Access {
    Access::Registry { username: "u".into(), password: Secret(password.into()), ca: None }
}

pub(crate) async fn fetch(fetcher: &Fetcher, checkpoint: &Checkpoint) -> Result<Held, Refusal> {
    fetcher.fetch(checkpoint, None, &Arc::new(Progress::default())).await
}

pub(crate) async fn refusal(fetcher: &Fetcher, checkpoint: &Checkpoint) -> RefusalReason {
    fetch(fetcher, checkpoint).await.expect_err("was fetched").reason
}

pub(crate) fn assert_holds(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (path, bytes) in files {
        assert!(std::fs::read(folder.join(path)).unwrap() == *bytes, "{path}");
    }
    assert_eq!(Listing::read(folder).unwrap().files().count(), files.len());
}
