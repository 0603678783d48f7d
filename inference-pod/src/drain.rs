//! Whether the pod takes new requests, and how many it still answers.
//! Owns both numbers; does not know what a request is, nor why the pod stops.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    draining: watch::Sender<bool>,
    in_flight: watch::Sender<usize>,
}

/// Held while a request is answered.
#[derive(Debug)]
pub struct InFlight(Drain);

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(Inner { draining: watch::Sender::new(false), in_flight: watch::Sender::new(0) }))
    }
}

impl Drain {
    /// From now on nothing new is taken.
    pub fn begin(&self) {
        self.0.draining.send_replace(true);
    }

    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }

    /// `None` when draining. Counts first and looks after, so that [`Self::idle`] never misses one.
    pub fn enter(&self) -> Option<InFlight> {
        self.0.in_flight.send_modify(|count| *count += 1);
        let guard = InFlight(self.clone());
        if self.is_draining() { None } else { Some(guard) }
    }

    /// Returns when no request is answered any more.
    pub async fn idle(&self) {
        let mut count = self.0.in_flight.subscribe();
        // The sender lives in self, so this can't fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_draining_pod_takes_nothing_and_is_idle_when_the_last_has_left() {
        let drain = Drain::default();
        let guard = drain.enter().unwrap();
        drain.begin();
        assert!(drain.enter().is_none());
        let mut idle = Box::pin(drain.idle());
        assert!(futures::poll!(&mut idle).is_pending());
        drop(guard);
        idle.await;
    }
}
