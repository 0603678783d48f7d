//! Writes certificates as Secrets and keeps them as they shall be: the leader's hand.
//! Reads, asks `renewal`, signs, writes; when an authority follows another is `rotation`'s to say.

use easel_api::identity::Identity;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use tracing::info;

use super::authorities::{Authorities, BrokenAuthorities};
use super::authority::{AuthorityError, names};
use super::renewal::{Held, Renewal, Wanted, renewal};
use super::secret;
use crate::names::{CA_SECRET, LABEL_WORKLOAD, OPERATOR, Workload, identity_secret, managed_selector};

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("failed to {step} {name}")]
    Kube { step: &'static str, name: String, source: Box<kube::Error> },
    #[error("failed to sign for secret {name}")]
    Sign { name: String, source: AuthorityError },
    #[error("secret {CA_SECRET} holds no authority; restore it, or delete it to have every certificate made anew")]
    BrokenAuthority(#[from] BrokenAuthorities),
}

/// A Secret with a certificate, as it shall be.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    identity: Identity,
    namespace: String,
    /// Of pods: whose Deployment it goes with.
    owner: Option<(Workload, Vec<OwnerReference>)>,
}

/// What is in a Secret after it was looked after.
#[derive(Debug)]
pub(super) enum Ensured {
    Fine(Held),
    /// It can't be written, and this is still in it.
    Unwritten(Option<Held>, IssueError),
    Unread(IssueError),
}

/// Signs with whatever authority the Secret names at that moment.
#[derive(Clone)]
pub struct Issuer {
    client: Client,
    namespace: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Once the authority can be read; makes it when there is none.
    pub async fn open(client: Client, namespace: &str) -> Result<Self, IssueError> {
        let issuer = Self { client, namespace: namespace.to_owned() };
        issuer.authorities(Timestamp::now()).await?;
        Ok(issuer)
    }

    /// The certificate of a Deployment's pods.
    pub async fn ensure_pods(&self, workload: &Workload, owners: Vec<OwnerReference>) -> Result<(), IssueError> {
        let now = Timestamp::now();
        let leaf = Leaf {
            identity: workload.identity(),
            namespace: workload.namespace().to_owned(),
            owner: Some((workload.clone(), owners)),
        };
        match self.ensure(&leaf, &self.authorities(now).await?, now).await {
            Ensured::Fine(_) => Ok(()),
            Ensured::Unwritten(_, error) | Ensured::Unread(error) => Err(error),
        }
    }

    /// Of operator and gateway, and of every Deployment that there is.
    pub(super) async fn leaves(&self) -> Result<Vec<Leaf>, IssueError> {
        let control = |identity| Leaf { identity, namespace: self.namespace.clone(), owner: None };
        let mut leaves: Vec<_> = Identity::CONTROL.map(control).into();
        let api: Api<Deployment> = Api::all(self.client.clone());
        let found = api.list(&ListParams::default().labels(&managed_selector())).await;
        let found = found.map_err(|error| failed("list", "deployments", error))?;
        leaves.extend(found.iter().filter_map(leaf_of));
        Ok(leaves)
    }

