//! Keys in files: makes a pair, reads one half. Knows files; never prints a private key.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use easel_checkpoints::signature::{KeyPair, PublicKey, SigningKey, public_keys};

use crate::args::GenerateKeyPair;

pub(crate) fn run(GenerateKeyPair { name }: &GenerateKeyPair) -> anyhow::Result<()> {
    let with = |extension: &str| {
        let mut path = name.clone().into_os_string();
        path.push(extension);
        path
    };
    let (key, public) = (with(".key"), with(".pub"));
    if Path::new(&public).exists() {
        anyhow::bail!("'{}' exists and is not overwritten; choose another --name", Path::new(&public).display());
    }
    let pair = KeyPair::generate()?;
    write(Path::new(&key), 0o600, &pair.private.0)?;
    write(Path::new(&public), 0o644, &pair.public)?;
    eprintln!(
        "wrote the private key {}, readable by you only and not encrypted: keep it where secrets are kept",
        Path::new(&key).display()
    );
    eprintln!("wrote the public key {}, for spec.verification.publicKeys of GpuPools", Path::new(&public).display());
    Ok(())
}

pub(crate) fn signing(path: &Path) -> anyhow::Result<SigningKey> {
    let text = read(path)?;
    SigningKey::from_pem(&text).with_context(|| format!("failed to sign with '{}'", path.display()))
}

pub(crate) fn trusted(path: &Path) -> anyhow::Result<Vec<PublicKey>> {
    public_keys(&read(path)?).with_context(|| format!("failed to verify with '{}'", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the key '{}'; make one with generate-key-pair", path.display()))
}

fn write(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("failed to write '{}'; a key that is there is not overwritten", path.display()))
}
