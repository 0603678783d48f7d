//! Where pods and operator may go for checkpoints, as the chart's values say it.
//! Parses the flag and makes rules of a `NetworkPolicy` of it; knows no store.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::port;

/// Clouds answer a machine's credentials there; no checkpoint is.
const METADATA: &str = "169.254.0.0/16";
const ANYWHERE: &str = "0.0.0.0/0";

/// Addresses and ports of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEgress {
    to: Peer,
    ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    /// `ADDRESS/BITS`
    Block(String),
    /// All pods of a namespace: a block does not match pods on every network.
    Namespace(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither CIDR=PORT,… nor namespace/NAME=PORT,…, such as 0.0.0.0/0=443 or namespace/stores=5000,9000")]
pub struct EgressError(String);

impl FromStr for StoreEgress {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let refused = || EgressError(text.to_owned());
        let (to, ports) = text.rsplit_once('=').ok_or_else(refused)?;
        let (kind, name) = to.split_once('/').ok_or_else(refused)?;
        let to = match kind {
            "namespace" if !name.is_empty() => Peer::Namespace(name.to_owned()),
            address => {
                let address: IpAddr = address.parse().map_err(|_| refused())?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                name.parse::<u8>().ok().filter(|bits| *bits <= most).ok_or_else(refused)?;
                Peer::Block(to.to_owned())
            }
        };
        let port = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(refused);
        Ok(Self { to, ports: ports.split(',').map(port).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for StoreEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        match &self.to {
            Peer::Block(cidr) => write!(f, "{cidr}={}", ports.join(",")),
            Peer::Namespace(name) => write!(f, "namespace/{name}={}", ports.join(",")),
        }
    }
}

/// Names first: without DNS no store has an address. Nothing at all where there are no stores.
pub(super) fn rules(stores: &[StoreEgress]) -> Option<Vec<NetworkPolicyEgressRule>> {
    let udp = NetworkPolicyPort { protocol: Some("UDP".into()), ..port(53) };
    let names = NetworkPolicyEgressRule { to: None, ports: Some(vec![udp, port(53)]) };
    (!stores.is_empty()).then(|| std::iter::once(names).chain(stores.iter().map(rule)).collect())
}

fn rule(StoreEgress { to, ports }: &StoreEgress) -> NetworkPolicyEgressRule {
    let peer = match to {
        Peer::Block(cidr) => {
            let except = (cidr == ANYWHERE).then(|| vec![METADATA.to_owned()]);
            NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: cidr.clone(), except }), ..NetworkPolicyPeer::default() }
        }
        Peer::Namespace(name) => {
            let named = [("kubernetes.io/metadata.name".to_owned(), name.clone())].into();
            let selector = LabelSelector { match_labels: Some(named), ..LabelSelector::default() };
            NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() }
        }
    };
    NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(ports.iter().copied().map(port).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_chart_writes_is_read_and_nonsense_is_refused() {
        for text in ["0.0.0.0/0=443", "::/0=443", "10.0.0.0/8=5000,9000", "namespace/stores=5000"] {
            assert_eq!(text.parse::<StoreEgress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "443",
            "0.0.0.0=443",
            "0.0.0.0/33=443",
            "::/129=443",
            "namespace/=1",
            "r.example/24=443",
            "0.0.0.0/0=",
            "0.0.0.0/0=0",
            "0.0.0.0/0=443,x",
        ] {
            assert_eq!(text.parse::<StoreEgress>(), Err(EgressError(text.to_owned())), "{text}");
        }
    }
}
