//! Holds the Lease while it can and says which term this process leads, if any.
//! Knows the API server's clock-free rules in `lease`; does not know what a leader does.

mod lease;

use std::time::{Duration, Instant};

use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::names::OPERATOR;
use lease::{Candidate, Decision, Record, Seen};

/// No attempt may take so long that the next would come after the deadline.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
/// After a failed attempt; soon enough that several fit before the deadline.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaderArgs {
    /// Seconds of silence after which another replica takes over
    #[arg(long, env = "EASEL_LEASE_SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..=300))]
    pub lease_seconds: u64,
    /// Seconds between two renewals; at most half of the lease's duration
    #[arg(long, env = "EASEL_RENEW_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=150))]
    pub renew_seconds: u64,
}

impl LeaderArgs {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Two thirds: a leader that can't write stops a third of the duration before another starts.
    fn deadline(&self) -> Duration {
        self.duration() * 2 / 3
    }

    fn renew_every(&self) -> Duration {
        Duration::from_secs(self.renew_seconds).min(self.duration() / 2)
    }
}

#[derive(Clone, Debug, Default)]
pub struct LeaderMetrics {
    leading: Gauge,
}

impl LeaderMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("leader", "1 while this replica plans and writes", metrics.leading.clone());
        metrics
    }
}

/// The term that this process leads; `None` while it stands by.
pub type Term = Option<u64>;

#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    me: String,
    args: LeaderArgs,
    metrics: LeaderMetrics,
    /// The highest term that a pod has reported.
    floor: watch::Receiver<u64>,
    term: watch::Sender<Term>,
    seen: Option<Seen>,
    /// The highest term that the Lease has shown: one that somebody deletes must not start over.
    highest: u64,
    /// When the last write that succeeded was begun.
    renewed: Option<Instant>,
}

impl Elector {
    /// `me` must be unique to this process: another one of the same name would renew its Lease.
    pub fn new(
        client: Client,
        namespace: &str,
        me: String,
        args: LeaderArgs,
        metrics: LeaderMetrics,
        floor: watch::Receiver<u64>,
    ) -> Self {
        let (term, _) = watch::channel(None);
        Self {
            api: Api::namespaced(client, namespace),
            me,
            args,
            metrics,
            floor,
            term,
            seen: None,
            highest: 0,
            renewed: None,
        }
    }

    pub fn term(&self) -> watch::Receiver<Term> {
        self.term.subscribe()
    }

    /// Until `stop`; then the Lease is given back, so that another leads at once.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = self.step().await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.floor.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.release().await;
    }

    /// One attempt; returns how long to wait for the next.
    async fn step(&mut self) -> Duration {
        let begun = Instant::now();
        let led = *self.term.borrow();
        match tokio::time::timeout(ATTEMPT_TIMEOUT, self.attempt()).await {
            Ok(Ok(term)) => {
                self.renewed = term.map(|_| begun);
                self.publish(term);
                return self.args.renew_every();
            }
            Ok(Err(error)) => warn!(error = %error, led, "failed to renew the lease"),
            Err(_) => warn!(led, "the lease attempt took too long"),
        }
        if self.renewed.is_none_or(|renewed| renewed.elapsed() + RETRY >= self.args.deadline()) {
            self.publish(None);
        }
        RETRY
    }

    async fn attempt(&mut self) -> kube::Result<Term> {
        let found = self.api.get_opt(OPERATOR).await?;
        let now = Instant::now();
        self.seen = found.as_ref().map(|lease| Seen::update(self.seen.take(), Record::read(lease), now));
        let shown = self.seen.as_ref().map_or(0, Seen::term);
        // While the Lease is there, its own term is what the next one is above.
        let floor = if found.is_some() { 0 } else { self.highest }.max(*self.floor.borrow_and_update());
        self.highest = self.highest.max(shown);
        let me = Candidate { name: &self.me, leads: *self.term.borrow() };
        match lease::decide(self.seen.as_ref(), me, floor, self.args.duration(), now) {
            Decision::StandBy => Ok(None),
            Decision::Acquire { term } | Decision::Renew { term } => {
                let lease = self.lease(found.as_ref(), Some(&self.me), term);
                self.write(found.is_some(), &lease).await?;
                Ok(Some(term))
            }
        }
    }

    fn lease(&self, previous: Option<&Lease>, holder: Option<&str>, term: u64) -> Lease {
        let mut lease = lease::written(previous, holder, term, self.args.duration(), Timestamp::now());
        lease.metadata.name = Some(OPERATOR.to_owned());
        lease
    }

    /// With the resourceVersion that was read: of two that write, one loses.
    async fn write(&self, exists: bool, lease: &Lease) -> kube::Result<Lease> {
        if exists {
            self.api.replace(OPERATOR, &PostParams::default(), lease).await
        } else {
            self.api.create(&PostParams::default(), lease).await
        }
    }

    fn publish(&self, term: Term) {
        self.metrics.leading.set(i64::from(term.is_some()));
        self.term.send_if_modified(|held| {
            let changed = *held != term;
            if changed {
                info!(term, former = *held, "leadership changed");
            }
            *held = term;
            changed
        });
    }

    async fn release(self) {
        let Some(term) = self.term.send_replace(None) else { return };
        self.metrics.leading.set(0);
        let released = async {
            let found = self.api.get(OPERATOR).await?;
            if Record::read(&found).holder.as_deref() == Some(&*self.me) {
                let lease = self.lease(Some(&found), None, term);
                self.write(true, &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(ATTEMPT_TIMEOUT, released).await {
            Ok(Ok(())) => info!(term, "lease released"),
            Ok(Err(error)) => warn!(error = %error, term, "failed to release the lease"),
            Err(_) => warn!(term, "failed to release the lease in time"),
        }
    }
}
