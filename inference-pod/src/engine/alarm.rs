//! Wakes the engine thread at a time, since it sleeps until it is told something.
//! Knows one time; does not know what is due then.

use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::mpsc::WeakSender;
use tokio::sync::watch;

use super::Command;

pub(super) struct Alarm(watch::Sender<Option<Instant>>);

impl Alarm {
    /// Ends when it is dropped.
    pub(super) fn start(runtime: &Handle, bell: WeakSender<Command>) -> Self {
        let (set, mut at) = watch::channel(None::<Instant>);
        runtime.spawn(async move {
            loop {
                let due = *at.borrow_and_update();
                let changed = match due {
                    Some(due) => tokio::select! {
                        changed = at.changed() => changed,
                        () = tokio::time::sleep_until(due.into()) => {
                            if let Some(bell) = bell.upgrade() {
                                let _ = bell.try_send(Command::LoaderSpoke); // full: the engine is awake
                            }
                            at.changed().await
                        }
                    },
                    None => at.changed().await,
                };
                if changed.is_err() {
                    return;
                }
            }
        });
        Self(set)
    }

    /// `None`: nothing is due.
    pub(super) fn set(&self, at: Option<Instant>) {
        self.0.send_if_modified(|held| std::mem::replace(held, at) != at);
    }
}
