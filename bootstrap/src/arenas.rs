//! How many arenas the C library's allocator may use.
//!
//! By default it makes up to eight per core, and what one thread frees another can't use: behind a crowd
//! that connected at once, a fifth of a server's memory was such leftovers. It must be called before the
//! first thread is started, since a thread keeps the arena that it began with.
//!
//! It has one call that is `unsafe` because it is C: it takes two numbers, keeps neither, and is made
//! before there is a second thread.
#![allow(unsafe_code, reason = "mallopt is the C library's only way to say it; see below")]

/// Limits the arenas to one for each worker and one for all other threads. Does nothing where the
/// allocator is another one.
pub fn limit(n_workers: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let arenas = libc::c_int::try_from(n_workers + 1).unwrap_or(libc::c_int::MAX);
        // SAFETY: it takes two numbers and changes one of the allocator's, under its lock. What it
        // answers is whether it did; where it did not, nothing is different from before.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, arenas);
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        let _ = n_workers;
    }
}
