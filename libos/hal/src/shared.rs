//! Counted references, as `alloc::sync::Arc`, without locked instructions while one vCPU runs.
//!
//! Every call that takes a descriptor counts a reference to its open file and gives it back. With `Arc` these are two
//! locked instructions, a third of what `read` of one byte costs. See `lock.rs` for why one vCPU needs none.

use alloc::boxed::Box;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use core::{cell::UnsafeCell, mem::ManuallyDrop};

use crate::lock::several_cpus;

/// More references than this are a leak that would soon wrap around.
const MAX: usize = isize::MAX as usize;

/// A number of references.
struct Count(AtomicUsize);

impl Count {
    const fn one() -> Self {
        Self(AtomicUsize::new(1))
    }

    /// One more. There must be one already.
    #[inline]
    fn add(&self) {
        let before = if several_cpus() {
            self.0.fetch_add(1, Ordering::Relaxed)
        } else {
            let before = self.0.load(Ordering::Relaxed);
            self.0.store(before + 1, Ordering::Relaxed);
            before
        };
        assert!(before <= MAX, "too many references");
    }

    /// One more, unless there is none.
    fn add_if_any(&self) -> bool {
        let more = |count| (count != 0).then_some(count + 1);
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .is_ok()
    }

    /// One less. True if it was the last: all that was done through the others is seen then.
    #[inline]
    fn take(&self) -> bool {
        if several_cpus() {
            let last = self.0.fetch_sub(1, Ordering::Release) == 1;
            if last {
                fence(Ordering::Acquire);
            }
            last
        } else {
            let left = self.0.load(Ordering::Relaxed) - 1;
            self.0.store(left, Ordering::Relaxed);
            left == 0
        }
    }
}

struct Block<T> {
    strong: Count,
    /// The weak references, and one for all strong ones together.
    weak: Count,
    /// Lives while `strong` is not 0.
    value: UnsafeCell<ManuallyDrop<T>>,
}

/// A counted reference to a value that lives as long as one of them.
pub struct Shared<T> {
    block: NonNull<Block<T>>,
}

/// A reference to the same value that does not keep it alive.
pub struct WeakShared<T> {
    block: NonNull<Block<T>>,
}

// SAFETY: a reference gives `&T` to whoever holds it (T: Sync), and whoever drops the last one drops the value
// (T: Send). The counts order these: see `Count::take`.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above; `&Shared<T>` can be cloned into a `Shared<T>`.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}
// SAFETY: as above; it can be upgraded to a `Shared<T>`.
unsafe impl<T: Send + Sync> Send for WeakShared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for WeakShared<T> {}

impl<T> Shared<T> {
    /// The first reference to `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        let block = Box::new(Block {
            strong: Count::one(),
            weak: Count::one(),
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        });
        Self {
            block: NonNull::from(Box::leak(block)),
        }
    }

    #[inline]
    fn block(&self) -> &Block<T> {
        // SAFETY: a block goes away with its last reference, and this is one.
        unsafe { self.block.as_ref() }
    }

    /// Whether both refer to the same value.
    #[must_use]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.block == other.block
    }

    /// Where the value lies.
    #[must_use]
    pub fn as_ptr(this: &Self) -> *const T {
        core::ptr::from_ref(&**this)
    }

    /// How many references keep the value alive.
    #[must_use]
    pub fn strong_count(this: &Self) -> usize {
        this.block().strong.0.load(Ordering::Relaxed)
    }

    /// A reference that does not keep the value alive.
    #[must_use]
    pub fn downgrade(this: &Self) -> WeakShared<T> {
        this.block().weak.add();
        WeakShared { block: this.block }
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        self.block().strong.add();
        Self { block: self.block }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value lives while a strong reference does, and nobody changes it but through `&T`.
        unsafe { &*self.block().value.get() }
    }
}

impl<T> Drop for Shared<T> {
    #[inline]
    fn drop(&mut self) {
        if self.block().strong.take() {
            drop_value(self.block);
        }
    }
}

/// Drops the value of a block without strong references, then their common weak one.
#[cold]
#[inline(never)]
fn drop_value<T>(block: NonNull<Block<T>>) {
    // SAFETY: the caller took the last strong reference, so nobody has a `&T`, and none can be made from a weak one.
    unsafe { ManuallyDrop::drop(&mut *block.as_ref().value.get()) };
    drop(WeakShared { block });
}

impl<T> WeakShared<T> {
    fn block(&self) -> &Block<T> {
        // SAFETY: a block goes away with its last weak reference, and this is one.
        unsafe { self.block.as_ref() }
    }

    /// A reference that keeps the value alive, unless it is gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<Shared<T>> {
        let block = self.block;
        self.block().strong.add_if_any().then(|| Shared { block })
    }

    /// How many references keep the value alive.
    #[must_use]
    pub fn strong_count(&self) -> usize {
        self.block().strong.0.load(Ordering::Relaxed)
    }

    /// Where the value lies or lay.
    #[must_use]
    pub fn as_ptr(&self) -> *const T {
        self.block().value.get().cast_const().cast()
    }
}

impl<T> Clone for WeakShared<T> {
    fn clone(&self) -> Self {
        self.block().weak.add();
        Self { block: self.block }
    }
}

impl<T> Drop for WeakShared<T> {
    fn drop(&mut self) {
        if self.block().weak.take() {
            // SAFETY: no reference of either kind is left, the value was dropped before; the block came from a box.
            drop(unsafe { Box::from_raw(self.block.as_ptr()) });
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> fmt::Debug for WeakShared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(Weak)")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// Counts its drops.
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (Shared<Counted>, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        (Shared::new(Counted(Arc::clone(&drops))), drops)
    }

    #[test]
    fn the_last_reference_drops_the_value_once() {
        let (first, drops) = counted();
        let second = first.clone();
        assert!(Shared::ptr_eq(&first, &second));
        assert_eq!(Shared::strong_count(&first), 2);
        drop(first);
        assert_eq!(drops.load(Ordering::SeqCst), 0);
        drop(second);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_weak_reference_does_not_keep_the_value() {
        let (strong, drops) = counted();
        let weak = Shared::downgrade(&strong);
        let other = weak.clone();
        assert_eq!(weak.as_ptr(), Shared::as_ptr(&strong));
        assert!(
            weak.upgrade()
                .is_some_and(|up| Shared::ptr_eq(&up, &strong))
        );
        drop(strong);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        assert!(weak.upgrade().is_none());
        drop(weak);
        assert_eq!(other.strong_count(), 0);
    }

    #[test]
    fn threads_count_together() {
        let (shared, drops) = counted();
        thread::scope(|scope| {
            for _ in 0..4 {
                let (mine, weak) = (shared.clone(), Shared::downgrade(&shared));
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        drop((mine.clone(), weak.upgrade()));
                    }
                });
            }
        });
        assert_eq!(Shared::strong_count(&shared), 1);
        drop(shared);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}
