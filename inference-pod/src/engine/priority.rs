//! Puts a thread behind those that draw. Knows the kernel's scheduler; does not know what the thread does.

/// Of `nice`. The kernel gives such a thread 56 shares where one of 0 has 1024 (`sched_prio_to_weight`), so two of them take a
/// tenth of a core that a step wants too, and all of one that nobody wants. Lower still, and a load would not come to its
/// end beside steps that want every core.
const BEHIND: libc::c_int = 13;

/// The calling thread, and those that it starts from now on. Loading is hashing and copying by as many threads as there are
/// cores; without this, a batch that runs meanwhile shares its cores with them and takes longer for every step. Other pods
/// are not concerned, for their shares of the node are their cgroups'.
#[allow(unsafe_code)]
pub(super) fn go_behind() {
    // SAFETY: the call reads no memory of ours; 0 is the calling thread, for on Linux a priority is a thread's. One that
    // fails leaves the priority as it was.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BEHIND) } != 0 {
        tracing::warn!(error = %std::io::Error::last_os_error(), "loads can't be put behind steps");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code)]
    fn priority() -> libc::c_int {
        // SAFETY: reads no memory of ours.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn a_thread_and_those_it_starts_go_behind_and_no_others() {
        let before = priority();
        let behind = || std::thread::scope(|scope| scope.spawn(priority).join().unwrap());
        let (own, started) = std::thread::spawn(move || {
            go_behind();
            (priority(), behind())
        })
        .join()
        .unwrap();
        assert_eq!((own, started, priority()), (BEHIND, BEHIND, before));
    }
}
