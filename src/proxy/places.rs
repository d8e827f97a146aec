//! How many attempts may be under way at once, so that open files are left for everything else.
//!
//! Each may need a connection to an arm, and a single client of HTTP/2 can have a thousand requests under
//! way. The bound is the process's: a worker takes places from it in lots, so that one worker may have nearly
//! all of them, and a request changes no word that another thread reads but for every so many.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places in a lot at most.
const LOT_MOST: usize = 64;
/// With few places, what the workers have to spare together is at most about a quarter of them.
const SPARE_PART: usize = 8;

/// The places that no worker has.
#[derive(Debug)]
pub struct Places {
    free: AtomicUsize,
    lot: usize,
}

impl Places {
    /// So many, for so many workers.
    #[must_use]
    pub fn new(count: usize, workers: usize) -> Self {
        Self {
            free: AtomicUsize::new(count),
            lot: (count / workers.max(1) / SPARE_PART).clamp(1, LOT_MOST),
        }
    }

    fn take_lot(&self) -> usize {
        let order = Ordering::Relaxed;
        let left = |free: usize| (free > 0).then(|| free.saturating_sub(self.lot));
        let before = self.free.fetch_update(order, order, left);
        before.map_or(0, |free| free.min(self.lot))
    }
}

/// What one worker has of them.
#[derive(Debug)]
pub struct Share {
    places: Arc<Places>,
    spare: Cell<usize>,
}

/// Leave to be under way; given back when it is dropped.
#[derive(Debug)]
pub struct Place(Rc<Share>);

impl Share {
    /// Nothing yet.
    #[must_use]
    pub const fn new(places: Arc<Places>) -> Self {
        let spare = Cell::new(0);
        Self { places, spare }
    }

    /// Takes a place; `None` if there is none left.
    #[must_use]
    pub fn take(this: &Rc<Self>) -> Option<Place> {
        if this.spare.get() == 0 {
            this.spare.set(this.places.take_lot());
        }
        let left = this.spare.get().checked_sub(1)?;
        this.spare.set(left);
        Some(Place(Rc::clone(this)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Share { places, spare } = &*self.0;
        let mut now_spare = spare.get() + 1;
        // With a lot in hand, the next request need not ask for one again.
        if now_spare > 2 * places.lot {
            now_spare -= places.lot;
            places.free.fetch_add(places.lot, Ordering::Relaxed);
        }
        spare.set(now_spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(share: &Rc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| Share::take(share)).collect()
    }

    #[test]
    fn one_worker_may_have_all_that_the_others_do_not_spare() {
        for (count, workers) in [(1, 1), (5, 8), (412, 2), (412, 8), (55_336, 2)] {
            let places = Arc::new(Places::new(count, workers));
            let shares: Vec<_> = (0..workers)
                .map(|_| Rc::new(Share::new(Arc::clone(&places))))
                .collect();
            let first = take_all(&shares[0]);
            assert_eq!(first.len(), count);
            assert!(shares.iter().all(|share| Share::take(share).is_none()));
            drop(first);
            // What the first keeps in hand is not lost to the others for long.
            let next = take_all(&shares[workers - 1]);
            let kept = 2 * places.lot;
            assert!(next.len() + kept >= count, "{} of {count}", next.len());
            assert_eq!(next.len() + take_all(&shares[0]).len(), count);
        }
    }

    #[test]
    fn no_place_is_given_twice_or_lost() {
        let places = Arc::new(Places::new(100, 4));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let places = Arc::clone(&places);
                scope.spawn(move || {
                    let share = Rc::new(Share::new(Arc::clone(&places)));
                    for round in 0..200 {
                        let taken: Vec<_> = (0..(round * 7 + worker) % 60)
                            .map_while(|_| Share::take(&share))
                            .collect();
                        assert!(taken.len() <= 100);
                    }
                    places.free.fetch_add(share.spare.get(), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(places.free.load(Ordering::Relaxed), 100);
    }
}
