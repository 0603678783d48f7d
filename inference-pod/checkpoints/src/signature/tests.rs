use super::*;

mod fixtures;
mod registry;

use fixtures::{
    COSIGN, COSIGN_DIGEST, COSIGN_PAYLOAD, COSIGN_SIGNATURE, DIGEST, ED25519, ED25519_SIGNATURE, P256, P256_PRIVATE,
    P256_SIGNATURE, P384, P384_SHA256_SIGNATURE, P384_SIGNATURE, PAYLOAD, PAYLOAD_SIGNATURE, RSA, RSA_SIGNATURE, SEC1,
    SECP256K1,
};

fn digest() -> Digest {
    DIGEST.parse().unwrap()
}

fn keys(text: &str) -> Vec<PublicKey> {
    public_keys(text).unwrap()
}

fn payload(bytes: &str, signature: &str) -> Payload {
    Payload { layer: Digest::of(bytes.as_bytes()), bytes: bytes.into(), signature: Some(signature.into()) }
}

fn flaw(keys: &[PublicKey], digest: &Digest, signature: &Payload) -> Flaw {
    match verify(keys, digest, std::slice::from_ref(signature)).unwrap_err() {
        Untrusted::Invalid { flaws, .. } => flaws.into_iter().next().unwrap(),
        unsigned @ Untrusted::Unsigned { .. } => panic!("{unsigned}"),
    }
}

#[test]
fn a_signature_that_cosign_made_is_accepted() {
    let signature = payload(COSIGN_PAYLOAD, COSIGN_SIGNATURE);
    let digest = COSIGN_DIGEST.parse().unwrap();
    assert_eq!(verify(&keys(COSIGN), &digest, std::slice::from_ref(&signature)), Ok(()));
    assert_eq!(flaw(&keys(P256), &digest, &signature), Flaw::Key);
}

#[test]
fn signatures_that_openssl_made_are_accepted_from_each_kind_of_key() {
    for (key, signature) in [
        (P256, P256_SIGNATURE),
        (P384, P384_SIGNATURE),
        (P384, P384_SHA256_SIGNATURE),
        (ED25519, ED25519_SIGNATURE),
        (RSA, RSA_SIGNATURE),
    ] {
        assert_eq!(verify_detached(&keys(key), &digest(), Some(signature)), Ok(()), "{key}");
        let other = Digest::of(b"other");
        assert!(
            matches!(verify_detached(&keys(key), &other, Some(signature)), Err(Untrusted::Invalid { .. })),
            "{key}"
        );
    }
}

#[test]
fn what_we_sign_is_accepted_with_our_key_and_no_other() {
    let KeyPair { private, public } = KeyPair::generate().unwrap();
    let key = SigningKey::from_pem(&private.0).unwrap();
    assert_eq!(key.public_pem(), public);
    let detached = sign_detached(&key, &digest());
    assert_eq!(verify_detached(&keys(&public), &digest(), Some(&detached)), Ok(()));
    assert!(verify_detached(&keys(P256), &digest(), Some(&detached)).is_err());

    let signature = sign(&key, "registry.example/models/emoji", &digest());
    assert_eq!(verify(&keys(&public), &digest(), std::slice::from_ref(&signature)), Ok(()));
    assert_eq!(String::from_utf8(signature.bytes.clone()).unwrap(), PAYLOAD);
    assert_eq!(flaw(&keys(P256), &digest(), &signature), Flaw::Key);
}

#[test]
fn a_key_of_openssl_signs_and_shows_its_public_half() {
    let key = SigningKey::from_pem(P256_PRIVATE).unwrap();
    assert_eq!(key.public_pem(), P256);
    assert_eq!(verify_detached(&keys(P256), &digest(), Some(&sign_detached(&key, &digest()))), Ok(()));
    assert!(!format!("{key:?}").contains("2xs0M7BrdjMkzJMs"));
}

/// Every way in which a signature can be there and prove nothing.
#[test]
fn a_signature_of_something_else_is_refused_by_name() {
    let (trusted, wanted) = (keys(P256), digest());
    let good = payload(PAYLOAD, PAYLOAD_SIGNATURE);
    assert_eq!(verify(&trusted, &wanted, std::slice::from_ref(&good)), Ok(()));

    let other = Digest::of(b"other");
    assert_eq!(flaw(&trusted, &other, &good), Flaw::OtherDigest(DIGEST.into()));
    assert_eq!(flaw(&keys(COSIGN), &wanted, &good), Flaw::Key);
    let tampered = PAYLOAD.replace(DIGEST, &other.to_string());
    assert_eq!(flaw(&trusted, &other, &payload(&tampered, PAYLOAD_SIGNATURE)), Flaw::Key);
    let damaged = Payload { bytes: tampered.into_bytes(), ..good.clone() };
    assert_eq!(flaw(&trusted, &other, &damaged), Flaw::Damaged);
    assert_eq!(flaw(&trusted, &wanted, &payload(PAYLOAD, "not base64!")), Flaw::NotBase64);
    assert_eq!(flaw(&trusted, &wanted, &payload(PAYLOAD, "")), Flaw::Key);
    assert_eq!(flaw(&trusted, &wanted, &Payload { signature: None, ..good.clone() }), Flaw::NoSignature);
}

