//! Flags and their help. Knows no more of a command than what it is asked.

#![expect(clippy::doc_markdown, reason = "these comments are printed on terminals, which read no markdown")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::reference::{Artifact, Checkpoint, Target};
use crate::simulate::Simulate;

/// Pushes, signs and verifies checkpoints for Easel, and simulates fleets.
///
/// No command talks to a cluster: they work on folders, files and OCI registries. The exit code is 0 when the command did
/// what it was asked, 1 when it failed, 2 when its flags are wrong, and 3 when `verify` says that a checkpoint is not
/// to be trusted.
#[derive(Debug, Parser)]
#[command(name = "kubectl-easel", bin_name = "kubectl easel", version)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Push(Push),
    Pull(Pull),
    Digest(Digest),
    Sign(Sign),
    Verify(Verify),
    GenerateKeyPair(GenerateKeyPair),
    Simulate(Simulate),
}

/// Pushes a folder in the diffusers layout to an OCI registry.
///
/// The folder is checked first as a pod will check it: model_index.json, safetensors only, no links. Files that the
/// registry has are not sent again. The reference with the digest is printed on stdout, for the checkpoint of an
/// ImageModel. The same folder has the same digest in every registry.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl easel push ./sdxl-ours oci://registry.example/models/sdxl-ours:v3
  kubectl easel push ./sdxl-ours oci://registry.example/models/sdxl-ours:v3 --sign easel.key
  kubectl easel push ./emoji oci://localhost:5000/emoji --plain-http --manifest emoji | kubectl apply -f -")]
pub(crate) struct Push {
    /// The folder, as save_pretrained() wrote it.
    pub(crate) dir: PathBuf,
    /// Where to: oci://REGISTRY/REPOSITORY[:TAG]. Without a tag the artifact has no name but its digest.
    pub(crate) target: Target,
    /// Sign the artifact with this private key, as `kubectl easel sign` does.
    #[arg(long, value_name = "KEY")]
    pub(crate) sign: Option<PathBuf>,
    /// Print an ImageModel of this name on stdout instead of the reference, ready for `kubectl apply -f -`.
    #[arg(long, value_name = "NAME", value_parser = crate::manifest::name, conflicts_with = "output")]
    pub(crate) manifest: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// Pulls an artifact into a new folder, and verifies every byte.
///
/// It comes as a pod fetches it: several ranges at once, hashed on the way, refused by name when it is not what its
/// digest says or holds a pickle. One that broke off goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl easel pull oci://registry.example/models/sdxl-ours@sha256:… ./sdxl-ours --key easel.pub")]
pub(crate) struct Pull {
    /// oci://REGISTRY/REPOSITORY@sha256:DIGEST as `push` prints it.
    pub(crate) artifact: Artifact,
    /// The folder; it must not exist.
    pub(crate) dir: PathBuf,
    /// Demand a signature by one of the public keys in this file.
    #[arg(long)]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// Prints the digest of a folder, for a checkpoint that is not in an OCI registry.
///
/// It is the SHA-256 of the folder's `sha256sum` listing, the same as of this line of shell:
/// cd DIR && find * -type f | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl easel digest ./emoji")]
pub(crate) struct Digest {
    /// The folder.
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Signs a checkpoint, for pools that demand a signature.
///
/// The signature of an artifact in a registry is pushed beside it, where cosign puts it. The signature of a folder is
/// printed on stdout, for spec.checkpoint.signature of an ImageModel; it is over the text of the folder's digest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl easel sign oci://registry.example/models/sdxl-ours@sha256:… --key easel.key
  kubectl easel sign ./emoji --key easel.key")]
pub(crate) struct Sign {
    /// A folder, or oci://REGISTRY/REPOSITORY@sha256:DIGEST as `push` prints it.
    pub(crate) checkpoint: Checkpoint,
    /// The private key: ECDSA on P-256, PKCS#8 in PEM, as `generate-key-pair` writes it.
    #[arg(long)]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// Verifies the signature of a checkpoint, as a pod does.
///
/// Of an artifact in a registry the signatures are fetched, not the files: those are verified when they are pulled. Of a
/// folder every byte is read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl easel verify oci://registry.example/models/sdxl-ours@sha256:… --key easel.pub
  kubectl easel verify ./emoji --key easel.pub --signature MEUCIQ…")]
pub(crate) struct Verify {
    /// A folder, or oci://REGISTRY/REPOSITORY@sha256:DIGEST as `push` prints it.
    pub(crate) checkpoint: Checkpoint,
    /// A file with one or more public keys in PEM; a signature by any of them is enough.
    #[arg(long)]
    pub(crate) key: PathBuf,
    /// The signature of a folder, as `sign` prints it.
    #[arg(long, value_name = "BASE64")]
    pub(crate) signature: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// Writes a new pair of keys into two files.
///
/// The private key is not encrypted: keep its file where secrets are kept. The public key goes into
/// spec.verification.publicKeys of a GpuPool.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl easel generate-key-pair --name easel   # writes easel.key and easel.pub")]
pub(crate) struct GenerateKeyPair {
    /// What the files are called: NAME.key, which only you can read, and NAME.pub. Neither is overwritten.
    #[arg(long, default_value = "easel")]
    pub(crate) name: PathBuf,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct Registry {
    /// Talk to the registry without TLS; for development.
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// PEM of the authority that signed the registry's certificate, when the system does not know it.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Who to log in as. Without it the credential of `docker login` is taken, if there is one.
    #[arg(long, requires = "password_stdin")]
    pub(crate) username: Option<String>,
    /// Read the password from stdin.
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// How to print the result on stdout.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

impl Output {
    pub(crate) fn json(self) -> bool {
        let Self { output } = self;
        match output {
            Some(Format::Json) => true,
            Some(Format::Text) | None => false,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// One line for people and shells.
    Text,
    /// One JSON object.
    Json,
}

impl Checkpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") { text.parse::<Artifact>().map(Self::Artifact) } else { Ok(Self::Folder(text.into())) }
    }
}

impl std::str::FromStr for Checkpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn every_command_is_explained_with_an_example_and_every_flag_in_a_sentence() {
        let command = Flags::command();
        command.clone().debug_assert();
        for command in command.get_subcommands() {
            assert!(command.get_long_about().is_some(), "{} is not explained", command.get_name());
            assert!(command.get_after_help().is_some_and(|text| text.to_string().starts_with("Example")));
            for flag in command.get_arguments() {
                assert!(flag.get_help().is_some(), "{} of {} has no help", flag.get_id(), command.get_name());
            }
        }
    }

    #[test]
    fn a_password_is_never_a_flag() {
        let parse = |flags: &[&str]| {
            let base = ["kubectl-easel", "push", "dir", "oci://r.example/a"];
            Flags::try_parse_from(base.iter().chain(flags))
        };
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--username", "ann", "--password-stdin"]).is_ok());
        for wrong in [&["--username", "ann"][..], &["--password-stdin"], &["--password", "x"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--manifest", "emoji", "-o", "json"]).is_err(), "stdout holds one thing");
    }
}
