//! Who is who between gateway, operator and pods: the URI in a client certificate, the host name in a server's.
//! Only names; certificates are made by the operator and checked by rustls.

use std::fmt;
use std::net::IpAddr;

/// A caller, as the one URI SAN of its client certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// Plans and writes: the only one that may PUT residency.
    Operator,
    /// Sends requests and reads reports.
    Gateway,
}

impl Identity {
    pub const ALL: [Self; 2] = [Self::Operator, Self::Gateway];

    pub fn uri(self) -> &'static str {
        match self {
            Self::Operator => "spiffe://easel.internal/operator",
            Self::Gateway => "spiffe://easel.internal/gateway",
        }
    }

    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|identity| identity.uri() == uri)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Gateway => "gateway",
        })
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
        for identity in Identity::ALL {
            assert_eq!(Identity::from_uri(identity.uri()), Some(identity));
        }
        assert_eq!(Identity::from_uri("spiffe://easel.internal/admin"), None);
    }
}
