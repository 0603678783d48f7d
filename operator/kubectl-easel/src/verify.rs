//! `verify`: a pod's verdict on a signature, before a pod gives it. Knows what is verified, not how.

use anyhow::bail;
use easel_checkpoints::digest::Digest;
use easel_checkpoints::signature;

use crate::args::Verify;
use crate::reference::Checkpoint;
use crate::{NotTrusted, credentials, digest, keys, push};

pub(crate) async fn run(Verify { checkpoint, key, signature, registry, output }: Verify) -> anyhow::Result<()> {
    let keys = keys::trusted(&key)?;
    let digest: Digest = match checkpoint {
        Checkpoint::Folder(folder) => {
            let digest = digest::of(&folder)?;
            signature::verify_detached(&keys, &digest, signature.as_deref()).map_err(NotTrusted)?;
            digest
        }
        Checkpoint::Artifact(_) if signature.is_some() => {
            bail!("--signature is for folders; the signatures of an artifact lie beside it in the registry")
        }
        Checkpoint::Artifact(artifact) => {
            let auth = credentials::find(&registry, &artifact.registry)?;
            let (client, reference) = (push::client(&registry)?, artifact.reference());
            let found = signature::fetch(&client, &auth, &reference, &artifact.digest).await?;
            signature::verify(&keys, &artifact.digest, &found).map_err(NotTrusted)?;
            artifact.digest
        }
    };
    if output.json() {
        println!("{}", serde_json::json!({ "digest": digest.to_string(), "trusted": true }));
    } else {
        println!("{digest} is signed with a trusted key");
    }
    Ok(())
}
