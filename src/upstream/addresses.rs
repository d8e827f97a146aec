//! The addresses of an arm: what the resolver said last, and in which order to try them.
//!
//! Pure: `now` comes in, in milliseconds of any clock that never goes back. Connections take turns among the
//! addresses, so that all of them are used. One that lost to a later one goes to the end until the resolver
//! is asked again. A resolver that fails never takes an address away.
#![deny(clippy::disallowed_methods)]

use std::net::SocketAddr;

/// How long an answer of the resolver serves.
pub(super) const RESOLVE_EVERY_MS: u64 = 30_000;
/// When to ask again after a failure: of the resolver, or to connect.
pub(super) const ASK_AGAIN_MS: u64 = 1_000;

/// What is known of one arm's addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Those at the end have lost a race.
    known: Vec<SocketAddr>,
    lost: usize,
    turn: usize,
    due_at_ms: u64,
}

impl Addresses {
    /// True as long as the resolver has never answered.
    pub(super) const fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// True if the resolver should be asked.
    pub(super) const fn is_due(&self, now_ms: u64) -> bool {
        self.known.is_empty() || now_ms >= self.due_at_ms
    }

    /// The resolver answered. `found` is not empty.
    pub(super) fn found(&mut self, found: Vec<SocketAddr>, now_ms: u64) {
        self.due_at_ms = now_ms.saturating_add(RESOLVE_EVERY_MS);
        self.known = both_families_in_turn(found);
        self.lost = 0;
    }

    /// The resolver did not answer, or a connection failed: what is known serves on, and is asked for anew soon.
    pub(super) fn doubt(&mut self, now_ms: u64) {
        self.due_at_ms = self.due_at_ms.min(now_ms.saturating_add(ASK_AGAIN_MS));
    }

    /// The resolver did not answer.
    pub(super) fn not_found(&mut self, now_ms: u64) {
        self.due_at_ms = now_ms.saturating_add(ASK_AGAIN_MS);
    }

    /// Ages the last answer, so that the resolver is asked again.
    #[cfg(test)]
    pub(super) fn expire(&mut self) {
        self.due_at_ms = 0;
    }

    /// All addresses in the order of trying; another one comes first each time.
    pub(super) fn in_turn(&mut self) -> Vec<SocketAddr> {
        let mut order = self.known.clone();
        let good = order.len() - self.lost.min(order.len());
        if let Some(good) = order.get_mut(..good)
            && !good.is_empty()
        {
            good.rotate_left(self.turn % good.len());
        }
        self.turn = self.turn.wrapping_add(1);
        order
    }

    /// These were tried before the one that answered.
    pub(super) fn lost(&mut self, losers: &[SocketAddr]) {
        let before = self.known.len();
        self.known.retain(|address| !losers.contains(address));
        // The resolver may have answered meanwhile: only what it still names is kept.
        let known = before - self.known.len();
        self.known.extend(losers.iter().take(known));
        self.lost = (self.lost + known).min(self.known.len().saturating_sub(1));
    }
}

/// The resolver's order within each family, the families taking turns: if one of them leads nowhere, every
/// second attempt still gets through.
fn both_families_in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend(pair.0);
        mixed.extend(pair.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443))
    }

    #[test]
    fn families_and_then_connections_take_turns() {
        let mut addresses = Addresses::default();
        addresses.found(vec![v6(1), v6(2), v4(1)], 0);
        assert_eq!(addresses.in_turn(), [v6(1), v4(1), v6(2)]);
        assert_eq!(addresses.in_turn(), [v4(1), v6(2), v6(1)]);
        assert_eq!(addresses.in_turn()[0], v6(2));
        assert_eq!(addresses.in_turn()[0], v6(1));
    }

    #[test]
    fn an_address_that_lost_comes_last_until_the_resolver_is_asked_again() {
        let mut addresses = Addresses::default();
        addresses.found(vec![v4(1), v4(2), v4(3)], 0);
        addresses.lost(&[v4(1)]);
        let firsts: Vec<_> = (0..4).map(|_| addresses.in_turn()).collect();
        assert!(firsts.iter().all(|order| order[2] == v4(1)), "{firsts:?}");
        assert_ne!(firsts[0][0], firsts[1][0]);
        addresses.lost(&[v4(2), v4(1)]);
        assert_eq!(addresses.in_turn()[0], v4(3));
        // All have lost by now to each other: one of them is still first.
        addresses.lost(&[v4(3), v4(9)]);
        assert_eq!(addresses.in_turn().len(), 3);
        addresses.found(vec![v4(1)], 30_000);
        assert_eq!(addresses.in_turn(), [v4(1)]);
    }

    #[test]
    fn the_resolver_is_asked_every_thirty_seconds_and_its_failures_take_nothing_away() {
        let mut addresses = Addresses::default();
        assert!(addresses.is_due(0) && addresses.is_empty());
        addresses.found(vec![v4(1)], 1_000);
        assert!(!addresses.is_due(30_999));
        assert!(addresses.is_due(31_000));
        addresses.not_found(31_000);
        assert!(!addresses.is_due(31_999));
        assert!(addresses.is_due(32_000));
        assert_eq!(addresses.in_turn(), [v4(1)]);
        addresses.found(vec![v4(2)], 32_000);
        assert_eq!(addresses.in_turn(), [v4(2)]);
        // A connection that fails brings the next question forward, and never puts it off.
        addresses.doubt(40_000);
        assert!(addresses.is_due(41_000));
        addresses.doubt(40_900);
        assert!(addresses.is_due(41_000));
    }
}
