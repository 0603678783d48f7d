//! The rule on small worlds by hand, and what holds for every history.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn standing(id: u64, at: Tier, bytes: u64) -> Standing {
    Standing {
        id: PipelineId(id),
        at: Some(at),
        keep: Tier::Disk,
        bytes: Some(bytes),
        due: None,
        busy: false,
        moving: false,
        may_rise: true,
        used: id,
        risen: id,
    }
}

fn decide(standings: &[Standing], device: u64, reserved: u64, host: u64) -> Decision {
    let on = |tier| standings.iter().filter(move |one| one.at == Some(tier)).map(bytes).sum();
    let used = on(Tier::Device);
    let device = Device { limit: Some(device), used, leaving: 0, reserved };
    World { standings, device, host: Host { limit: host, used: on(Tier::Host) } }.decide()
}

#[allow(clippy::unnecessary_wraps, reason = "what a decision holds")]
fn moves(id: u64, to: Tier) -> Option<Step> {
    Some(Step::Move { id: PipelineId(id), to })
}

fn awaited(mut standing: Standing, start: Instant, seconds: u64) -> Standing {
    standing.due = Some(start + Duration::from_secs(seconds));
    standing
}

#[test]
fn nothing_moves_without_need() {
    let rest = [standing(1, Tier::Device, 4), standing(2, Tier::Host, 4), standing(3, Tier::Disk, 4)];
    assert_eq!(decide(&rest, 10, 0, 10), Decision::default());
}

#[test]
fn the_earliest_due_comes_up_and_the_least_recently_used_goes_to_the_host_for_it() {
    let now = Instant::now();
    let mut models = [
        standing(1, Tier::Device, 4),
        standing(2, Tier::Device, 4),
        awaited(standing(3, Tier::Host, 4), now, 9),
        awaited(standing(4, Tier::Disk, 4), now, 5),
    ];
    assert_eq!(decide(&models, 8, 0, 8).step, moves(1, Tier::Host));
    assert_eq!(decide(&models, 8, 0, 0).step, moves(1, Tier::Disk), "no host tier");
    let waits = [standing(1, Tier::Device, 4), awaited(standing(2, Tier::Host, 4), now, 9)];
    assert_eq!(decide(&waits, 4, 0, 4).step, moves(1, Tier::Disk), "not what comes up itself");
    models[0].at = Some(Tier::Host);
    assert_eq!(decide(&models, 8, 0, 8).step, moves(4, Tier::Device));
    models[3].bytes = None;
    assert_eq!(decide(&models, 4, 0, 8).step, moves(4, Tier::Device), "the loader says what it needs");
}

#[test]
fn what_is_pinned_stays_and_what_can_not_fit_beside_it_is_told() {
    let now = Instant::now();
    let pinned = |keep| Standing { keep, ..standing(1, Tier::Device, 4) };
    let other = awaited(standing(2, Tier::Disk, 4), now, 1);
    let told = Some(Step::Never { id: PipelineId(2), room_bytes: 3 });
    assert_eq!(decide(&[pinned(Tier::Device), other.clone()], 7, 0, 9).step, told);
    assert_eq!(decide(&[pinned(Tier::Host), other.clone()], 7, 0, 9).step, moves(1, Tier::Host));
    assert_eq!(decide(&[pinned(Tier::Host), other], 7, 0, 3).step, told, "the host can't take it either");
}

#[test]
fn a_busy_model_is_closed_to_what_is_due_later_and_goes_when_it_is_idle() {
    let now = Instant::now();
    let busy = |id| Standing { busy: true, ..standing(id, Tier::Device, 4) };
    let other = awaited(standing(3, Tier::Disk, 4), now, 7);
    let decision = decide(&[busy(1), busy(2), other.clone()], 8, 0, 0);
    assert_eq!(decision.step, None);
    assert_eq!(decision.closed, [(PipelineId(1), other.due)].into(), "the one that came up first, and no more");
    assert_eq!(decide(&[standing(1, Tier::Device, 4), busy(2), other], 8, 0, 0).step, moves(1, Tier::Disk));
}

