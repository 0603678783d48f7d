//! The authorities in force, and the steps from one to the next; as the Secret `easel-ca` keeps them.
//! Changes are made here and decided in `rotation`; one write of the Secret is one step.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::authority::{Authority, AuthorityError, Pair};
use super::renewal::{Held, KeyId};
use super::rotation::{Stored, due};
use super::secret;
use crate::names::CA_SECRET;

/// Whoever sets this on the Secret to a value that it has not had gets another authority.
pub(super) const ROTATE: &str = "easel.dev/rotate";
/// The value that was answered last.
const ROTATED: &str = "easel.dev/rotated";
const NEXT_CERT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const FORMER_CERT: &str = "former.crt";

/// Prints no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    state: State,
    signer: Pair,
    signer_id: KeyId,
    not_after: Timestamp,
    asked: Option<String>,
    answered: Option<String>,
    /// As it was read: a write at another one is refused by the API server.
    version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Steady,
    Introduced { next: Pair },
    Switched { former_cert_pem: String },
}

#[derive(Debug, thiserror::Error)]
pub enum BrokenAuthorities {
    #[error("tls.crt and tls.key are not there")]
    Missing,
    #[error("the certificate in tls.crt can't be read")]
    Unreadable,
    #[error("it names both a next and a former authority")]
    Both,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Authorities {
    pub fn make(now: Timestamp) -> Result<Self, AuthorityError> {
        let secret = secret::build(CA_SECRET, &Authority::make(now)?, "");
        Ok(Self::read(&secret).expect("what was made is whole"))
    }

    pub(super) fn read(found: &Secret) -> Result<Self, BrokenAuthorities> {
        let signer = secret::pair(found).ok_or(BrokenAuthorities::Missing)?;
        Authority::read(&signer)?;
        let (signer_id, not_after) = secret::own(&signer.cert_pem).ok_or(BrokenAuthorities::Unreadable)?;
        let next = secret::text(found, NEXT_CERT).zip(secret::text(found, NEXT_KEY));
        let state = match (next, secret::text(found, FORMER_CERT)) {
            (None, None) => State::Steady,
            (Some((cert_pem, key_pem)), None) => {
                let next = Pair { cert_pem, key_pem };
                Authority::read(&next)?;
                State::Introduced { next }
            }
            (None, Some(former_cert_pem)) => State::Switched { former_cert_pem },
            (Some(_), Some(_)) => return Err(BrokenAuthorities::Both),
        };
        let note = |key: &str| found.metadata.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
        let version = found.metadata.resource_version.clone();
        Ok(Self { state, signer, signer_id, not_after, asked: note(ROTATE), answered: note(ROTATED), version })
    }

    pub(super) fn write(&self) -> Secret {
        let Self { state, signer, signer_id: _, not_after: _, asked: _, answered, version } = self;
        let mut secret = secret::build(CA_SECRET, signer, &self.bundle());
        match state {
            State::Steady => {}
            State::Introduced { next: Pair { cert_pem, key_pem } } => {
                secret::put(&mut secret, NEXT_CERT, cert_pem);
                secret::put(&mut secret, NEXT_KEY, key_pem);
            }
            State::Switched { former_cert_pem } => secret::put(&mut secret, FORMER_CERT, former_cert_pem),
        }
        secret.metadata.annotations = answered.clone().map(|answered| [(ROTATED.to_owned(), answered)].into());
        secret.metadata.resource_version.clone_from(version);
        secret
    }

    pub(super) fn stored(&self) -> Stored {
        match &self.state {
            State::Steady => Stored::Steady,
            State::Introduced { .. } => Stored::Introduced,
            State::Switched { .. } => Stored::Switched,
        }
    }

    /// Whom everybody trusts. In one order whoever signs, so that the switch alone changes nothing for pods.
    pub fn bundle(&self) -> String {
        let mut all = vec![self.signer.cert_pem.trim()];
        match &self.state {
            State::Steady => {}
            State::Introduced { next } => all.push(next.cert_pem.trim()),
            State::Switched { former_cert_pem } => all.push(former_cert_pem.trim()),
        }
        all.sort_unstable();
        all.join("\n") + "\n"
    }

    pub fn signer(&self) -> Result<Authority, AuthorityError> {
        Authority::read(&self.signer)
    }

    pub(super) fn signer_id(&self) -> &KeyId {
        &self.signer_id
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        due(self.not_after, self.asked.as_deref(), self.answered.as_deref(), now)
    }

    pub(super) fn trusted_by(&self, held: &Held) -> bool {
        held.trusts == self.bundle()
    }

    /// Whether nobody has gone on in between.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        (&self.state, &self.signer) == (&other.state, &other.signer)
    }

