//! Makes sure that Secrets with certificates exist and are young: the leader's part.
//! Reads, asks `renewal`, signs, writes; who else reads the Secrets is their affair.

use std::sync::Arc;

use easel_api::identity::Identity;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tracing::info;

use super::authority::{Authority, AuthorityError, Subject};
use super::renewal::{Renewal, renewal};
use super::{Pair, secret};
use crate::names::{CA_SECRET, OPERATOR, Workload, identity_secret};

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("failed to {step} secret {name}")]
    Kube { step: &'static str, name: String, source: Box<kube::Error> },
    #[error("failed to sign for secret {name}")]
    Sign { name: String, source: AuthorityError },
    #[error("secret {CA_SECRET} holds no authority; restore it, or delete it to have every certificate made anew")]
    BrokenAuthority(#[source] Option<AuthorityError>),
}

/// The leader's hand that signs.
#[derive(Clone)]
pub struct Issuer {
    client: Client,
    namespace: String,
    authority: Arc<Authority>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Reads the authority, or makes it when there is none. Of two that make one, the second reads the first's.
    pub async fn open(client: Client, namespace: &str) -> Result<Self, IssueError> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = match get(&api, CA_SECRET).await? {
            Some(found) => found,
            None => make_authority(&api).await?,
        };
        let pair = secret::pair(&found).ok_or(IssueError::BrokenAuthority(None))?;
        let authority = Authority::read(&pair).map_err(|error| IssueError::BrokenAuthority(Some(error)))?;
        Ok(Self { client, namespace: namespace.to_owned(), authority: Arc::new(authority) })
    }

    /// The identities of operator and gateway.
    pub async fn ensure_identities(&self) -> Result<(), IssueError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for identity in Identity::ALL {
            self.ensure(&api, &identity_secret(identity), Subject::Client(identity), None).await?;
        }
        Ok(())
    }

    /// The server certificate of a Deployment's pods.
    pub async fn ensure_server(&self, workload: &Workload, owner: OwnerReference) -> Result<(), IssueError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), workload.namespace());
        let deployment = workload.deployment();
        let subject = Subject::Pods { deployment: &deployment, namespace: workload.namespace() };
        self.ensure(&api, &workload.tls_secret(), subject, Some((workload, owner))).await
    }

    async fn ensure(
        &self,
        api: &Api<Secret>,
        name: &str,
        subject: Subject<'_>,
        owner: Option<(&Workload, OwnerReference)>,
    ) -> Result<(), IssueError> {
        let now = Timestamp::now();
        let found = get(api, name).await?;
        let held = found.as_ref().and_then(secret::held);
        match renewal(held.as_ref(), self.authority.cert_pem(), &subject.name(), now) {
            Renewal::Keep => Ok(()),
            Renewal::Renew(why) => {
                let sign = |source| IssueError::Sign { name: name.to_owned(), source };
                let pair = self.authority.sign(subject, now).map_err(sign)?;
                let mut secret = secret::build(name, &pair, self.authority.cert_pem());
                if let Some((workload, owner)) = owner {
                    secret.metadata.labels = Some(workload.labels());
                    secret.metadata.owner_references = Some(vec![owner]);
                }
                // A leader that was paused loses against the one that has written since.
                secret.metadata.resource_version = found.and_then(|found| found.metadata.resource_version);
                apply(api, name, &secret).await?;
                info!(secret = name, namespace = ?secret.metadata.namespace, ?why, "certificate made");
                Ok(())
            }
        }
    }
}

async fn make_authority(api: &Api<Secret>) -> Result<Secret, IssueError> {
    let sign = |source| IssueError::Sign { name: CA_SECRET.into(), source };
    let pair: Pair = Authority::make(Timestamp::now()).map_err(sign)?;
    let made = secret::build(CA_SECRET, &pair, &pair.cert_pem);
    match api.create(&PostParams::default(), &made).await {
        Ok(made) => {
            info!(secret = CA_SECRET, "authority made");
            Ok(made)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            get(api, CA_SECRET).await?.ok_or(IssueError::BrokenAuthority(None))
        }
        Err(error) => Err(failed("create", CA_SECRET, error)),
    }
}

async fn get(api: &Api<Secret>, name: &str) -> Result<Option<Secret>, IssueError> {
    api.get_opt(name).await.map_err(|error| failed("read", name, error))
}

async fn apply(api: &Api<Secret>, name: &str, secret: &Secret) -> Result<(), IssueError> {
    let params = PatchParams::apply(OPERATOR).force();
    api.patch(name, &params, &Patch::Apply(secret)).await.map(drop).map_err(|error| failed("write", name, error))
}

fn failed(step: &'static str, name: &str, source: kube::Error) -> IssueError {
    IssueError::Kube { step, name: name.to_owned(), source: Box::new(source) }
}
