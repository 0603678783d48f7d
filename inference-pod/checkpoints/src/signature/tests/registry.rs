use oci_client::Reference;
use oci_client::secrets::RegistryAuth;

use super::*;
use crate::push::client;
use crate::push::tests::registry::FakeRegistry;

const TAG: &str = "sha256-b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c.sig";

fn artifact(host: &str) -> Reference {
    Reference::with_digest(host.into(), "models/emoji".into(), DIGEST.into())
}

#[tokio::test]
async fn a_pushed_signature_lies_where_cosign_looks_and_is_fetched_back() {
    let (registry, host) = FakeRegistry::start().await;
    let (client, artifact, anonymous) = (client(true, None).unwrap(), artifact(&host), RegistryAuth::Anonymous);
    assert_eq!(fetch(&client, &anonymous, &artifact, &digest()).await.unwrap(), []);

    let mine = SigningKey::from_pem(P256_PRIVATE).unwrap();
    assert!(push(&client, &anonymous, &artifact, &digest(), &mine).await.unwrap());
    assert!(!push(&client, &anonymous, &artifact, &digest(), &mine).await.unwrap(), "signed already");
    let theirs = SigningKey::from_pem(&KeyPair::generate().unwrap().private.0).unwrap();
    assert!(push(&client, &anonymous, &artifact, &digest(), &theirs).await.unwrap());

    let found = fetch(&client, &anonymous, &artifact, &digest()).await.unwrap();
    assert_eq!(found.len(), 2);
    for key in [mine, theirs] {
        assert_eq!(verify(&[key.public_key()], &digest(), &found), Ok(()));
    }
    let manifest: serde_json::Value = serde_json::from_slice(&registry.manifest(TAG).unwrap()).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    assert!(manifest["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"].is_string());
    let config = registry.blob(&manifest["config"]["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][1], manifest["layers"][1]["digest"]);
}

#[tokio::test]
async fn signatures_that_cannot_be_read_are_not_taken_for_none() {
    let (registry, host) = FakeRegistry::start().await;
    let (client, artifact) = (client(true, None).unwrap(), artifact(&host));
    let layer = r#"{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:0","size":1}"#;
    let config = r#"{"mediaType":"x","digest":"x","size":0}"#;
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
    for bytes in ["{", "{}", &manifest, &manifest.replace(r#""size":1"#, r#""size":99999999"#)] {
        registry.put_manifest(TAG, bytes.as_bytes());
        let error = fetch(&client, &RegistryAuth::Anonymous, &artifact, &digest()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("sign again"), "{error}");
    }
}
