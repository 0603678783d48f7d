//! Whose turn it is: a start-time fair queue of tenants in each lane, in model calls.
//! Knows lanes, tenants and calls; does not know jobs, shapes or deadlines.

use std::collections::BTreeMap;

use easel_api::{Priority, Tenant};

#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<Priority, Lane>);

#[derive(Debug, Default)]
struct Lane {
    /// The latest turn that was taken; a tenant that comes back has no claim to what it left unused.
    now: u64,
    accounts: BTreeMap<Tenant, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// The turn after what was paid for; at most the longest job above the lane's `now`.
    next: u64,
    stretch: Option<Stretch>,
}

/// Calls in a row that a tenant has paid for, and that whichever of its jobs is due first leads.
#[derive(Debug)]
struct Stretch {
    turn: u64,
    calls_left: u32,
}

impl Shares {
    /// At which this tenant leads its next call.
    pub(super) fn turn(&self, lane: Priority, tenant: &Tenant) -> u64 {
        self.0.get(&lane).map_or(0, |lane| lane.turn(tenant))
    }

    /// Books a call that a tenant leads. If it has none left it pays for as many as the job that leads still needs.
    pub(super) fn lead(&mut self, lane: Priority, tenant: &Tenant, steps_left: u32) {
        let lane = self.0.entry(lane).or_default();
        let turn = lane.turn(tenant);
        lane.now = lane.now.max(turn);
        let account = lane.accounts.entry(tenant.clone()).or_default();
        let mut stretch = account.stretch.take().unwrap_or_else(|| {
            account.next = turn + u64::from(steps_left);
            Stretch { turn, calls_left: steps_left }
        });
        stretch.calls_left -= 1;
        account.stretch = Some(stretch).filter(|stretch| stretch.calls_left > 0);
        lane.forget();
    }

    /// Who has no job left gives up what it has paid for.
    pub(super) fn leave(&mut self, tenant: &Tenant) {
        for lane in self.0.values_mut() {
            if let Some(account) = lane.accounts.get_mut(tenant) {
                account.stretch = None;
                lane.forget();
            }
        }
    }
}

impl Lane {
    fn turn(&self, tenant: &Tenant) -> u64 {
        let Some(account) = self.accounts.get(tenant) else { return self.now };
        account.stretch.as_ref().map_or(account.next.max(self.now), |stretch| stretch.turn)
    }

    /// Those that have had no more than their share.
    fn forget(&mut self) {
        let now = self.now;
        self.accounts.retain(|_, account| account.next > now || account.stretch.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Priority = Priority::Normal;

    fn lead(shares: &mut Shares, tenant: &Tenant, steps: u32) {
        (0..steps).rev().for_each(|left| shares.lead(LANE, tenant, left + 1));
    }

    #[test]
    fn who_has_led_goes_behind_who_has_not_and_who_comes_back_has_saved_nothing() {
        let mut shares = Shares::default();
        let [a, b] = ["a", "b"].map(Tenant::new);
        shares.lead(LANE, &a, 10);
        assert_eq!(shares.turn(LANE, &a), 0, "it has paid for ten calls");
        lead(&mut shares, &a, 9);
        assert!(shares.turn(LANE, &b) < shares.turn(LANE, &a));
        (0..5).for_each(|_| lead(&mut shares, &a, 10));
        assert_eq!((shares.turn(LANE, &b), shares.turn(LANE, &a)), (50, 60));
        assert_eq!(shares.turn(Priority::High, &a), 0, "a lane knows nothing of another");
    }

    #[test]
    fn who_leaves_gives_up_the_calls_that_it_has_paid_for() {
        let mut shares = Shares::default();
        let tenant = Tenant::new("a");
        shares.lead(LANE, &tenant, 10);
        shares.leave(&tenant);
        assert_eq!(shares.turn(LANE, &tenant), 10);
    }

    #[test]
    fn tenants_that_have_no_more_than_their_share_are_forgotten() {
        let mut shares = Shares::default();
        for tenant in 0..1000 {
            lead(&mut shares, &Tenant::new(&tenant.to_string()), 5);
        }
        lead(&mut shares, &Tenant::new("0"), 5);
        assert_eq!(shares.0[&LANE].accounts.len(), 1);
    }
}
