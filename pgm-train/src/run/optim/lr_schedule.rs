//! The learning rate: linear warm-up, then constant or a half cosine.

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::config::{Decay, OptimSection};

/// The learning rate of one step after the other.
#[derive(Clone, Debug)]
pub(crate) struct LrSchedule {
    optim: OptimSection,
    steps: usize,
    next: usize,
}

impl LrSchedule {
    pub(crate) fn new(optim: &OptimSection, steps: usize) -> Self {
        Self { optim: optim.clone(), steps, next: 0 }
    }

    fn rate(&self, step: usize) -> f64 {
        let OptimSection { lr, warmup, decay, .. } = self.optim;
        if step < warmup {
            return lr * (step + 1) as f64 / warmup as f64;
        }
        match decay {
            Decay::Constant => lr,
            Decay::Cosine => {
                let done = (step - warmup) as f64 / (self.steps.saturating_sub(warmup)).max(1) as f64;
                lr * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
            }
        }
    }
}

impl LrScheduler for LrSchedule {
    fn step(&mut self) -> f64 {
        self.next += 1;
        self.rate(self.next - 1)
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("next", self.next)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(next) = record.scalar("next") {
            self.next = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(decay: Decay) -> Vec<f64> {
        let optim = OptimSection { lr: 1.0, warmup: 4, decay, ..OptimSection::default() };
        let mut schedule = LrSchedule::new(&optim, 8);
        (0..8).map(|_| schedule.step()).collect()
    }

    #[test]
    fn the_warm_up_is_linear_and_then_the_rate_is_constant_or_a_cosine() {
        assert_eq!(rates(Decay::Constant), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let cosine = rates(Decay::Cosine);
        assert_eq!(cosine[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((cosine[6] - 0.5).abs() < 1e-12 && cosine[7] < 0.2, "{cosine:?}");
    }

    #[test]
    fn a_restored_schedule_continues_at_the_next_step() {
        let mut first = LrSchedule::new(&OptimSection::default(), 8);
        first.step();
        first.step();
        let mut second = LrSchedule::new(&OptimSection::default(), 8);
        second.load_record(first.to_record());
        assert_eq!(first.step(), second.step());
    }
}
