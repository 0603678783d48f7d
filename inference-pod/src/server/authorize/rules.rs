//! Who may do what on a pod's engine port: one pure function, and every case of it in a table.
//! Knows identities; knows no certificate, no route and no request.

use std::fmt;

use easel_api::identity::Identity;

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
    /// Give it a request that another pod has begun.
    HandOver,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity '{caller}' may not {action}; only {} may", action.whose())]
pub(crate) struct Denied {
    caller: Identity,
    action: Action,
}

pub(crate) fn may(caller: &Identity, action: Action) -> Result<(), Denied> {
    let allowed = match (action, caller) {
        (Action::PutResidency | Action::ReadReport, Identity::Operator)
        | (Action::ReadReport | Action::Draw | Action::Cancel | Action::HandOver, Identity::Gateway) => true,
        (Action::Draw | Action::Cancel | Action::HandOver, Identity::Operator)
        | (Action::PutResidency, Identity::Gateway)
        | (
            Action::PutResidency | Action::ReadReport | Action::Draw | Action::Cancel | Action::HandOver,
            Identity::Pods(_),
        ) => false,
    };
    if allowed { Ok(()) } else { Err(Denied { caller: caller.clone(), action }) }
}

impl Action {
    fn whose(self) -> &'static str {
        match self {
            Self::PutResidency => "the operator",
            Self::ReadReport => "the operator and gateways",
            Self::Draw | Self::Cancel | Self::HandOver => "gateways",
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
    use easel_api::identity::Deployment;

    use super::*;

    #[test]
    fn every_caller_may_do_its_own_part_and_nothing_else() {
        use Action::{Cancel, Draw, HandOver, PutResidency, ReadReport};
        let pods = Identity::Pods(Deployment { namespace: "easel-system".into(), name: "easel-pool-cpu".into() });
        let table = [
            (Identity::Operator, vec![PutResidency, ReadReport]),
            (Identity::Gateway, vec![ReadReport, Draw, Cancel, HandOver]),
            (pods, vec![]),
        ];
        for (caller, allowed) in table {
            for action in [PutResidency, ReadReport, Draw, Cancel, HandOver] {
                assert_eq!(may(&caller, action).is_ok(), allowed.contains(&action), "{caller}: {action}");
            }
        }
    }

    #[test]
    fn a_denial_says_who_may() {
        let denied = may(&Identity::Gateway, Action::PutResidency).unwrap_err();
        assert_eq!(denied.to_string(), "the identity 'gateway' may not put residency; only the operator may");
    }
}