#[test]
fn a_signed_text_that_is_no_payload_of_cosign_proves_nothing() {
    let key = SigningKey::from_pem(P256_PRIVATE).unwrap();
    let attestation = PAYLOAD.replace("container image signature", "attestation");
    for text in ["", "[]", DIGEST, r#"{"critical":{}}"#, &attestation] {
        let signed = payload(text, &key.sign(text.as_bytes()));
        assert!(matches!(flaw(&keys(P256), &digest(), &signed), Flaw::Payload(_)), "{text}");
    }
}

#[test]
fn one_trusted_signature_among_others_is_enough_and_no_signature_is_not() {
    let good = payload(PAYLOAD, PAYLOAD_SIGNATURE);
    let foreign = payload(COSIGN_PAYLOAD, COSIGN_SIGNATURE);
    let both = keys(&format!("{COSIGN}\n{P256}"));
    assert_eq!(verify(&both, &digest(), &[foreign.clone(), good.clone()]), Ok(()));
    let refused = verify(&both, &digest(), &[foreign]).unwrap_err();
    assert!(refused.to_string().contains("one of another artifact, sha256:f3cf"), "{refused}");
    assert_eq!(Refusal::from(refused).reason, RefusalReason::SignatureInvalid);

    for unsigned in [verify(&both, &digest(), &[]), verify_detached(&both, &digest(), None)] {
        let unsigned = unsigned.unwrap_err();
        assert!(unsigned.to_string().contains("kubectl easel sign"), "{unsigned}");
        assert_eq!(Refusal::from(unsigned).reason, RefusalReason::Unsigned);
    }
    assert!(verify(&[], &digest(), &[good]).is_err(), "without a key nothing is trusted");
}

#[test]
fn the_detached_signature_may_be_wrapped_as_files_are() {
    let (first, second) = P256_SIGNATURE.split_at(40);
    let wrapped = format!("{first}\n{second}\n");
    assert_eq!(verify_detached(&keys(P256), &digest(), Some(&wrapped)), Ok(()));
}

#[test]
fn concatenated_keys_are_read_whatever_stands_between_them() {
    let indented = P256.replace('\n', "\n    ");
    let text = format!("# team A\n{P384}# team B\n    {indented}\r\n{ED25519}{RSA}");
    assert_eq!(keys(&text).len(), 4);
    assert_eq!(keys(&text)[1], keys(P256)[0]);
}

#[test]
fn a_wrong_key_is_named_by_its_number() {
    let after_one = |text: &str| public_keys(&format!("{P256}{text}")).unwrap_err();
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let torn = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQ==\n-----END PUBLIC KEY-----\n";
    assert_eq!(public_keys("no key here"), Err(PublicKeyError::None));
    assert_eq!(public_keys(""), Err(PublicKeyError::None));
    assert_eq!(after_one(P256_PRIVATE), PublicKeyError::Private { number: 2 });
    assert_eq!(after_one(certificate), PublicKeyError::Label { number: 2, label: "CERTIFICATE".into() });
    assert_eq!(after_one(torn), PublicKeyError::Damaged { number: 2 });
    let unknown = after_one(SECP256K1);
    assert!(matches!(unknown, PublicKeyError::Kind { number: 2, .. }), "{unknown}");
    assert!(unknown.to_string().contains("1.3.132.0.10"), "{unknown}");
    let cut = after_one("-----BEGIN PUBLIC KEY-----\nMFkw");
    assert!(matches!(cut, PublicKeyError::Pem { number: 2, .. }), "{cut}");
    let garbage = after_one("-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----\n");
    assert!(matches!(garbage, PublicKeyError::Pem { number: 2, .. }), "{garbage}");
}

#[test]
fn a_key_that_cannot_sign_says_what_to_do() {
    let labelled = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    for (text, remedy) in [
        (String::new(), "begins with -----BEGIN PRIVATE KEY-----"),
        (P256.to_owned(), "signing takes the private one"),
        (SEC1.to_owned(), "openssl pkcs8 -topk8"),
        (labelled("ENCRYPTED SIGSTORE PRIVATE KEY"), "cosign sign --key"),
        (labelled("ENCRYPTED COSIGN PRIVATE KEY"), "cosign sign-blob"),
        (labelled("ENCRYPTED PRIVATE KEY"), "openssl pkcs8 -in"),
        (labelled("PRIVATE KEY"), "kubectl easel generate-key-pair"),
        (labelled("CERTIFICATE"), "kubectl easel generate-key-pair"),
    ] {
        let refused = SigningKey::from_pem(&text).unwrap_err().to_string();
        assert!(refused.contains(remedy), "{refused:?} does not say {remedy:?}");
    }
}