    /// One step on, from where this is: a next authority is made, signs, and stands alone.
    pub fn step(self, now: Timestamp) -> Result<Self, BrokenAuthorities> {
        let Self { state, signer, signer_id, not_after, asked, answered, version } = self;
        let (state, signer, answered) = match state {
            State::Steady => (State::Introduced { next: Authority::make(now)? }, signer, asked.clone()),
            State::Introduced { next } => (State::Switched { former_cert_pem: signer.cert_pem }, next, answered),
            State::Switched { former_cert_pem: _ } => (State::Steady, signer, answered),
        };
        let (signer_id, not_after) = match &state {
            State::Switched { .. } => secret::own(&signer.cert_pem).ok_or(BrokenAuthorities::Unreadable)?,
            State::Steady | State::Introduced { .. } => (signer_id, not_after),
        };
        Ok(Self { state, signer, signer_id, not_after, asked, answered, version })
    }
}

#[cfg(test)]
mod tests {
    use easel_api::identity::Identity;

    use super::super::renewal::AUTHORITY_LIFETIME;
    use super::*;

    /// What the API server would give back.
    fn stored(authorities: &Authorities) -> Authorities {
        Authorities::read(&authorities.write()).unwrap()
    }

    #[test]
    fn every_step_reads_back_and_the_new_authority_signs_only_after_it_was_trusted() {
        let now = Timestamp::now();
        let steady = Authorities::make(now).unwrap();
        let introduced = stored(&steady.clone().step(now).unwrap());
        let switched = stored(&introduced.clone().step(now).unwrap());
        let after = stored(&switched.clone().step(now).unwrap());
        let states = [&steady, &introduced, &switched, &after].map(Authorities::stored);
        assert_eq!(states, [Stored::Steady, Stored::Introduced, Stored::Switched, Stored::Steady]);
        assert_eq!(steady.signer_id(), introduced.signer_id());
        assert_ne!(introduced.signer_id(), switched.signer_id());
        assert_eq!(switched.signer_id(), after.signer_id());
        assert_eq!(introduced.bundle(), switched.bundle());
        assert!(
            introduced.bundle().contains(steady.bundle().trim()) && introduced.bundle().contains(after.bundle().trim())
        );
        assert!(!after.bundle().contains(steady.bundle().trim()));
    }

    #[test]
    fn a_key_that_signs_no_more_is_kept_nowhere() {
        let now = Timestamp::now();
        let steady = Authorities::make(now).unwrap();
        let key = steady.signer.key_pem.clone();
        let switched = steady.step(now).unwrap().step(now).unwrap().write();
        let values = switched.data.unwrap();
        assert!(values.values().all(|value| value.0 != key.as_bytes()));
        assert!(!values.contains_key(NEXT_KEY));
    }

    #[test]
    fn a_word_is_answered_once() {
        let now = Timestamp::now();
        let mut asked = Authorities::make(now).unwrap();
        assert!(!asked.is_due(now));
        asked.asked = Some("today".into());
        assert!(asked.is_due(now));
        assert!(!asked.step(now).unwrap().is_due(now));
    }

    #[test]
    fn an_authority_that_grows_old_is_due() {
        let now = Timestamp::now();
        let old = Authorities::make(now - AUTHORITY_LIFETIME).unwrap();
        assert!(old.is_due(now));
    }

    #[test]
    fn a_leaf_names_the_key_of_its_signer() {
        let now = Timestamp::now();
        let authorities = Authorities::make(now).unwrap();
        let pair = authorities.signer().unwrap().sign(&Identity::Gateway, "easel-system", now).unwrap();
        let held = secret::held(&secret::build("n", &pair, &authorities.bundle())).unwrap();
        assert_eq!(&held.signer, authorities.signer_id());
        assert!(authorities.trusted_by(&held));
    }

    #[test]
    fn printed_authorities_show_no_key() {
        let now = Timestamp::now();
        let authorities = Authorities::make(now).unwrap().step(now).unwrap();
        assert!(!format!("{authorities:?}").contains("PRIVATE"));
    }
}
