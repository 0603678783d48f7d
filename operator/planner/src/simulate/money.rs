//! The books of one replica: every microsecond that it exists is drawing, loading or idle, and each has its price.
//! Knows no request; the sum of the three is the bill.

use crate::time::{Moment, Span};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Books {
    pub drawing: Span,
    pub loading: Span,
    /// From the order until it was gone.
    pub existed: Span,
    since: Option<Moment>,
}

impl Books {
    pub fn open(&mut self, now: Moment) {
        self.since.get_or_insert(now);
    }

    pub fn close(&mut self, now: Moment) {
        if let Some(since) = self.since.take() {
            self.existed += now.since(since);
        }
    }

    pub fn idle(&self) -> Span {
        self.existed.less(self.drawing).less(self.loading)
    }
}
