//! Who may do what on a pod's engine port: one pure function, and every case of it in a table.
//! Knows identities; knows no certificate, no route and no request.

use std::fmt;

use easel_api::identity::{Deployment, Identity};

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Say what this pod shall hold.
    PutResidency,
    /// Hear what it holds and how busy it is.
    ReadReport,
    /// Have a picture drawn.
    Draw,
    /// Have a request forgotten.
    Cancel,
    /// Give it a job that another pod has begun.
    HandOver,
}

/// Whose pod this is, as its own certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    PodOf(Deployment),
    /// A certificate from before pods had identities: nobody is its peer.
    Unnamed,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity '{caller}' may not {action}; only {} may", action.whose())]
pub(crate) struct Denied {
    caller: Identity,
    action: Action,
}

pub(crate) fn may(caller: &Identity, action: Action, here: &Here) -> Result<(), Denied> {
    let allowed = match (action, caller) {
        (Action::PutResidency | Action::ReadReport, Identity::Operator)
        | (Action::ReadReport | Action::Draw | Action::Cancel, Identity::Gateway) => true,
        (Action::HandOver, Identity::Pods(theirs)) => match here {
            Here::PodOf(ours) => theirs == ours,
            Here::Unnamed => false,
        },
        (Action::Draw | Action::Cancel | Action::HandOver, Identity::Operator)
        | (Action::PutResidency | Action::HandOver, Identity::Gateway)
        | (Action::PutResidency | Action::ReadReport | Action::Draw | Action::Cancel, Identity::Pods(_)) => false,
    };
    if allowed { Ok(()) } else { Err(Denied { caller: caller.clone(), action }) }
}

impl Action {
    fn whose(self) -> &'static str {
        match self {
            Self::PutResidency => "the operator",
            Self::ReadReport => "the operator and gateways",
            Self::Draw | Self::Cancel => "gateways",
            Self::HandOver => "pods of the same Deployment",
        }
    }
}

impl From<Option<Identity>> for Here {
    /// Of this pod's own certificate. One of the control plane's is no pod's.
    fn from(own: Option<Identity>) -> Self {
        match own {
            Some(Identity::Pods(deployment)) => Self::PodOf(deployment),
            Some(Identity::Operator | Identity::Gateway) | None => Self::Unnamed,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PutResidency => "put residency",
            Self::ReadReport => "read reports",
            Self::Draw => "draw",
            Self::Cancel => "cancel requests",
            Self::HandOver => "hand over",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(namespace: &str, name: &str) -> Deployment {
        Deployment { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn every_caller_may_do_its_own_part_and_nothing_else() {
        use Action::{Cancel, Draw, HandOver, PutResidency, ReadReport};
        let here = Here::PodOf(pods("easel-system", "easel-pool-cpu"));
        let table = [
            (Identity::Operator, vec![PutResidency, ReadReport]),
            (Identity::Gateway, vec![ReadReport, Draw, Cancel]),
            (Identity::Pods(pods("easel-system", "easel-pool-cpu")), vec![HandOver]),
            (Identity::Pods(pods("easel-system", "easel-pool-gpu")), vec![]),
            (Identity::Pods(pods("art", "easel-pool-cpu")), vec![]),
        ];
        for (caller, allowed) in table {
            for action in [PutResidency, ReadReport, Draw, Cancel, HandOver] {
                assert_eq!(may(&caller, action, &here).is_ok(), allowed.contains(&action), "{caller}: {action}");
            }
        }
    }

    #[test]
    fn a_pod_without_an_identity_has_no_peers() {
        for own in [None, Some(Identity::Operator), Some(Identity::Gateway)] {
            assert_eq!(Here::from(own), Here::Unnamed);
        }
        let peer = Identity::Pods(pods("art", "easel-model-m"));
        assert!(may(&peer, Action::HandOver, &Here::Unnamed).is_err());
    }

    #[test]
    fn a_denial_says_who_may() {
        let denied = may(&Identity::Gateway, Action::PutResidency, &Here::Unnamed).unwrap_err();
        assert_eq!(denied.to_string(), "the identity 'gateway' may not put residency; only the operator may");
    }
}
