//! Certificates as Secrets of type `kubernetes.io/tls` with `ca.crt` beside, and back.
//! Knows the keys' names; signs nothing and calls nobody.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;

use super::Pair;
use super::renewal::{Held, KeyId};
use crate::names::{LABEL_MANAGED_BY, MANAGED_BY};
use crate::pod_client::Credentials;

const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

pub(super) fn build(name: &str, pair: &Pair, trusted_pem: &str) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let Pair { cert_pem, key_pem } = pair;
    let data = [(CERT, bytes(cert_pem)), (KEY, bytes(key_pem)), (AUTHORITY, bytes(trusted_pem))];
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
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None, // of a foreign enum; other kinds of names are not ours
    });
    let signer = key_id(&cert, |extension| match extension {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref().map(|id| id.0),
        _ => None, // of a foreign enum
    });
    Some(Held {
        not_before: Timestamp::from_second(cert.validity().not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(cert.validity().not_after.timestamp()).ok()?,
        signer: signer?,
        trusts: text(secret, AUTHORITY)?,
        names: names.collect(),
    })
}

/// The name of an authority's own key, and its end.
pub(super) fn own(cert_pem: &str) -> Option<(KeyId, Timestamp)> {
    let (_, pem) = parse_x509_pem(cert_pem.as_bytes()).ok()?;
    let cert = pem.parse_x509().ok()?;
    let id = key_id(&cert, |extension| match extension {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None, // of a foreign enum
    });
    Some((id?, Timestamp::from_second(cert.validity().not_after.timestamp()).ok()?))
}

fn key_id<'a>(
    cert: &'a X509Certificate<'a>,
    read: impl Fn(&'a ParsedExtension<'a>) -> Option<&'a [u8]>,
) -> Option<KeyId> {
    let found = cert.extensions().iter().find_map(|extension| read(extension.parsed_extension()));
    found.map(|id| KeyId(id.to_vec()))
}

pub(super) fn put(secret: &mut Secret, key: &str, value: &str) {
    secret.data.get_or_insert_default().insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
}

pub(super) fn text(secret: &Secret, key: &str) -> Option<String> {
    let data: &BTreeMap<String, ByteString> = secret.data.as_ref()?;
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use easel_api::identity::Identity;

    use super::super::Authorities;
    use super::super::authority::names;
    use super::super::renewal::{Renewal, Wanted, Why, renewal};
    use super::*;

    #[test]
    fn a_secret_reads_back_and_is_kept_while_it_is_young() {
        let now = Timestamp::now();
        let authorities = Authorities::make(now).unwrap();
        let pair = authorities.signer().unwrap().sign(&Identity::Gateway, "easel-system", now).unwrap();
        let secret = build("easel-identity-gateway", &pair, &authorities.bundle());
        let credentials = credentials(&secret).unwrap();
        assert_eq!((&credentials.cert_pem, &credentials.key_pem), (&pair.cert_pem, &pair.key_pem));
        let wanted = Wanted {
            signer: authorities.signer_id().clone(),
            trusts: authorities.bundle(),
            names: names(&Identity::Gateway, "easel-system"),
        };
        assert_eq!(renewal(held(&secret).as_ref(), &wanted, now), Renewal::Keep);
    }

    #[test]
    fn a_gateways_certificate_without_the_name_that_it_is_called_by_is_issued_anew() {
        let now = Timestamp::now();
        let authorities = Authorities::make(now).unwrap();
        let pair = authorities.signer().unwrap().sign(&Identity::Gateway, "easel-system", now).unwrap();
        let held = held(&build("easel-identity-gateway", &pair, &authorities.bundle())).unwrap();
        let wanted =
            Wanted { signer: authorities.signer_id().clone(), trusts: authorities.bundle(), names: held.names.clone() };
        let unnamed = Held { names: vec![Identity::Gateway.uri().into_owned()], ..held };
        assert_eq!(renewal(Some(&unnamed), &wanted, now), Renewal::Renew(Why::OtherNames));
        assert_eq!(wanted.names[0], "*.easel-operator.easel-system.pods.easel.internal");
    }

    #[test]
    fn a_secret_that_someone_broke_counts_as_none() {
        let now = Timestamp::now();
        let authorities = Authorities::make(now).unwrap();
        let pair = authorities.signer().unwrap().sign(&Identity::Gateway, "easel-system", now).unwrap();
        for broken in [Pair { key_pem: "x".into(), ..pair.clone() }, Pair { cert_pem: "x".into(), ..pair }] {
            assert_eq!(held(&build("n", &broken, &authorities.bundle())), None);
        }
        assert_eq!(held(&Secret::default()), None);
    }
}