#[test]
fn pictures_that_were_admitted_get_the_room_of_models_that_may_go() {
    let idle = standing(1, Tier::Device, 4);
    let busy = Standing { busy: true, ..standing(2, Tier::Device, 4) };
    assert_eq!(decide(&[idle.clone(), busy.clone()], 10, 2, 0), Decision::default());
    assert_eq!(decide(&[idle.clone(), busy.clone()], 10, 3, 0).step, moves(1, Tier::Disk));
    let pinned = Standing { keep: Tier::Device, ..idle };
    let decision = decide(&[pinned, busy], 10, 3, 0);
    assert_eq!((decision.step, decision.closed), (None, [(PipelineId(2), None)].into()));
}

#[test]
fn pins_come_first_and_the_host_makes_room_for_its_own() {
    let now = Instant::now();
    let pinned = Standing { keep: Tier::Device, at: None, ..standing(2, Tier::Disk, 4) };
    let other = awaited(standing(1, Tier::Disk, 4), now, 1);
    assert_eq!(decide(&[other, pinned], 8, 0, 0).step, moves(2, Tier::Device));
    let kept = Standing { keep: Tier::Host, ..standing(3, Tier::Disk, 4) };
    assert_eq!(decide(&[standing(1, Tier::Host, 4), kept.clone()], 8, 0, 6).step, moves(1, Tier::Disk));
    assert_eq!(decide(std::slice::from_ref(&kept), 8, 0, 6).step, moves(3, Tier::Host));
    assert_eq!(decide(&[kept], 8, 0, 3).step, Some(Step::Never { id: PipelineId(3), room_bytes: 3 }));
    let folder = Standing { at: None, ..standing(1, Tier::Disk, 4) };
    assert_eq!(decide(&[folder], 8, 0, 0).step, moves(1, Tier::Disk));
}

/// A pod of which only the places are played.
struct Play {
    standings: Vec<Standing>,
    device: u64,
    host: u64,
    start: Instant,
    now: u64,
    /// Due and work.
    waiting: Vec<Vec<(Instant, u32)>>,
    /// Work admitted.
    work: Vec<u32>,
    in_flight: Option<(PipelineId, Tier, u32)>,
    raises: usize,
}

#[derive(Clone, Debug)]
struct Arrival {
    model: usize,
    work: u32,
    patience: u64,
    pause: u32,
}

impl Play {
    fn index(&self, id: PipelineId) -> usize {
        self.standings.iter().position(|one| one.id == id).unwrap()
    }

    fn bytes_on(&self, tier: Tier) -> u64 {
        let coming = |one: &Standing| self.in_flight.is_some_and(|(id, to, _)| id == one.id && to == tier);
        self.standings.iter().filter(|one| one.at == Some(tier) || coming(one)).map(bytes).sum()
    }

    fn decide(&self) -> Decision {
        let device = Device { limit: Some(self.device), used: self.bytes_on(Tier::Device), leaving: 0, reserved: 0 };
        let host = Host { limit: self.host, used: self.bytes_on(Tier::Host) };
        World { standings: &self.standings, device, host }.decide()
    }

    fn arrive(&mut self, arrival: &Arrival) {
        let due = self.start + Duration::from_secs(self.now + arrival.patience);
        self.waiting[arrival.model % self.standings.len()].push((due, arrival.work));
        self.admit();
    }

    /// What waits for a model that is on the device, and not closed to it.
    fn admit(&mut self) {
        self.refresh();
        let closed = self.decide().closed;
        for (index, one) in self.standings.iter().enumerate() {
            if one.at == Some(Tier::Device) && !one.moving {
                let opens =
                    |due: Instant| closed.get(&one.id).is_none_or(|until| until.is_some_and(|until| due < until));
                let admitted = self.waiting[index].extract_if(.., |(due, _)| opens(*due));
                self.work[index] += admitted.map(|(_, work)| work).sum::<u32>();
            }
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        for (index, one) in self.standings.iter_mut().enumerate() {
            (one.due, one.busy) = (self.waiting[index].iter().map(|(due, _)| *due).min(), self.work[index] > 0);
            one.used = if one.busy { self.now } else { one.used };
        }
    }

    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.now += 1;
        self.work.iter_mut().for_each(|work| *work = work.saturating_sub(1));
        self.land();
        self.admit();
        if self.in_flight.is_none()
            && let Some(step) = self.decide().step
        {
            self.begin(step)?;
        }
        let (device, host) = (self.bytes_on(Tier::Device), self.bytes_on(Tier::Host));
        prop_assert!(
            device <= self.device && host <= self.host,
            "{device} of {}, {host} of {}",
            self.device,
            self.host
        );
        Ok(())
    }

