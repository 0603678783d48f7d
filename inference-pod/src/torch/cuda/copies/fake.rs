//! A device that computes and copies whenever chance says so, and at the latest when somebody waits. Copies read and write
//! real memory when they are done, not when they are asked for, so whoever is too early gets wrong bytes, or a hazard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Copies, Queue};
use crate::torch::cuda::runtime::{CudaError, Way};

#[derive(Debug)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How much is done of each queue meanwhile, call by call; nothing when they are used up.
    chances: VecDeque<u8>,
    copying: VecDeque<Entry>,
    /// Of what the device was given to compute: given, and done.
    given: u64,
    computed: u64,
    /// By their numbers: what they wait for.
    events: Vec<Point>,
    /// Marks of the copying queue that were passed, and that were set.
    passed: u64,
    marks: u64,
    /// The call from now on that fails, and those after it.
    fails_in: Option<u32>,
    /// Those after it do not.
    fails_once: bool,
    /// Memory of the host, as it was given: start and length.
    memory: Vec<(usize, usize)>,
    /// Copies wait for no less of the computing than this.
    fence: u64,
    hazards: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Point {
    #[default]
    Now,
    Computed(u64),
    Copied(u64),
}

#[derive(Debug)]
enum Entry {
    Wait(Point),
    Mark(u64),
    Copy { to: usize, from: usize, bytes: usize, way: Way },
}

impl Fake {
    pub(crate) fn new(chances: Vec<u8>, fails_in: Option<u32>) -> Self {
        Self(Arc::new(Mutex::new(State { chances: chances.into(), fails_in, ..State::default() })))
    }

    /// Gives the device something to compute; copies that are asked for from now on must wait for it.
    pub(crate) fn compute(&self, work: u64) {
        let mut state = self.state();
        state.given += work;
        state.fence = state.given;
    }

    /// What went wrong, and what is still to be copied.
    pub(crate) fn hazards(&self) -> (Vec<String>, usize) {
        let state = self.state();
        (state.hazards.clone(), state.copying.iter().filter(|entry| matches!(entry, Entry::Copy { .. })).count())
    }

    /// Whatever fails in `call` fails once.
    pub(crate) fn failing_once<T>(&self, call: impl FnOnce() -> T) -> T {
        self.state().fails_once = true;
        call()
    }

    pub(crate) fn memory_held(&self) -> usize {
        self.state().memory.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// One call: chance goes on, and the call may fail.
    fn call(&self) -> Result<MutexGuard<'_, State>, CudaError> {
        let mut state = self.state();
        let chance = state.chances.pop_front().unwrap_or_default();
        state.computed = state.given.min(state.computed + u64::from(chance & 3));
        (0..chance >> 2 & 3).for_each(|_| state.advance());
        match state.fails_in {
            Some(0) => {
                state.fails_in = if state.fails_once { None } else { Some(0) };
                Err(CudaError::Call { call: "a fake", code: 1, text: "as it was told".into() })
            }
            calls => {
                state.fails_in = calls.map(|calls| calls - 1);
                Ok(state)
            }
        }
    }
}

impl State {
    fn happened(&self, point: Point) -> bool {
        match point {
            Point::Now => true,
            Point::Computed(work) => self.computed >= work,
            Point::Copied(mark) => self.passed >= mark,
        }
    }

    /// One entry of the copying queue, if what it waits for has happened.
    fn advance(&mut self) {
        match self.copying.front() {
            None => return,
            Some(Entry::Wait(point)) if !self.happened(*point) => return,
            Some(Entry::Wait(_)) => {}
            Some(Entry::Mark(mark)) => self.passed = *mark,
            Some(Entry::Copy { to, from, bytes, way }) => self.copied((*to, *from, *bytes), *way),
        }
        self.copying.pop_front();
    }

    #[allow(unsafe_code)]
    fn copied(&mut self, (to, from, bytes): (usize, usize, usize), way: Way) {
        let host = if way == Way::ToDevice { from } else { to };
        if self.computed < self.fence {
            self.hazards.push("a copy was done before what was to be computed first".into());
        }
        if !self.memory.iter().any(|(start, length)| *start <= host && host + bytes <= start + length) {
            return self.hazards.push("a copy touches memory of the host that is gone".into());
        }
        // SAFETY: the host's memory is held, as was just checked; the device's is a tensor that whoever asked for the copy
        // promised to keep.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
    }
}

impl Copies for Fake {
    /// Its number.
    type Event = usize;
    type Memory = FakeMemory;

    fn memory(&self, bytes: usize) -> Result<FakeMemory, CudaError> {
        let mut state = self.call()?;
        let memory = vec![0xAA; bytes].into_boxed_slice();
        state.memory.push((memory.as_ptr() as usize, bytes));
        Ok(FakeMemory { memory, state: Arc::clone(&self.0) })
    }

    fn event(&self) -> Result<usize, CudaError> {
        let mut state = self.call()?;
        state.events.push(Point::Now);
        Ok(state.events.len() - 1)
    }

    fn record(&self, queue: Queue, event: &usize) -> Result<(), CudaError> {
        let mut state = self.call()?;
        state.events[*event] = match queue {
            Queue::Computing => Point::Computed(state.given),
            Queue::Copying => {
                state.marks += 1;
                let mark = state.marks;
                state.copying.push_back(Entry::Mark(mark));
                Point::Copied(mark)
            }
        };
        Ok(())
    }

    fn copies_wait(&self, event: &usize) -> Result<(), CudaError> {
        let mut state = self.call()?;
        let point = state.events[*event];
        state.copying.push_back(Entry::Wait(point));
        Ok(())
    }

    fn wait(&self, event: &usize) -> Result<(), CudaError> {
        let mut state = self.call()?;
        let point = state.events[*event];
        while !state.happened(point) {
            state.computed = state.given.min(state.computed + 1);
            state.advance();
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    unsafe fn copy(&self, to: *mut u8, from: *const u8, bytes: usize, way: Way) -> Result<(), CudaError> {
        let mut state = self.call()?;
        state.copying.push_back(Entry::Copy { to: to as usize, from: from as usize, bytes, way });
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct FakeMemory {
    memory: Box<[u8]>,
    state: Arc<Mutex<State>>,
}

impl AsRef<[u8]> for FakeMemory {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl AsMut<[u8]> for FakeMemory {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for FakeMemory {
    fn drop(&mut self) {
        let gone = self.memory.as_ptr() as usize;
        let mut state = self.state.lock().unwrap();
        state.memory.retain(|(start, _)| *start != gone);
        let bytes = self.memory.len();
        let is_in = |at: usize| (gone..gone + bytes).contains(&at);
        let touched = state.copying.iter().any(|entry| match entry {
            Entry::Copy { to, from, .. } => is_in(*to) || is_in(*from),
            Entry::Wait(_) | Entry::Mark(_) => false,
        });
        if touched {
            state.hazards.push("memory of the host went while it was still to be copied".into());
        }
    }
}
