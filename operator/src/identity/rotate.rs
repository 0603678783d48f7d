//! Looks after every certificate, and takes the authority from phase to phase: the leader's part.
//! Effects only: what is due is decided in `renewal` and `rotation`.

use std::time::{Duration, Instant};

use clap::Args;
use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use tracing::{info, warn};

use super::authorities::Authorities;
use super::issue::{Ensured, IssueError, Issuer};
use super::renewal::Held;
use super::rotation::{Phase, Seen, Waits};
use crate::controller::Chain;
use crate::names::CA_SECRET;

/// They live for days, and what asks for another authority is watched for.
const EVERY: Duration = Duration::from_mins(10);
/// After a failure; doubled up to [`RETRY_MOST`], so that a Secret that can't be written costs little.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_mins(2);
/// Certificates that are looked after at once.
const AT_ONCE: usize = 8;

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Certificates")]
pub struct RotationArgs {
    /// Seconds for which every certificate's Secret shows a new authority before it signs. Shorten it for tests only:
    /// a pod that has not read the Secret by then loses its callers until it has
    // A kubelet brings a changed Secret within 2.5 minutes (its period of 60 s and half, its cache's 60 s), the pod looks
    // every 10 s, a watch of a gateway that failed is begun again within a minute, and a pod whose Deployment is gone
    // drains for 135 s: twice what they take together.
    #[arg(long, env = "EASEL_CA_SPREAD_SECONDS", default_value_t = 600)]
    pub ca_spread_seconds: u64,
    /// Seconds for which a former authority is trusted after the last certificate of it was replaced. Shorten it for
    /// tests only
    // What reads the certificates reads the authorities: the same time.
    #[arg(long, env = "EASEL_CA_GRACE_SECONDS", default_value_t = 600)]
    pub ca_grace_seconds: u64,
}

/// Never ends.
pub async fn look_after(issuer: &Issuer, args: &RotationArgs) {
    let RotationArgs { ca_spread_seconds, ca_grace_seconds } = *args;
    let waits = Waits { spread: Duration::from_secs(ca_spread_seconds), grace: Duration::from_secs(ca_grace_seconds) };
    let config = watcher::Config::default().fields(&format!("metadata.name={CA_SECRET}"));
    let mut touched = std::pin::pin!(watcher(issuer.secrets(), config).default_backoff().touched_objects());
    let mut rotation = Rotation::new(waits);
    loop {
        let pause = rotation.tend(issuer, Instant::now(), Timestamp::now()).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(seen) = touched.next() => if let Err(error) = seen {
                warn!(%error, "failed to watch the authority");
                tokio::time::sleep(RETRY).await;
            },
        }
    }
}

/// Where this process is. What the Secret does not tell is waited for again by the next one.
pub(super) struct Rotation {
    waits: Waits,
    phase: Phase,
    /// What the phase is of: a Secret that somebody else has changed means another phase.
    of: Option<Authorities>,
    failures: u32,
}

impl Rotation {
    pub(super) fn new(waits: Waits) -> Self {
        Self { waits, phase: Phase::Steady, of: None, failures: 0 }
    }

    /// One round; returns how long to wait for the next.
    pub(super) async fn tend(&mut self, issuer: &Issuer, now: Instant, wall: Timestamp) -> Duration {
        match self.round(issuer, now, wall).await {
            Ok(pause) => {
                self.failures = 0;
                pause
            }
            Err(error) => {
                if let Some(error) = error {
                    warn!(error = %Chain(&error), "failed to look after certificates");
                }
                self.failures = self.failures.saturating_add(1);
                (RETRY * 2_u32.saturating_pow(self.failures - 1).min(1 << 10)).min(RETRY_MOST)
            }
        }
    }

    /// An error without a cause: one or several certificates have logged theirs.
    async fn round(&mut self, issuer: &Issuer, now: Instant, wall: Timestamp) -> Result<Duration, Option<IssueError>> {
        let authorities = issuer.authorities(wall).await?;
        self.recall(&authorities);
        let Swept { untold, unreplaced, failed } = sweep(issuer, &authorities, wall).await?;
        let seen = Seen { due: authorities.is_due(wall), untold, unreplaced };
        let next = self.phase.next(seen, self.waits, now);
        if next != self.phase {
            info!(former = ?self.phase.stored(), phase = ?next.stored(), untold, unreplaced, "authorities looked after");
        }
        let changed = next.stored() != self.phase.stored();
        if changed {
            issuer.write(&authorities.step(wall).map_err(IssueError::from)?).await?;
        }
        self.phase = next;
        if failed > 0 { Err(None) } else { Ok(if changed { Duration::ZERO } else { self.pause() }) }
    }

    fn recall(&mut self, authorities: &Authorities) {
        let same = self.of.as_ref().is_some_and(|of| of.same_as(authorities));
        if !same {
            self.phase = Phase::of(authorities.stored());
            self.of = Some(authorities.clone());
        }
    }

    /// Often enough that a wait is not much longer than it must be.
    fn pause(&self) -> Duration {
        let wait = match self.phase {
            Phase::Steady => return EVERY,
            Phase::Introducing | Phase::Replacing => return RETRY,
            Phase::Spreading { .. } => self.waits.spread,
            Phase::Retiring { .. } => self.waits.grace,
        };
        (wait / 4).clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}

#[derive(Clone, Copy, Default)]
struct Swept {
    untold: usize,
    unreplaced: usize,
    failed: usize,
}

async fn sweep(issuer: &Issuer, authorities: &Authorities, wall: Timestamp) -> Result<Swept, IssueError> {
    let leaves = issuer.leaves().await?;
    let ensured = leaves.into_iter().map(|leaf| async move { issuer.ensure(&leaf, authorities, wall).await });
    let mut ensured = stream::iter(ensured).buffer_unordered(AT_ONCE);
    let mut swept = Swept::default();
    while let Some(ensured) = ensured.next().await {
        swept = swept.and(ensured, authorities, wall);
    }
    Ok(swept)
}

impl Swept {
    fn and(mut self, ensured: Ensured, authorities: &Authorities, wall: Timestamp) -> Self {
        let (held, error) = match ensured {
            Ensured::Fine(held) => (Some(held), None),
            Ensured::Unwritten(held, error) => (held, Some(error)),
            Ensured::Unread(error) => {
                // What can't be read may be anything.
                self.untold += 1;
                self.unreplaced += 1;
                (None, Some(error))
            }
        };
        if let Some(error) = error {
            warn!(error = %Chain(&error), "failed to look after a certificate");
            self.failed += 1;
        }
        // One that has expired opens no door whoever signed it; so nobody can hold a rotation up for more than a week.
        if let Some(held) = held.filter(|held: &Held| held.not_after > wall) {
            self.untold += usize::from(!authorities.trusted_by(&held));
            self.unreplaced += usize::from(&held.signer != authorities.signer_id());
        }
        self
    }
}

#[cfg(test)]
mod tests;
