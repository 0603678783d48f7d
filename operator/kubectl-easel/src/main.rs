//! `kubectl easel`: what people do with checkpoints and fleets, from their own machine.
//! Parses flags, runs one command, says how it ended; what a checkpoint is, is known by
//! `easel-checkpoints`, and what a fleet does by `easel-planner`.

mod args;
mod credentials;
mod digest;
mod keys;
mod manifest;
mod output;
mod progress;
mod pull;
mod push;
mod reference;
mod sign;
mod simulate;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, Flags};

/// `verify` came to a verdict, and it is no.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct NotTrusted(#[from] easel_checkpoints::signature::Untrusted);

fn main() -> ExitCode {
    let flags = Flags::parse();
    rustls::crypto::ring::default_provider().install_default().ok(); // fails only when one is installed already
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<NotTrusted>() { 3 } else { 1 })
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let Flags { command } = flags;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Push(flags) => runtime.block_on(push::run(flags)),
        Command::Pull(flags) => runtime.block_on(pull::run(flags)),
        Command::Digest(flags) => digest::run(&flags),
        Command::Sign(flags) => runtime.block_on(sign::run(flags)),
        Command::Verify(flags) => runtime.block_on(verify::run(flags)),
        Command::GenerateKeyPair(flags) => keys::run(&flags),
        Command::Simulate(flags) => simulate::run(&flags),
    }
}
