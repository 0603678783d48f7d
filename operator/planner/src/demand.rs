//! How often each model is asked for: what was asked lately says what will be asked next.
//! Owns the memory of arrivals, two numbers a model; knows no request and no replica.

use crate::time::{Moment, Span};

/// A model by its place in a table that the caller keeps; small numbers, so that rates lie in one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelIx(pub u32);

/// People work in sessions: who just asked for a model mostly asks for it again. In the published trace of a production
/// fleet 72 % of a user's requests are for the model of the one before, half of them within 4 requests of the fleet.
const SESSION: f64 = 40.0;
/// What stays of the demand when sessions end.
const HABIT: f64 = 600.0;
/// How much of the forecast is sessions: about the share of requests that the same user follows up with the same model.
const SESSION_SHARE: f64 = 0.7;

/// Arrivals by model, as two exponentially weighted rates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    rates: Vec<Rate>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rate {
    session: f64,
    habit: f64,
    /// Work of one request, in seconds at speed 1.
    work: f64,
    at: Moment,
}

impl Demand {
    pub fn note(&mut self, model: ModelIx, work: Span, now: Moment) {
        let at = model.0 as usize;
        if self.rates.len() <= at {
            self.rates.resize(at + 1, Rate::default());
        }
        let rate = &mut self.rates[at];
        let (session, habit) = rate.at(now);
        let first = rate.work == 0.0;
        let work = if first { work.secs() } else { rate.work + 0.1 * (work.secs() - rate.work) };
        *rate = Rate { session: session + 1.0 / SESSION, habit: habit + 1.0 / HABIT, work, at: now };
    }

    /// Requests a second that are expected now.
    pub fn per_second(&self, model: ModelIx, now: Moment) -> f64 {
        let Some(rate) = self.rates.get(model.0 as usize) else { return 0.0 };
        let (session, habit) = rate.at(now);
        SESSION_SHARE * session + (1.0 - SESSION_SHARE) * habit
    }

    /// Seconds of work, at speed 1, that one request takes on average.
    pub fn work(&self, model: ModelIx) -> f64 {
        self.rates.get(model.0 as usize).map_or(0.0, |rate| rate.work)
    }

    pub fn models(&self) -> impl Iterator<Item = ModelIx> {
        (0..self.rates.len()).map(|at| ModelIx(u32::try_from(at).unwrap_or(u32::MAX)))
    }
}

impl Rate {
    fn at(&self, now: Moment) -> (f64, f64) {
        let seconds = now.since(self.at).secs();
        (self.session * (-seconds / SESSION).exp(), self.habit * (-seconds / HABIT).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::from_secs(seconds)
    }

    #[test]
    fn a_steady_stream_is_forecast_at_its_own_rate() {
        let mut demand = Demand::default();
        for second in 0..4000 {
            demand.note(ModelIx(1), Span::from_secs(9.0), at(f64::from(second) * 2.0));
        }
        let rate = demand.per_second(ModelIx(1), at(8000.0));
        assert!((rate - 0.5).abs() < 0.02, "{rate}");
        assert!((demand.work(ModelIx(1)) - 9.0).abs() < 1e-9);
    }

    #[test]
    fn a_burst_is_believed_for_a_while_and_then_forgotten() {
        let mut demand = Demand::default();
        for _ in 0..5 {
            demand.note(ModelIx(0), Span::from_secs(9.0), at(0.0));
        }
        let soon = demand.per_second(ModelIx(0), at(10.0));
        let later = demand.per_second(ModelIx(0), at(600.0));
        assert!(soon > 0.05 && later < soon / 20.0, "{soon} {later}");
    }

    #[test]
    fn nobody_asked_for_what_was_never_noted() {
        assert!(Demand::default().per_second(ModelIx(9), at(1.0)).abs() < f64::EPSILON);
    }
}