    fn begin(&mut self, step: Step) -> Result<(), TestCaseError> {
        let Step::Move { id, to } = step else { return Err(TestCaseError::fail(format!("{step:?}"))) };
        let index = self.index(id);
        let one = &self.standings[index];
        let unkept = self.standings.iter().any(|one| one.at < Some(one.keep));
        let wanted = self.waiting.iter().any(|waiting| !waiting.is_empty());
        prop_assert!(unkept || wanted, "{step:?} without need");
        prop_assert!(!one.busy && to >= one.keep.min(one.at.unwrap_or(Tier::Disk)), "{step:?} of {one:?}");
        self.raises += usize::from(to == Tier::Device);
        self.standings[index].moving = true;
        self.in_flight = Some((id, to, 2));
        Ok(())
    }

    fn land(&mut self) {
        let Some((id, to, left)) = self.in_flight else { return };
        if left > 0 {
            self.in_flight = Some((id, to, left - 1));
            return;
        }
        self.in_flight = None;
        let index = self.index(id);
        let one = &mut self.standings[index];
        (one.at, one.moving) = (Some(to), false);
        if to == Tier::Device {
            one.risen = self.now;
        }
    }
}

/// Models that can all be served, one beside the pins at least.
fn plays() -> impl Strategy<Value = (Vec<(u64, usize)>, u64, u64)> {
    let models = prop::collection::vec((1u64..6, 0usize..6), 1..6);
    (models, 0u64..8, 0u64..8).prop_map(|(models, beside, beside_host)| {
        let pinned = |tier: usize| models.iter().filter(move |(_, keep)| *keep == tier).map(|(bytes, _)| bytes);
        let largest = |tier: usize| models.iter().filter(move |(_, keep)| *keep != tier).map(|(bytes, _)| *bytes).max();
        let device = pinned(5).sum::<u64>() + largest(5).unwrap_or(0) + beside;
        let host = pinned(4).sum::<u64>() + beside_host;
        (models, device, host)
    })
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0usize..6, 1u32..5, 0u64..30, 0u32..4);
    let arrival = arrival.prop_map(|(model, work, patience, pause)| Arrival { model, work, patience, pause });
    prop::collection::vec(arrival, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// And on the way: never above a limit, nothing below its pin, nothing busy moves, nothing moves without need.
    #[test]
    fn every_request_gets_its_model_and_models_rise_no_more_often_than_they_are_asked_for(
        (models, device, host) in plays(), arrivals in arrivals()
    ) {
        let keep = |tier| match tier { 5 => Tier::Device, 4 => Tier::Host, _ => Tier::Disk };
        let standings = (1..).zip(&models).map(|(id, (bytes, tier))| {
            Standing { keep: keep(*tier), at: None, ..standing(id, Tier::Disk, *bytes) }
        });
        let standings: Vec<_> = standings.collect();
        let (waiting, work) = (vec![Vec::new(); models.len()], vec![0; models.len()]);
        let start = Instant::now();
        let mut play = Play { standings, device, host, start, now: 0, waiting, work, in_flight: None, raises: 0 };
        for arrival in &arrivals {
            play.arrive(arrival);
            for _ in 0..arrival.pause {
                play.tick()?;
            }
        }
        // Each request costs three moves of as many models at most, and each is drawn alone in the worst case.
        let most = arrivals.len() * (3 * 3 * models.len()) + arrivals.iter().map(|arrival| arrival.work as usize).sum::<usize>();
        let unkept = |play: &Play| play.standings.iter().any(|one| one.at < Some(one.keep));
        let mut ticks = 0;
        while unkept(&play) || play.waiting.iter().any(|waiting| !waiting.is_empty()) || play.in_flight.is_some() {
            prop_assert!(ticks < most + 9 * models.len() + 9, "still waiting: {:?}", play.waiting);
            play.tick()?;
            ticks += 1;
        }
        prop_assert_eq!(play.decide(), Decision::default());
        let pins = models.iter().filter(|(_, tier)| *tier == 5).count();
        prop_assert!(play.raises <= arrivals.len() + pins, "{} for {} requests", play.raises, arrivals.len());
    }
}
