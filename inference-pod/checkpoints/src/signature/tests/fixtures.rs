//! Keys and signatures that `openssl` made, and one that cosign made; see each for how.

/// What was signed: the text of a digest.
pub(super) const DIGEST: &str = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";

// openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY; openssl pkey -in KEY -pubout
// openssl dgst -sha256 -sign KEY digest | base64 -w0
pub(super) const P256_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2xs0M7BrdjMkzJMs\n\
jZm2PdvSn5KRe9Y673lsMxi8H9ahRANCAAQ28oP3wkULwOHCCEvi+KN/IMHDZ8eo\n\
tCUdisykNEWe/zLULtkjkdGtw/x9SeMDjwzNYTY5hSFNVMJoIkrwHzT/\n\
-----END PRIVATE KEY-----\n";
pub(super) const P256: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENvKD98JFC8DhwghL4vijfyDBw2fH\n\
qLQlHYrMpDRFnv8y1C7ZI5HRrcP8fUnjA48MzWE2OYUhTVTCaCJK8B80/w==\n\
-----END PUBLIC KEY-----\n";
pub(super) const P256_SIGNATURE: &str =
    "MEUCIEfQRAwjLZ4DJXHy4dNgklcLEO/Pu4aaYwcbHS0NJI1cAiEAta0J7scGVYVIiQ3d3ZnX8Lm2CmmMGpm9naT043IYAqc=";

// The same on P-384, with -sha384 and -sha256.
pub(super) const P384: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEssGtAu0BkKEJwfW4SSwttfqxpS467umw\n\
4G/l+H4VvjU447uQMmywetEDHFfW8yqsq5V+1B1hiCc8Q0guASydj4JNJrulKew/\n\
F2G/qDE+mgsH5wZvv0jZP6/Sw1ouC5GC\n\
-----END PUBLIC KEY-----\n";
pub(super) const P384_SIGNATURE: &str = "MGYCMQDkMOo2thJXIqnukOtB2f9apLk3oiZ7iZkiu8Px6zw8wzsrya4zn4m0x1SN++f6eOcCMQDKpjDh/50V7NLCu5Zd5NIG6Xl4zHcSELF9RZrbkejWVUF9+eIuZRQlMi+455oRnnY=";
pub(super) const P384_SHA256_SIGNATURE: &str = "MGUCMQDt6HmG9U7Myo7lljrALnaCdD+mSmvv8a4xC78MauZ1MPd8xH37sw3QQWmDXmXPEgkCMGChoLFP4Xm0pAgIeNx+8geZkUKP9bo9NQ29bsNMwdOVLVpzsBiE54KYnItRHzTwfw==";

// openssl pkeyutl -sign -rawin -inkey KEY -in digest | base64 -w0
pub(super) const ED25519: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEA8aCQg31CKWYzySzSGmK5JBdievJdI7RiHimjuu30niI=\n\
-----END PUBLIC KEY-----\n";
pub(super) const ED25519_SIGNATURE: &str =
    "tpyZcnLcYHo1NuwrXfE8epY7OEs7mrtbuLZkBRF69TXGT5vqM9G4vZ5bBaSYnUOpzcZVzC0NvUMn1YtVmG63Bw==";

// openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048
pub(super) const RSA: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsFgWZix/CmtxBeaS0qDo\n\
jmL9XAsPivrBvDk4Vb2q+TXVxS93Yw0nruRHf7FcKXu3b1HWLfyoA6KAT1JHSX4D\n\
5DF0FsGDF+DPbfmEfmcUHJSo7ZBdR6gkZ6TM7AfIgTVemU5RqNmKboKJ+RQ+1DmS\n\
ThMvAvEpLlqgG0AK+F3XE0PEEETAC2H55yo7UMBEeOsgl0fu/Mh+orBPQHAQ+/iR\n\
+/HEB0KfJ1mH0VRyAP6w0SPL5WEOi3h4q3fh8UoGldl5BERHX4gcia5aJpfHBNos\n\
Ki1+ftdHREKx/QN8EwcERRAmld7lvbiQb+gfJLOqdGbJKo9cx2xl11xtRzF8jJMs\n\
OwIDAQAB\n\
-----END PUBLIC KEY-----\n";
pub(super) const RSA_SIGNATURE: &str = "nL6XBiytS5IZt6afFdYC2nkBUJLN2LyH1l4lVLF9PnpiyKr1HjBAdwx/bV73AE3/cHajn+Bsh9+Hz5Lm3fwyzDgiW92fSccfqCucVTzJWhQNIJEXCqKMZP7GKiWU0eMiNLmcTSGR1h7bEm1FWeAxB7RAPSgTm1p9k6bJWEvsUT56Ql2fCvJq2xMuZXu+cXsmZHWLdutDXLdITCAIM0NGhhahHGKCSGGbqPWaMSslTBfckw7zT9MTnVw6wh3CykK8dg0OIlZhKtN1Y1pIq7uPuqd4WkPaJf6UmhoqSC9HNzeSF1jKairADFmzIe//hc0T2oUu/qWttc5KYqWE9EpKug==";

// Keys that are refused: on secp256k1, and in the older form of `openssl ecparam -genkey`.
pub(super) const SECP256K1: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEZC/nhxXtgnK8J9D5C1SsT/qfAQTlUPUK\n\
0e7D7BgdgMYhi7dZM3T/V8o4uI03PLFDnMcgr94+gjL/TFjyiE3vTA==\n\
-----END PUBLIC KEY-----\n";
pub(super) const SEC1: &str = "\
-----BEGIN EC PRIVATE KEY-----\n\
MHcCAQEEIOwFmf6EhFfbc3KCy5n5k0drUMK1OL8nhgbUDDD3M+/yoAoGCCqGSM49\n\
AwEHoUQDQgAELy8DIyPhno3p3VFGlVnkeGH1h52fXU41HV1kyWPG9Oukd98nfB1p\n\
wMXfLwe2pDmx7K6v9+aBerquB31nwy/74g==\n\
-----END EC PRIVATE KEY-----\n";

/// cosign's payload for the digest above, and its signature by the key on P-256.
pub(super) const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"registry.example/models/emoji"},"image":{"docker-manifest-digest":"sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"},"type":"cosign container image signature"},"optional":null}"#;
pub(super) const PAYLOAD_SIGNATURE: &str =
    "MEUCIQDSIyDYFfXuYc+/Azfml1vwAP9+695p797QJ/qArjIgmQIgBR0M9vjHGN6dXAzsG7wa5DJjbXL2hsjpXeCz0B94ZdY=";

// Made by cosign; a test vector of sigstore-rs (Apache-2.0).
pub(super) const COSIGN: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENptdY/l3nB0yqkXLBWkZWQwo6+cu\n\
OSWS1X9vPavpiQOoTTGC0xX57OojUadxF1cdQmrsiReWg2Wn4FneJfa8xw==\n\
-----END PUBLIC KEY-----";
pub(super) const COSIGN_DIGEST: &str = "sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b";
pub(super) const COSIGN_PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"registry-testing.svc.lan/busybox"},"image":{"docker-manifest-digest":"sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b"},"type":"cosign container image signature"},"optional":null}"#;
pub(super) const COSIGN_SIGNATURE: &str =
    "MEUCIQD6q/COgzOyW0YH1Dk+CCYSt4uAhm3FDHUwvPI55zwnlwIgE0ZK58ZOWpZw8YVmBapJhBqCfdPekIknimuO0xH8Jh8=";
