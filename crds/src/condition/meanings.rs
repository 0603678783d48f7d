//! What every reason of every condition means and how it is mended: the source of the table in `docs/api-refusals.md`.
//! Words only; the operator decides which of them is so.

use super::ConditionType::{self, Accepted, AdaptersReady, CheckpointVerified, Placed, Ready, ResolvedRefs, Serving};
use super::Reason;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    pub kind: &'static str,
    pub condition: ConditionType,
    pub reason: Reason,
    /// What is so, and why.
    pub meaning: &'static str,
    /// What to do about it; empty where nothing is wrong.
    pub mending: &'static str,
}

const POOL: &str = "GpuPool";
const MODEL: &str = "ImageModel";
const ROUTE: &str = "ImageRoute";

const WAIT: &str = "Wait: it goes on by itself.";

const fn row(
    kind: &'static str,
    condition: ConditionType,
    reason: Reason,
    meaning: &'static str,
    mending: &'static str,
) -> Meaning {
    Meaning { kind, condition, reason, meaning, mending }
}

/// Every reason that the operator gives, in the order of the table. `Ready` of a model or a route that is not ready
/// repeats the reason and the words of the part that is not.
#[rustfmt::skip]
pub const MEANINGS: &[Meaning] = &[
    row(POOL, Ready, Reason::PoolReady, "Replicas can be made; the message says how many are ready.", ""),
    row(POOL, Ready, Reason::InvalidSpec, "The object is wrong by itself; an older schema let it through.", "Mend the field that the message names."),
    row(POOL, Ready, Reason::NoReadyReplica, "A pod can't start, or the API server refused what a pod needs; the message has its words.", "Add nodes or devices, mend the image, the quota, or the class that podOverrides names."),
    row(POOL, Ready, Reason::InUse, "The pool is being deleted and still serves.", "Give the models that the message names another pool, or set their replicas.min to 0."),
    row(MODEL, Ready, Reason::AllPartsReady, "CheckpointVerified, Placed and Serving are true.", ""),
    row(MODEL, CheckpointVerified, Reason::Verified, "The bytes in the pods are those of the digest.", ""),
    row(MODEL, CheckpointVerified, Reason::AwaitingReplica, "No replica has read the checkpoint yet.", WAIT),
    row(MODEL, CheckpointVerified, Reason::ResolvingTag, "The registry is being asked what the tag names.", WAIT),
    row(MODEL, CheckpointVerified, Reason::Fetching, "A replica is fetching the checkpoint; the message says how far it is.", WAIT),
    row(MODEL, CheckpointVerified, Reason::Verifying, "A replica is hashing the checkpoint.", WAIT),
    row(MODEL, CheckpointVerified, Reason::SecretNotFound, "The Secret that the checkpoint names is missing or has not what it needs.", "Create the Secret in the model's namespace, with the keys that the message names."),
    row(MODEL, CheckpointVerified, Reason::NotFound, "The store has nothing at the uri.", "Push the checkpoint, or mend checkpoint.uri."),
    row(MODEL, CheckpointVerified, Reason::Unreachable, "The store does not answer.", "Mend the network, checkpoint.endpoint, or the stores that the chart lets pods reach."),
    row(MODEL, CheckpointVerified, Reason::Unauthorized, "The store refuses the credential.", "Mend the Secret that checkpoint.secretRef names."),
    row(MODEL, CheckpointVerified, Reason::Truncated, "The store ended before the checkpoint did; it is tried again.", "If it stays, push the checkpoint again."),
    row(MODEL, CheckpointVerified, Reason::NoSpace, "The checkpoint does not fit in the replica's cache.", "Raise the pool's cache.size, or take models away from the pool."),
    row(MODEL, CheckpointVerified, Reason::DigestMismatch, "The bytes are not those of the digest; nothing of them is used.", "Write the digest of the bytes that you want, or push those again."),
    row(MODEL, CheckpointVerified, Reason::Unsupported, "The checkpoint is of a class, or has a part, that pods can't run.", "Choose a checkpoint of a family that the README lists."),
    row(MODEL, CheckpointVerified, Reason::UnsafeFormat, "A file could run code when it is read.", "Convert the weights to safetensors."),
    row(MODEL, CheckpointVerified, Reason::Unsigned, "The pool demands a signature and there is none.", "Sign the checkpoint (kubectl easel sign), or use another pool."),
    row(MODEL, CheckpointVerified, Reason::SignatureInvalid, "No signature is by a key that the pool trusts.", "Sign with a trusted key, or add the key to the pool's verification.publicKeys."),
    row(MODEL, CheckpointVerified, Reason::LoadFailed, "The bytes are right and the device could not load them; the message has its words.", "Raise spec.memory to what it takes, or mend the checkpoint."),
    row(MODEL, Placed, Reason::Placed, "Every wanted replica has its place.", ""),
    row(MODEL, Placed, Reason::PlacedInTurns, "Every wanted replica has its place, and shares it in turns: requests may wait for a load.", "Nothing, if that is meant; else raise limits.replicas of a pool."),
    row(MODEL, Placed, Reason::Parked, "replicas.min is 0, and there is no replicas.max.", "Raise replicas.min to serve the model, or set replicas.max to wake it on demand."),
    row(MODEL, Placed, Reason::Asleep, "Nobody has asked for the model lately, and replicas.min is 0.", "Nothing: the first request wakes it. Raise replicas.min to spare that one the wait."),
    row(MODEL, Placed, Reason::AwaitingReplica, "The plan has not seen the model yet.", WAIT),
    row(MODEL, Placed, Reason::InvalidSpec, "The object is wrong by itself; an older schema let it through.", "Mend the field that the message names."),
    row(MODEL, Placed, Reason::NoPool, "There is no GpuPool, or every one that was asked is being deleted.", "Create a GpuPool, or name another in spec.pools."),
    row(MODEL, Placed, Reason::UnknownPool, "spec.pools names no GpuPool that exists.", "Create the pool, or mend spec.pools."),
    row(MODEL, Placed, Reason::TooLittleMemory, "No replica of the pools has as much memory as the model needs.", "Use a pool with more memory, or lower spec.memory to what the model really needs."),
    row(MODEL, Placed, Reason::PoolLimitReached, "The pools' limits leave no room for another replica.", "Raise limits.replicas or limits.usdPerHour of a pool, or add one."),
    row(MODEL, Placed, Reason::CostCeiling, "Another replica, or a picture drawn there, would cost more than the model's own ceilings.", "Raise cost.maxUsdPerHour or cost.maxUsdPerImage, lower replicas.min or defaults.steps, or add a cheaper pool."),
    row(MODEL, Placed, Reason::InUse, "The model is being deleted.", WAIT),
    row(MODEL, Serving, Reason::Serving, "At least one replica answers.", ""),
    row(MODEL, Serving, Reason::Starting, "Replicas have their place and do not answer yet.", WAIT),
    row(MODEL, Serving, Reason::NoReadyReplica, "No replica has a place, or none can start; the message says which.", "Mend what Placed or the message says."),
    row(MODEL, AdaptersReady, Reason::Available, "Requests may name every adapter.", ""),
    row(MODEL, AdaptersReady, Reason::Fetching, "Replicas are without the adapters that the message names.", WAIT),
    row(MODEL, AdaptersReady, Reason::SecretNotFound, "The Secret that an adapter names is missing or has not what it needs.", "Create the Secret in the model's namespace."),
    row(MODEL, AdaptersReady, Reason::NotFound, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::Unreachable, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::Unauthorized, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::Truncated, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::NoSpace, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::DigestMismatch, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::Unsupported, "The adapter changes what the model does not have.", "Choose an adapter that was trained for the model."),
    row(MODEL, AdaptersReady, Reason::UnsafeFormat, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::Unsigned, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::SignatureInvalid, "As of a checkpoint.", "As of a checkpoint."),
    row(MODEL, AdaptersReady, Reason::LoadFailed, "As of a checkpoint.", "As of a checkpoint."),
    row(ROUTE, Ready, Reason::AllPartsReady, "Accepted and Serving are true.", ""),
    row(ROUTE, Accepted, Reason::Accepted, "Clients reach the route by its name.", ""),
    row(ROUTE, Accepted, Reason::ShadowsModel, "Accepted, and it stands before an ImageModel of the same name and namespace.", "Nothing, if that is meant; else change spec.model."),
    row(ROUTE, Accepted, Reason::NameTaken, "An older ImageRoute of the namespace has the name; this one is not served.", "Change spec.model, or delete one of the two."),
    row(ROUTE, Accepted, Reason::InvalidSpec, "The object is wrong by itself; an older schema let it through.", "Mend the field that the message names."),
    row(ROUTE, Accepted, Reason::AwaitingPlan, "The plan has not seen the route yet.", WAIT),
    row(ROUTE, ResolvedRefs, Reason::ResolvedRefs, "Every backend exists.", ""),
    row(ROUTE, ResolvedRefs, Reason::BackendNotFound, "A backend is no valid ImageModel of the namespace; the others serve on.", "Create the ImageModel, or mend spec.backends."),
    row(ROUTE, ResolvedRefs, Reason::AwaitingPlan, "The plan has not seen the route yet.", WAIT),
    row(ROUTE, Serving, Reason::Serving, "At least one backend answers.", ""),
    row(ROUTE, Serving, Reason::NoReadyBackend, "No backend answers, or none takes requests.", "Look at the conditions of the ImageModels that status.backends names."),
    row(ROUTE, Serving, Reason::Asleep, "Nobody asks for the route; a backend sleeps.", "Nothing: the first request wakes it."),
    row(ROUTE, Serving, Reason::Parked, "Every backend is parked.", "Raise replicas.min of one of the ImageModels, or write a replicas.max."),
];

/// Whether users can look it up. `Ready` has the reasons of its parts too.
pub fn is_documented(condition: ConditionType, reason: Reason) -> bool {
    MEANINGS.iter().any(|row| row.reason == reason && (row.condition == condition || condition == Ready))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_and_every_condition_has_a_row_and_no_row_comes_twice() {
        for reason in Reason::ALL {
            assert!(MEANINGS.iter().any(|row| row.reason == *reason), "{reason}");
        }
        for condition in ConditionType::ALL {
            assert!(MEANINGS.iter().any(|row| row.condition == *condition), "{condition}");
        }
        let keys: BTreeSet<_> = MEANINGS.iter().map(|row| (row.kind, row.condition, row.reason)).collect();
        assert_eq!(keys.len(), MEANINGS.len());
    }
}
