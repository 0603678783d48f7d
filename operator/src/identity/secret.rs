//! Certificates as Secrets of type `kubernetes.io/tls` with `ca.crt` beside, and back.
//! Knows the keys' names; signs nothing and calls nobody.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::Pair;
use super::renewal::Held;
use crate::names::{LABEL_MANAGED_BY, MANAGED_BY};
use crate::pod_client::Credentials;

const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

pub(super) fn build(name: &str, pair: &Pair, authority_pem: &str) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let Pair { cert_pem, key_pem } = pair;
    let data = [(CERT, bytes(cert_pem)), (KEY, bytes(key_pem)), (AUTHORITY, bytes(authority_pem))];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..Secret::default()
    }
}

/// Certificate and key, if both are there.
pub(super) fn pair(secret: &Secret) -> Option<Pair> {
    Some(Pair { cert_pem: text(secret, CERT)?, key_pem: text(secret, KEY)? })
}

pub(super) fn credentials(secret: &Secret) -> Option<Credentials> {
    let Pair { cert_pem, key_pem } = pair(secret)?;
    Some(Credentials { ca_pem: text(secret, AUTHORITY)?, cert_pem, key_pem })
}

/// What `renewal` decides on. `None` when the Secret holds nothing that can be used.
pub(super) fn held(secret: &Secret) -> Option<Held> {
    let Pair { cert_pem, key_pem } = pair(secret)?;
    rcgen::KeyPair::from_pem(&key_pem).ok()?;
    let (_, pem) = parse_x509_pem(cert_pem.as_bytes()).ok()?;
    let cert = pem.parse_x509().ok()?;
    let names = cert.subject_alternative_name().ok().flatten()?;
    let name = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None, // of a foreign enum; other kinds of names are not ours
    });
    Some(Held {
        not_before: Timestamp::from_second(cert.validity().not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(cert.validity().not_after.timestamp()).ok()?,
        authority: text(secret, AUTHORITY)?,
        name: name?,
    })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let data: &BTreeMap<String, ByteString> = secret.data.as_ref()?;
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use easel_api::identity::Identity;

    use super::super::authority::{Authority, Subject};
    use super::super::renewal::{Renewal, renewal};
    use super::*;

    #[test]
    fn a_secret_reads_back_and_is_kept_while_it_is_young() {
        let now = Timestamp::now();
        let authority = Authority::read(&Authority::make(now).unwrap()).unwrap();
        let subject = Subject::Client(Identity::Gateway);
        let pair = authority.sign(subject, now).unwrap();
        let secret = build("easel-identity-gateway", &pair, authority.cert_pem());
        let credentials = credentials(&secret).unwrap();
        assert_eq!((&credentials.cert_pem, &credentials.key_pem), (&pair.cert_pem, &pair.key_pem));
        let held = held(&secret).unwrap();
        assert_eq!(renewal(Some(&held), authority.cert_pem(), &subject.name(), now), Renewal::Keep);
    }

    #[test]
    fn a_secret_that_someone_broke_counts_as_none() {
        let now = Timestamp::now();
        let authority = Authority::read(&Authority::make(now).unwrap()).unwrap();
        let pair = authority.sign(Subject::Client(Identity::Gateway), now).unwrap();
        for broken in [Pair { key_pem: "x".into(), ..pair.clone() }, Pair { cert_pem: "x".into(), ..pair }] {
            assert_eq!(held(&build("n", &broken, authority.cert_pem())), None);
        }
        assert_eq!(held(&Secret::default()), None);
    }
}
