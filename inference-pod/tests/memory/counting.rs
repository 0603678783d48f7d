//! Counts the bytes that are allocated now and at most. Knows no test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// One measurement at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

fn grow(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is passed on as it is; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as asked of us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as asked of us.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the bytes are copied.
        grow(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as asked of us.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as asked of us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Who has it may measure: the tests of this binary share one allocator.
pub(crate) type Turn = tokio::sync::MutexGuard<'static, ()>;

/// To be asked for before a test allocates anything.
pub(crate) async fn turn() -> Turn {
    TURN.lock().await
}

/// What the process allocates at most while this runs, beyond what it had before. Asked for is counted, used or not.
pub(crate) async fn peak<T>(_: &Turn, run: impl Future<Output = T>) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = run.await;
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

#[tokio::test]
async fn what_is_allocated_and_given_back_is_counted_and_not_what_was_there_before() {
    let turn = turn().await;
    let _before = vec![1_u8; 1 << 20];
    let ((), peak) = peak(&turn, async { drop(std::hint::black_box(vec![0_u8; 64 << 20])) }).await;
    assert!((64 << 20..65 << 20).contains(&peak), "{peak}");
}