    pub(super) async fn ensure(&self, leaf: &Leaf, authorities: &Authorities, now: Timestamp) -> Ensured {
        let name = identity_secret(&leaf.identity);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &leaf.namespace);
        let found = match get(&api, &name).await {
            Ok(found) => found,
            Err(error) => return Ensured::Unread(error),
        };
        let held = found.as_ref().and_then(secret::held);
        match (renewal(held.as_ref(), &wanted(leaf, authorities), now), held) {
            (Renewal::Keep, Some(held)) => Ensured::Fine(held),
            (Renewal::Keep | Renewal::Retrust | Renewal::Renew(_), held) => {
                match self.rewrite(&api, &name, leaf, found, now).await {
                    Ok(held) => Ensured::Fine(held),
                    Err(error) => Ensured::Unwritten(held, error),
                }
            }
        }
    }

    async fn rewrite(
        &self,
        api: &Api<Secret>,
        name: &str,
        leaf: &Leaf,
        found: Option<Secret>,
        now: Timestamp,
    ) -> Result<Held, IssueError> {
        // Read again for every write: another leader may have gone on meanwhile, and a certificate of an authority
        // that nobody trusts any more would cut its holder off.
        let authorities = self.authorities(now).await?;
        let held = found.as_ref().and_then(secret::held);
        let renewal = renewal(held.as_ref(), &wanted(leaf, &authorities), now);
        let pair = match (renewal, found.as_ref().and_then(secret::pair)) {
            (Renewal::Keep | Renewal::Retrust, Some(pair)) => pair,
            (Renewal::Keep | Renewal::Retrust, None) | (Renewal::Renew(_), _) => {
                let sign = |source| IssueError::Sign { name: name.to_owned(), source };
                authorities
                    .signer()
                    .and_then(|signer| signer.sign(&leaf.identity, &leaf.namespace, now))
                    .map_err(sign)?
            }
        };
        let mut secret = secret::build(name, &pair, &authorities.bundle());
        if let Some((workload, owners)) = &leaf.owner {
            secret.metadata.labels = Some(workload.labels());
            secret.metadata.owner_references = Some(owners.clone());
        }
        // A leader that was paused loses against the one that has written since.
        secret.metadata.resource_version = found.and_then(|found| found.metadata.resource_version);
        apply(api, name, &secret).await?;
        info!(secret = name, namespace = leaf.namespace, ?renewal, "certificate written");
        let made = || AuthorityError::Unreadable;
        secret::held(&secret).ok_or_else(|| IssueError::Sign { name: name.to_owned(), source: made() })
    }

    /// Reads the authorities, or makes the first when there is none. Of two that make one, the second reads the first's.
    pub(super) async fn authorities(&self, now: Timestamp) -> Result<Authorities, IssueError> {
        let api = self.secrets();
        if let Some(found) = get(&api, CA_SECRET).await? {
            return Ok(Authorities::read(&found)?);
        }
        let sign = |source| IssueError::Sign { name: CA_SECRET.into(), source };
        let made = Authorities::make(now).map_err(sign)?.write();
        match api.create(&PostParams::default(), &made).await {
            Ok(made) => {
                info!(secret = CA_SECRET, "authority made");
                Ok(Authorities::read(&made)?)
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let found = get(&api, CA_SECRET).await?.ok_or(BrokenAuthorities::Missing)?;
                Ok(Authorities::read(&found)?)
            }
            Err(error) => Err(failed("create secret", CA_SECRET, error)),
        }
    }

    /// At the version that was read: of two leaders that go on, one loses.
    pub(super) async fn write(&self, authorities: &Authorities) -> Result<(), IssueError> {
        apply(&self.secrets(), CA_SECRET, &authorities.write()).await
    }

    /// Where the authority is, and the control plane's certificates are.
    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn leaf_of(deployment: &Deployment) -> Option<Leaf> {
    let (namespace, name) = (deployment.namespace()?, deployment.name_any());
    let selects_itself = deployment.labels().get(LABEL_WORKLOAD) == Some(&name);
    if !selects_itself || deployment.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let workload = Workload::of(&namespace, &name)?;
    let owners = deployment.owner_references().to_vec();
    Some(Leaf { identity: workload.identity(), namespace, owner: Some((workload, owners)) })
}

fn wanted(leaf: &Leaf, authorities: &Authorities) -> Wanted {
    Wanted {
        signer: authorities.signer_id().clone(),
        trusts: authorities.bundle(),
        names: names(&leaf.identity, &leaf.namespace),
    }
}

async fn get(api: &Api<Secret>, name: &str) -> Result<Option<Secret>, IssueError> {
    api.get_opt(name).await.map_err(|error| failed("read secret", name, error))
}

async fn apply(api: &Api<Secret>, name: &str, secret: &Secret) -> Result<(), IssueError> {
    let params = PatchParams::apply(OPERATOR).force();
    api.patch(name, &params, &Patch::Apply(secret)).await.map(drop).map_err(|error| failed("write secret", name, error))
}

fn failed(step: &'static str, name: &str, source: kube::Error) -> IssueError {
    IssueError::Kube { step, name: name.to_owned(), source: Box::new(source) }
}
