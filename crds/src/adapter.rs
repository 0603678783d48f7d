//! An adapter (`LoRA`) of a model, as users name it beside the checkpoint.
//! Says where it is and what it is called; what it changes is in its file.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Checkpoint, SecretRef};

/// A `LoRA` that requests may name: a folder with one safetensors file, in the layout of PEFT, diffusers or kohya.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.uri.matches('^(file:///|(oci|s3)://[^/])')").message("the uri of an adapter must start with oci:// (REGISTRY/REPOSITORY), s3:// (BUCKET/PREFIX) or file:/// (a folder of the inference image)"),
    validation = Rule::new("!self.uri.startsWith('oci://') || self.uri.matches('^oci://[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$')").message("an oci uri is REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], such as oci://registry.example/adapters/ink@sha256:…"),
    validation = Rule::new("!self.uri.startsWith('s3://') || self.uri.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?$')").message("an s3 uri is s3://BUCKET/PREFIX"),
    validation = Rule::new("!self.uri.matches('(/|^)[.][.]?(/|$)')").message("uri must not contain . or .. as a folder"),
    validation = Rule::new("has(self.digest) != (self.uri.startsWith('oci://') && self.uri.contains('@sha256:'))").message("an adapter must be pinned once: in digest, or as @sha256:… in an oci uri"),
    validation = Rule::new("!has(self.secretRef) || !self.uri.startsWith('file://')").message("secretRef is for oci:// and s3:// adapters, which the pod fetches itself"),
    validation = Rule::new("(!has(self.endpoint) && !has(self.region)) || self.uri.startsWith('s3://')").message("endpoint and region are for s3:// adapters"),
    validation = Rule::new("!(has(self.plainHttp) && self.plainHttp) || self.uri.startsWith('oci://')").message("plainHttp is for oci:// adapters; write http:// in the endpoint of an s3:// one"),
    validation = Rule::new("!has(self.signature) || !self.uri.startsWith('oci://')").message("the signatures of an oci:// adapter lie beside it in the registry; push them there"),
)]
pub struct Adapter {
    /// What requests call it.
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(min = 1, max = 63))]
    pub name: String,
    /// Where it is: `oci://REGISTRY/REPOSITORY[:TAG]@sha256:DIGEST`, `s3://BUCKET/PREFIX`, or `file:///models/NAME` in the
    /// inference image.
    #[schemars(length(min = 1, max = 512))]
    pub uri: String,
    /// As of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub digest: Option<String>,
    /// A Secret in the model's namespace, with the keys that a checkpoint's has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Base URL of an S3-compatible server. Left out: AWS of the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^https?://[^/@?#]+(/[^?#]*)?$"), length(max = 512))]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub region: Option<String>,
    /// Talk to the registry without TLS; for development.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
    /// Base64 of a signature over the text of `digest`, for pools that demand one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub signature: Option<String>,
}

impl Adapter {
    /// The same bytes as a checkpoint's are named.
    pub fn checkpoint(&self) -> Checkpoint {
        let Self { name: _, uri, digest, secret_ref, endpoint, region, plain_http, signature } = self.clone();
        Checkpoint { uri, digest, resolve_tag: false, secret_ref, endpoint, region, plain_http, signature }
    }
}
