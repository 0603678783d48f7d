//! Bytes of the host to tensors of a device, beside what it computes, by two halves of pinned memory: one is filled while
//! the other is on its way. Knows in what order that is right; does not know files.
//!
//! Three things could go wrong, and `staging/tests.rs` proves that none does. libtorch gives memory to new tensors that
//! steps which are still to be computed use: so copies wait for what was given to the device before. A half that is filled
//! again while the device reads it would send the new bytes: so its event is waited for. And memory that is freed while it
//! is copied from or to is somebody else's: so whatever fails, what is on its way is waited for, and if even that fails it is
//! never freed.

#[cfg(test)]
mod tests;

use tch::Tensor;

use super::copies::{Copies, Queue};
use super::moves::{block, copies_wait_for_computing};
use super::runtime::{CudaError, Way};

/// For one thread.
#[derive(Debug)]
pub struct Staging<'a, C: Copies> {
    copies: &'a C,
    halves: [Half<C>; 2],
    next: usize,
}

#[derive(Debug)]
struct Half<C: Copies> {
    /// Gone when nobody knows whether it is still read.
    memory: Option<C::Memory>,
    copied: C::Event,
    /// What is on its way from here, to a tensor that must not go meanwhile.
    going: Option<Going>,
}

#[derive(Debug)]
struct Going {
    _to: Tensor,
    /// Whether [`Half::copied`] is its event.
    is_recorded: bool,
}

impl<'a, C: Copies> Staging<'a, C> {
    /// Halves of so many bytes. Only for tensors that were allocated before this.
    pub fn new(copies: &'a C, bytes: usize) -> Result<Self, CudaError> {
        copies_wait_for_computing(copies)?;
        let half = || Ok(Half { memory: Some(copies.memory(bytes)?), copied: copies.event()?, going: None });
        Ok(Self { copies, halves: [half()?, half()?], next: 0 })
    }

    /// What `fill` writes goes to `to`, which is contiguous, on the device, and no longer than a half. It is there when
    /// [`Self::finish`] has returned.
    ///
    /// # Errors
    /// The device's, and inside `fill`'s, after which nothing was sent.
    pub fn send<E>(
        &mut self,
        to: &Tensor,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, CudaError> {
        let (start, bytes) = block(to)?;
        let half = &mut self.halves[self.next];
        half.arrive(self.copies)?;
        let memory = half.memory.as_mut().and_then(|memory| memory.as_mut().get_mut(..bytes));
        let memory = memory.ok_or(CudaError::Layout("it is longer than what it goes through"))?;
        if let Err(error) = fill(memory) {
            return Ok(Err(error));
        }
        half.going = Some(Going { _to: to.shallow_clone(), is_recorded: false });
        // SAFETY: both blocks are `bytes` long. The half keeps both, and waits for the event before it touches or frees
        // one of them; if the event can't be recorded or waited for, it keeps them for ever.
        #[allow(unsafe_code)]
        unsafe {
            self.copies.copy(start, memory.as_ptr(), bytes, Way::ToDevice)?;
        }
        self.copies.record(Queue::Copying, &half.copied)?;
        if let Some(going) = &mut half.going {
            going.is_recorded = true;
        }
        self.next = 1 - self.next;
        Ok(Ok(()))
    }

    /// Everything that was sent has arrived.
    pub fn finish(mut self) -> Result<(), CudaError> {
        let copies = self.copies;
        self.halves.iter_mut().try_for_each(|half| half.arrive(copies))
    }
}

impl<C: Copies> Half<C> {
    fn arrive(&mut self, copies: &C) -> Result<(), CudaError> {
        let Some(going) = &self.going else { return Ok(()) };
        if !going.is_recorded {
            copies.record(Queue::Copying, &self.copied)?;
        }
        copies.wait(&self.copied)?;
        self.going = None;
        Ok(())
    }
}

impl<C: Copies> Drop for Staging<'_, C> {
    fn drop(&mut self) {
        for half in &mut self.halves {
            if let Err(error) = half.arrive(self.copies) {
                tracing::error!(%error, "lost sight of a copy to the device; its memory is never freed");
                std::mem::forget((half.memory.take(), half.going.take()));
            }
        }
    }
}
