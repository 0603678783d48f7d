//! Who is who between gateway, operator and pods: the URI in a certificate, the host name in a server's.
//! Only names; certificates are made by the operator and checked by rustls, and who may do what is for each server to say.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const TRUST_DOMAIN: &str = "spiffe://easel.internal/";
const PODS: &str = "pods/";

/// A caller, as the one URI SAN of its certificate says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// Plans and writes.
    Operator,
    /// Sends requests and reads reports.
    Gateway,
    /// Any pod of this Deployment.
    Pods(Deployment),
}

/// Pods of one Deployment are one party: they hold the same models for the same tenants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deployment {
    pub namespace: String,
    pub name: String,
}

impl Identity {
    /// Those of the control plane; pods have as many as there are Deployments.
    pub const CONTROL: [Self; 2] = [Self::Operator, Self::Gateway];

    /// By the one URI of a certificate in DER that rustls has proved: one with two names is nobody's.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None, // of a foreign enum; other kinds of names are no identity
        });
        let uri = uris.next().filter(|_| uris.next().is_none())?;
        Self::from_uri(uri)
    }

    pub fn uri(&self) -> Cow<'static, str> {
        match self {
            Self::Operator => "spiffe://easel.internal/operator".into(),
            Self::Gateway => "spiffe://easel.internal/gateway".into(),
            Self::Pods(Deployment { namespace, name }) => format!("{TRUST_DOMAIN}{PODS}{namespace}/{name}").into(),
        }
    }

    /// Only what [`Identity::uri`] writes: no other spelling is anybody's.
    pub fn from_uri(uri: &str) -> Option<Self> {
        match uri.strip_prefix(TRUST_DOMAIN)? {
            "operator" => Some(Self::Operator),
            "gateway" => Some(Self::Gateway),
            path => {
                let (namespace, name) = path.strip_prefix(PODS)?.split_once('/')?;
                let deployment = || Deployment { namespace: namespace.to_owned(), name: name.to_owned() };
                (is_label(namespace) && is_label(name)).then(|| Self::Pods(deployment()))
            }
        }
    }
}

/// As Kubernetes names namespaces, and Easel its Deployments.
fn is_label(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 63 && edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Gateway => f.write_str("gateway"),
            Self::Pods(deployment) => write!(f, "pods of {deployment}"),
        }
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "{namespace}/{name}")
    }
}

/// The domain of a Deployment's pods. Its server certificate is for `*.DOMAIN`, so a pod of one pool or tenant
/// can't stand in for one of another even if it gets its address.
pub fn pod_domain(deployment: &str, namespace: &str) -> String {
    format!("{deployment}.{namespace}.pods.easel.internal")
}

/// The host name by which one pod is called: its address as the first label under the domain. No DNS server knows
/// it; the caller's resolver reads the address back out with [`address_of`].
pub fn pod_host(address: IpAddr, deployment: &str, namespace: &str) -> String {
    let label = match address {
        IpAddr::V4(v4) => format!("v4-{}", v4.to_string().replace('.', "-")),
        IpAddr::V6(v6) => format!("v6-{:032x}", v6.to_bits()),
    };
    format!("{label}.{}", pod_domain(deployment, namespace))
}

/// The address that [`pod_host`] wrote, or `None` for any other name.
pub fn address_of(host: &str) -> Option<IpAddr> {
    let label = host.strip_suffix(".pods.easel.internal")?.split('.').next()?;
    if let Some(v4) = label.strip_prefix("v4-") {
        return v4.replace('-', ".").parse().ok().map(IpAddr::V4);
    }
    let bits = u128::from_str_radix(label.strip_prefix("v6-")?, 16).ok()?;
    Some(IpAddr::V6(bits.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["pod.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_known_by_its_only_uri() {
        let (operator, gateway) = (Identity::Operator.uri(), Identity::Gateway.uri());
        assert_eq!(Identity::of_certificate(&certificate(&[&gateway])), Some(Identity::Gateway));
        assert_eq!(Identity::of_certificate(&certificate(&[&operator, &gateway])), None);
        assert_eq!(Identity::of_certificate(&certificate(&[&gateway, &gateway])), None);
        assert_eq!(Identity::of_certificate(&certificate(&["spiffe://other.example/operator"])), None);
        assert_eq!(Identity::of_certificate(&certificate(&[])), None);
        assert_eq!(Identity::of_certificate(&[1, 2, 3]), None);
    }

    #[test]
    fn a_pod_host_gives_its_address_back() {
        for text in ["10.244.0.17", "fd00::12:7"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_of(&pod_host(address, "cpu", "easel-system")), Some(address));
        }
        assert_eq!(address_of("kubernetes.default.svc"), None);
    }

    #[test]
    fn a_label_fits_in_dns() {
        let longest = pod_host("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(), "a", "b");
        assert!(longest.split('.').all(|label| label.len() <= 63));
    }

    #[test]
    fn every_identity_reads_back_and_strangers_do_not() {
        let pods = Deployment { namespace: "easel-system".into(), name: "easel-pool-cpu".into() };
        for identity in Identity::CONTROL.into_iter().chain([Identity::Pods(pods)]) {
            assert_eq!(Identity::from_uri(&identity.uri()), Some(identity));
        }
        for path in [
            "admin",
            "",
            "pods",
            "pods/",
            "pods/a",
            "pods/a/",
            "pods//b",
            "pods/a/b/c",
            "pods/A/b",
            "pods/a/b-",
            "pods/a/b?x",
            "operator/",
        ] {
            assert_eq!(Identity::from_uri(&format!("spiffe://easel.internal/{path}")), None, "{path}");
        }
        for uri in [
            "operator",
            "spiffe://easel.example/operator",
            "https://easel.internal/operator",
            "SPIFFE://easel.internal/operator",
        ] {
            assert_eq!(Identity::from_uri(uri), None, "{uri}");
        }
        assert_eq!(Identity::from_uri(&format!("spiffe://easel.internal/pods/{}/b", "a".repeat(64))), None);
    }
}
