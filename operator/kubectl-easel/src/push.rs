//! `push`: checks a folder, hashes it, sends it, signs it, and says what to write into an ImageModel.
//! Knows the order of the steps and their times; what each is, is known by `easel-checkpoints`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use easel_checkpoints::push::{Event, Folder, Hashed, Patience, Pushed, push};
use easel_checkpoints::signature::{self, SigningKey};
use oci_client::Client;
use oci_client::secrets::RegistryAuth;

use crate::args::{self, Push};
use crate::manifest::{self, Model};
use crate::progress::Bar;
use crate::reference::{Artifact, Target};
use crate::{credentials, keys, output};

/// How long each step took.
#[derive(Default)]
struct Times {
    check: Duration,
    hash: Duration,
    push: Duration,
    sign: Option<Duration>,
}

/// What a push came to.
struct Outcome {
    artifact: Artifact,
    files: usize,
    weight_bytes: u64,
    pushed: Pushed,
    times: Times,
    side: Option<u64>,
    plain_http: bool,
}

pub(crate) async fn run(Push { dir, target, sign, manifest, registry, output }: Push) -> anyhow::Result<()> {
    // What can be wrong before a byte is read is said before.
    let key = sign.as_deref().map(keys::signing).transpose()?;
    let auth = credentials::find(&registry, &target.registry)?;
    let client = client(&registry)?;
    let mut times = Times::default();
    let hashed = read(&dir, &mut times).await?;
    let pushed = send(&client, &auth, &target, &hashed, &mut times).await?;
    let artifact = target.pinned(pushed.digest);
    if let Some(key) = &key {
        times.sign = Some(add_signature(&client, &auth, &artifact, key).await?);
    }
    let weights = hashed.files().iter().filter(|file| file.path.ends_with(".safetensors"));
    let outcome = Outcome {
        artifact,
        files: hashed.files().len(),
        weight_bytes: weights.map(|file| file.size).sum(),
        pushed,
        times,
        side: manifest::side(&dir),
        plain_http: registry.plain_http,
    };
    print(&outcome, manifest.as_deref(), output.json());
    if auth != RegistryAuth::Anonymous {
        eprintln!(
            "pods need a credential of their own: kubectl create secret docker-registry NAME --docker-server={} …, and \
             spec.checkpoint.secretRef: {{name: NAME}}",
            target.registry
        );
    }
    Ok(())
}

pub(crate) fn client(
    args::Registry { plain_http, ca, username: _, password_stdin: _ }: &args::Registry,
) -> anyhow::Result<Client> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("failed to read the authority '{}'", path.display()))
    };
    let ca = ca.as_ref().map(read).transpose()?;
    easel_checkpoints::push::client(*plain_http, ca.as_deref())
        .context("failed to set up TLS; --ca takes the certificate of an authority in PEM")
}

async fn read(dir: &Path, times: &mut Times) -> anyhow::Result<Hashed> {
    let started = Instant::now();
    let failed = || format!("failed to push '{}'", dir.display());
    let folder = Folder::check(dir).with_context(failed)?;
    times.check = started.elapsed();
    let (files, bytes) = (folder.file_count(), folder.total_bytes());
    eprintln!("checked {}, {} in {}", output::files(files), output::bytes(bytes), output::seconds(times.check));
    let bar = Bar::new("hashing", bytes);
    let started = Instant::now();
    let hashing = tokio::task::spawn_blocking(move || {
        let hashed = folder.hash(|done, _| {
            bar.set(done);
            true
        });
        bar.finish();
        hashed
    });
    let hashed = hashing.await?.with_context(failed)?.context("hashing was stopped")?;
    times.hash = started.elapsed();
    eprintln!("hashed in {}: {}", output::seconds(times.hash), hashed.digest());
    Ok(hashed)
}

async fn send(
    client: &Client,
    auth: &RegistryAuth,
    target: &Target,
    hashed: &Hashed,
    times: &mut Times,
) -> anyhow::Result<Pushed> {
    let mut seen = BTreeSet::new();
    let distinct = hashed.files().iter().filter(|file| seen.insert(file.digest));
    let bar = Bar::new("pushing", distinct.map(|file| file.size).sum());
    let shown = bar.clone();
    let progress = Arc::new(move |event: Event| shown.pushed(event));
    let started = Instant::now();
    let reference = target.reference(&hashed.digest());
    let pushed = push(client, auth, &reference, hashed, Patience::default(), &(progress as _)).await;
    bar.finish();
    let pushed = pushed?;
    times.push = started.elapsed();
    let rate = pushed.sent_bytes as f64 / times.push.as_secs_f64().max(0.001);
    let rate = if pushed.sent_bytes == 0 { String::new() } else { format!(", {}/s", output::bytes(rate as u64)) };
    eprintln!(
        "pushed {} ({} were there already) in {}{rate}",
        output::bytes(pushed.sent_bytes),
        output::bytes(pushed.present_bytes),
        output::seconds(times.push)
    );
    Ok(pushed)
}

async fn add_signature(
    client: &Client,
    auth: &RegistryAuth,
    artifact: &Artifact,
    key: &SigningKey,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let failed = || format!("pushed {artifact} and failed to sign it; sign it with `kubectl easel sign`");
    signature::push(client, auth, &artifact.reference(), &artifact.digest, key).await.with_context(failed)?;
    eprintln!("signed in {}", output::seconds(started.elapsed()));
    Ok(started.elapsed())
}

fn print(outcome: &Outcome, name: Option<&str>, json: bool) {
    let Outcome { artifact, files: _, weight_bytes, pushed: _, times: _, side, plain_http } = outcome;
    let model = |name| {
        let (weight_bytes, side, plain_http) = (*weight_bytes, *side, *plain_http);
        manifest::yaml(&Model { name, artifact, plain_http, weight_bytes, side })
    };
    match name {
        Some(name) => {
            eprintln!("{artifact}");
            print!("{}", model(name));
        }
        None if json => println!("{}", to_json(outcome)),
        None => {
            println!("{artifact}");
            eprint!("serve it with:\n---\n{}", model("NAME"));
        }
    }
}

fn to_json(
    Outcome { artifact, files, weight_bytes, pushed, times, side: _, plain_http: _ }: &Outcome,
) -> serde_json::Value {
    let Pushed { digest, sent_bytes, present_bytes } = pushed;
    let Times { check, hash, push, sign } = times;
    serde_json::json!({
        "uri": artifact.to_string(),
        "digest": digest.to_string(),
        "files": files,
        "weightBytes": weight_bytes,
        "sentBytes": sent_bytes,
        "presentBytes": present_bytes,
        "seconds": {
            "check": check.as_secs_f64(),
            "hash": hash.as_secs_f64(),
            "push": push.as_secs_f64(),
            "sign": sign.map(|time| time.as_secs_f64()),
        },
    })
}
