//! Signed statements of where a picture comes from, as C2PA has them.
//! Knows finished files as bytes; does not know what is drawn, nor what else their metadata says.

#[cfg(feature = "c2pa")]
mod credentials;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use easel_api::images::OutputFormat;

/// Signs files. Called by any thread, after the file is written.
pub trait Seal: std::fmt::Debug + Send + Sync + 'static {
    /// The file with a statement in it that binds its pixels.
    fn seal(&self, file: Vec<u8>, format: OutputFormat) -> Result<Vec<u8>, SealError>;
}

#[derive(Debug, thiserror::Error)]
#[error("failed to sign the picture")]
pub struct SealError(#[source] Box<dyn std::error::Error + Send + Sync>);

#[derive(Args, Clone, Debug)]
pub struct SealFlags {
    /// PEM file of the certificate that pictures are signed with by C2PA, and of those that lead to its authority
    #[arg(long, env = "EASEL_C2PA_CERTIFICATE", requires = "c2pa_key")]
    pub c2pa_certificate: Option<PathBuf>,
    /// PEM file (PKCS #8) of that certificate's key: P-256
    #[arg(long, env = "EASEL_C2PA_KEY", requires = "c2pa_certificate")]
    pub c2pa_key: Option<PathBuf>,
}

impl SealFlags {
    /// A key that can't be used ends the start: who asked for signed pictures must not get others.
    pub fn open(&self) -> anyhow::Result<Option<Arc<dyn Seal>>> {
        let Self { c2pa_certificate, c2pa_key } = self;
        match (c2pa_certificate, c2pa_key) {
            (Some(certificate), Some(key)) => opened(certificate, key).map(Some),
            (_, _) => Ok(None),
        }
    }
}

#[cfg(feature = "c2pa")]
fn opened(certificate: &std::path::Path, key: &std::path::Path) -> anyhow::Result<Arc<dyn Seal>> {
    Ok(Arc::new(credentials::Credentials::read(certificate, key)?))
}

#[cfg(not(feature = "c2pa"))]
fn opened(_: &std::path::Path, _: &std::path::Path) -> anyhow::Result<Arc<dyn Seal>> {
    anyhow::bail!("this binary was built without C2PA; build it with --features c2pa, or leave --c2pa-certificate out")
}
