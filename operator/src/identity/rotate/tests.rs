//! Whole rotations against an API server in memory, with crashes, lost answers and two leaders.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::SignedDuration;

use super::super::authorities::ROTATE;
use super::super::rotation::Stored;
use super::super::secret;
use super::super::store::{Fault, Store};
use super::*;

const WAITS: Waits = Waits { spread: Duration::from_secs(10), grace: Duration::from_secs(10) };
/// Readers of a Secret are at most this much behind.
const LAG: Duration = Duration::from_secs(9);
const CA: &str = "easel-system/easel-ca";
const FOREIGN: &str = "art/easel-model-m-tls";
/// A rotation takes two waits; a crash repeats one of them.
const ENOUGH: u64 = 60;

struct World {
    store: Store,
    issuer: Issuer,
    begun: Instant,
    wall: Timestamp,
}

impl World {
    async fn new() -> Self {
        let begun = Instant::now();
        let store = Store::new(begun);
        store.add_deployment("easel-system", "easel-pool-cpu");
        store.add_deployment("art", "easel-model-m");
        let issuer = Issuer::open(store.client(), "easel-system").await.unwrap();
        let world = Self { store, issuer, begun, wall: Timestamp::now() };
        world.second(&mut Rotation::new(WAITS), 0).await;
        world
    }

    async fn second(&self, rotation: &mut Rotation, second: u64) {
        let now = self.begun + Duration::from_secs(second);
        self.store.set_now(now);
        let wall = self.wall + SignedDuration::try_from(Duration::from_secs(second)).unwrap();
        rotation.tend(&self.issuer, now, wall).await;
    }

    fn ask(&self, word: &str) {
        self.store.annotate(CA, ROTATE, word);
    }

    fn authorities(&self) -> Authorities {
        Authorities::read(&self.store.secret(CA)).unwrap()
    }

    /// The certificates' Secrets, as they were from when until when, with those who may read late.
    fn lives(&self) -> Vec<(String, Held, Instant, Option<Instant>)> {
        let history = self.store.history();
        let leaves = history.iter().enumerate().filter(|(_, (_, key, _))| key != CA);
        let lives = leaves.map(|(index, (at, key, secret))| {
            let next = history[index + 1..].iter().find(|(_, other, _)| other == key);
            (key.clone(), held(secret), *at, next.map(|(at, ..)| *at + LAG))
        });
        lives.collect()
    }

    /// Whoever reads late, no two ever meet of which one does not trust the other.
    fn nobody_was_cut_off(&self) {
        let lives = self.lives();
        for (caller, theirs, from, until) in &lives {
            for (called, ours, since, end) in &lives {
                let meet = end.is_none_or(|end| *from <= end) && until.is_none_or(|until| *since <= until);
                let trusted = trusted(&ours.trusts).contains(&theirs.signer);
                assert!(!meet || trusted, "{called} does not trust {caller} {:?} after the start", *from - self.begun);
            }
        }
    }

    /// The authority was replaced, by one that alone is trusted and has signed everything.
    fn has_rotated(&self, former: &Authorities) -> bool {
        let now = self.authorities();
        let leaves = self.lives().into_iter().filter(|(_, _, _, until)| until.is_none()).collect::<Vec<_>>();
        assert_eq!(leaves.len(), 4);
        let all = leaves.iter().all(|(_, held, _, _)| now.trusted_by(held) && &held.signer == now.signer_id());
        now.stored() == Stored::Steady && now.signer_id() != former.signer_id() && all
    }
}

fn held(found: &Secret) -> Held {
    secret::held(found).unwrap()
}

fn trusted(bundle: &str) -> Vec<super::super::renewal::KeyId> {
    let blocks = bundle.split_inclusive("-----END CERTIFICATE-----\n");
    blocks.filter_map(|block| Some(secret::own(block)?.0)).collect()
}

