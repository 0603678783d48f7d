//! Signatures in cosign's formats, made and verified with `ring`.
//! The `sigstore` crate builds only on OpenSSL or aws-lc, which this project does not carry (deny.toml); what is needed of
//! it, an ECDSA signature over a few bytes of JSON, is in `ring`.
