//! `sign`: a signature beside an artifact, or over a folder's digest. Knows what is signed, not how.

use anyhow::Context;
use easel_checkpoints::signature;

use crate::args::{self, Sign};
use crate::reference::{Artifact, Checkpoint};
use crate::{credentials, digest, keys, push};

pub(crate) async fn run(Sign { checkpoint, key, registry, output }: Sign) -> anyhow::Result<()> {
    let key = keys::signing(&key)?;
    match checkpoint {
        Checkpoint::Folder(folder) => {
            let digest = digest::of(&folder)?;
            let signature = signature::sign_detached(&key, &digest);
            if output.json() {
                println!("{}", serde_json::json!({ "digest": digest.to_string(), "signature": signature }));
            } else {
                eprintln!("signed {digest}");
                println!("{signature}");
            }
        }
        Checkpoint::Artifact(artifact) => {
            let signed = beside(&registry, &artifact, &key).await?;
            if output.json() {
                println!("{}", serde_json::json!({ "uri": artifact.to_string(), "alreadySigned": !signed }));
            } else {
                eprintln!("{}", if signed { "signed" } else { "was signed with this key already" });
                println!("{artifact}");
            }
        }
    }
    Ok(())
}

/// Says whether there was anything to do.
async fn beside(flags: &args::Registry, artifact: &Artifact, key: &signature::SigningKey) -> anyhow::Result<bool> {
    let auth = credentials::find(flags, &artifact.registry)?;
    let (client, reference) = (push::client(flags)?, artifact.reference());
    let there = client.fetch_manifest_digest(&reference, &auth).await;
    there.with_context(|| format!("failed to find {artifact}; push it first, and check the credential"))?;
    Ok(signature::push(&client, &auth, &reference, &artifact.digest, key).await?)
}
