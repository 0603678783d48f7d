//! The engine port's certificates: read from a mounted Secret, replaced while serving.
//! Owns the TLS configuration; does not know what a caller may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

/// What new connections use.
pub(super) type Current = Arc<ArcSwap<ServerConfig>>;

pub(super) struct Certificates {
    folder: PathBuf,
    files: Files,
    current: Current,
}

/// The bytes, by which a change is seen: a Secret's files change by a link, and not always their times.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

impl Certificates {
    pub(super) fn load(folder: &Path) -> anyhow::Result<Self> {
        let files = Files::read(folder)?;
        let served =
            files.served().with_context(|| format!("failed to use the certificates in {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), files, current: Arc::new(ArcSwap::from_pointee(served)) })
    }

    pub(super) fn current(&self) -> Current {
        self.current.clone()
    }

    /// Looks at the files again and again. Files that can't be used leave the present ones in force.
    pub(super) async fn watch(mut self, every: Duration, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(every) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        // Three small files in memory: not worth a thread.
        let files = match Files::read(&self.folder) {
            Ok(files) if files == self.files => return,
            Ok(files) => files,
            Err(error) => return tracing::error!(error = format!("{error:#}"), "certificates kept"),
        };
        match files.served() {
            Ok(served) => {
                self.current.store(Arc::new(served));
                tracing::info!(folder = %self.folder.display(), "certificates replaced");
            }
            // A rotation writes one file after the other; the next look sees them all.
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "new certificates can't be used, old ones kept");
            }
        }
        self.files = files;
    }
}

impl Files {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))
        };
        Ok(Self { certificate: read("tls.crt")?, key: read("tls.key")?, authority: read("ca.crt")? })
    }

    /// A client certificate of the authority is required: without one the handshake fails. A configuration that
    /// replaces another knows none of its sessions, so that no caller of a retired authority resumes one.
    fn served(&self) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authority).context("failed to read ca.crt")? {
            roots.add(authority).context("failed to trust ca.crt")?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .context("failed to trust ca.crt")?;
        let chain = certificates(&self.certificate).context("failed to read tls.crt")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("failed to read tls.key")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .context("failed to pair tls.crt with tls.key")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!certificates.is_empty(), "no certificate in it");
    Ok(certificates)
}