#[tokio::test]
async fn a_rotation_replaces_every_certificate_and_cuts_nobody_off() {
    let world = World::new().await;
    let former = world.authorities();
    let mut rotation = Rotation::new(WAITS);
    world.second(&mut rotation, 1).await;
    assert_eq!(world.store.writes(), 5, "who is not asked writes nothing");
    world.ask("today");
    for second in 2..ENOUGH {
        world.second(&mut rotation, second).await;
    }
    assert!(world.has_rotated(&former));
    world.nobody_was_cut_off();
    let done = world.store.writes();
    world.second(&mut rotation, ENOUGH).await;
    assert_eq!(world.store.writes(), done, "who asked once is answered once");
}

#[tokio::test]
async fn a_crash_at_any_write_delays_a_rotation_and_cuts_nobody_off() {
    for fault in [Fault::Lost, Fault::Unanswered] {
        // Five writes made the world; three are the authority's steps, and each of four certificates has three.
        for write in 6..=20 {
            let world = World::new().await;
            let former = world.authorities();
            world.ask("today");
            world.store.fail(write, fault);
            let mut rotation = Rotation::new(WAITS);
            for second in 1..ENOUGH {
                let before = world.store.writes();
                world.second(&mut rotation, second).await;
                if before < write && world.store.writes() >= write {
                    rotation = Rotation::new(WAITS);
                }
            }
            assert!(world.store.writes() >= 20, "{fault:?} {write}");
            assert!(world.has_rotated(&former), "{fault:?} {write}");
            world.nobody_was_cut_off();
        }
    }
}

#[tokio::test]
async fn a_restart_at_any_time_delays_a_rotation_and_cuts_nobody_off() {
    for restart in 1..30 {
        let world = World::new().await;
        let former = world.authorities();
        world.ask("today");
        let mut rotation = Rotation::new(WAITS);
        for second in 1..ENOUGH {
            if second == restart {
                rotation = Rotation::new(WAITS);
            }
            world.second(&mut rotation, second).await;
        }
        assert!(world.has_rotated(&former), "{restart}");
        world.nobody_was_cut_off();
    }
}

#[tokio::test]
async fn two_leaders_that_both_believe_to_lead_cut_nobody_off() {
    for pause in [1, 2, 7, 11, 25] {
        let world = World::new().await;
        let former = world.authorities();
        let (mut one, mut other) = (Rotation::new(WAITS), Rotation::new(WAITS));
        world.ask("today");
        for second in 1..2 * ENOUGH {
            world.second(&mut one, second).await;
            if second % pause == 0 {
                world.second(&mut other, second).await;
            }
            if second == ENOUGH {
                assert!(world.has_rotated(&former), "{pause}");
                world.ask("again"); // a leader that slept through a rotation must not take its phase for this one's
            }
        }
        world.nobody_was_cut_off();
    }
}

#[tokio::test]
async fn a_certificate_that_can_not_be_written_holds_a_rotation_up_until_it_expires() {
    let mut world = World::new().await;
    let former = world.authorities();
    world.ask("today");
    world.store.freeze(FOREIGN);
    let mut rotation = Rotation::new(WAITS);
    for second in 1..ENOUGH {
        world.second(&mut rotation, second).await;
    }
    assert_eq!(world.authorities().stored(), Stored::Introduced);
    world.wall += SignedDuration::from_hours(7 * 24 + 1);
    for second in ENOUGH..2 * ENOUGH {
        world.second(&mut rotation, second).await;
    }
    let after = world.authorities();
    assert_eq!(after.stored(), Stored::Steady);
    assert_ne!(after.signer_id(), former.signer_id());
}

#[tokio::test]
async fn a_clock_that_jumps_shortens_no_wait() {
    let mut world = World::new().await;
    world.ask("today");
    let mut rotation = Rotation::new(WAITS);
    world.second(&mut rotation, 1).await;
    world.second(&mut rotation, 2).await;
    for hours in [1, -1] {
        world.wall += SignedDuration::from_hours(hours);
        world.second(&mut rotation, 3).await;
        assert_eq!(world.authorities().stored(), Stored::Introduced);
    }
}
