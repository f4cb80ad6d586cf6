//! The allocator's habits: memory that is free goes back to the system.
//!
//! A daemon answers one large list and then idles for hours; by default the C
//! library would keep the peak (mallopt(3), malloc_trim(3)). Without glibc
//! these calls do nothing.

/// Free memory at the top of the heap beyond this goes back at once, bytes.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: i32 = 64 * 1024;

/// Blocks from this size on are mapped, so that freeing them gives them back,
/// bytes.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: i32 = 128 * 1024;

/// Sets the process up to stay small: one arena, and low thresholds. Call it
/// before any other thread is started.
pub fn stay_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) changes numbers of the allocator under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}

/// Gives free pages inside the heap back to the system.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own lock and touches only
    // memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
