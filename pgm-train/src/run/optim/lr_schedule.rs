//! The learning rate: linear warm-up, then one of the schedules of [`LrScheduleKind`].

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::config::{LrScheduleKind, OptimSection};

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

    /// The learning rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        let OptimSection { lr, warmup, schedule, floor, .. } = self.optim;
        if step < warmup {
            return lr * (step + 1) as f64 / warmup as f64;
        }
        let start = self.decay_start();
        if step < start {
            return lr;
        }
        // The share of the decay that lies behind: 0 at its first step, 1 one step after the last.
        let done = ((step - start) as f64 / self.steps.saturating_sub(start).max(1) as f64).min(1.0);
        let height = match schedule {
            LrScheduleKind::Constant => return lr,
            LrScheduleKind::Linear | LrScheduleKind::Wsd => 1.0 - done,
            LrScheduleKind::Cosine | LrScheduleKind::CosineEnd => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        lr * (floor + (1.0 - floor) * height)
    }

    // The first step of the decay.
    fn decay_start(&self) -> usize {
        let OptimSection { warmup, schedule, decay_share, .. } = self.optim;
        if !schedule.decays_at_the_end() {
            return warmup;
        }
        let n_decay = (decay_share * self.steps as f64).round() as usize;
        self.steps.saturating_sub(n_decay.max(1)).max(warmup)
    }

    /// Whether the first `n_steps` steps have the same learning rates under both.
    pub(crate) fn has_same_past(&self, other: &Self, n_steps: usize) -> bool {
        (0..n_steps).all(|step| self.rate(step) == other.rate(step))
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

    fn optim(schedule: LrScheduleKind, floor: f64, decay_share: f64) -> OptimSection {
        OptimSection { lr: 2.0, warmup: 4, schedule, floor, decay_share, ..OptimSection::default() }
    }

    fn rates(optim: &OptimSection, steps: usize) -> Vec<f64> {
        let mut schedule = LrSchedule::new(optim, steps);
        (0..steps).map(|_| schedule.step()).collect()
    }

    #[test]
    fn rates_are_those_computed_by_hand() {
        // cos(pi / 4) and cos(pi / 3) are 0.70711 and 0.5.
        let half = 0.5_f64.sqrt();
        for (schedule, floor, share, steps, expected) in [
            (LrScheduleKind::Constant, 0.0, 0.1, 8, vec![0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]),
            (LrScheduleKind::Linear, 0.0, 0.1, 8, vec![0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]),
            (LrScheduleKind::Linear, 0.2, 0.1, 8, vec![0.5, 1.0, 1.5, 2.0, 2.0, 1.6, 1.2, 0.8]),
            (LrScheduleKind::Cosine, 0.0, 0.1, 8, vec![0.5, 1.0, 1.5, 2.0, 2.0, 1.0 + half, 1.0, 1.0 - half]),
            (
                LrScheduleKind::Cosine,
                0.5,
                0.1,
                8,
                vec![0.5, 1.0, 1.5, 2.0, 2.0, 1.5 + 0.5 * half, 1.5, 1.5 - 0.5 * half],
            ),
            // The last 3 of 10 steps.
            (LrScheduleKind::CosineEnd, 0.0, 0.3, 10, vec![0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 0.5]),
            (LrScheduleKind::CosineEnd, 0.01, 0.3, 10, vec![0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 1.505, 0.515]),
            (LrScheduleKind::Wsd, 0.0, 0.4, 10, vec![0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]),
            (LrScheduleKind::Wsd, 0.5, 0.4, 10, vec![0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.75, 1.5, 1.25]),
            // The decay does not reach into the warm-up, and has one step at least.
            (LrScheduleKind::Wsd, 0.0, 1.0, 6, vec![0.5, 1.0, 1.5, 2.0, 2.0, 1.0]),
            (LrScheduleKind::Wsd, 0.0, 0.01, 6, vec![0.5, 1.0, 1.5, 2.0, 2.0, 2.0]),
        ] {
            let found = rates(&optim(schedule, floor, share), steps);
            assert_eq!(found.len(), expected.len());
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() < 1e-12, "{schedule:?} {floor} {share}, step {step}: {found}");
            }
        }
    }

    #[test]
    fn the_published_image_schedule_falls_over_the_last_tenth_to_a_hundredth() {
        let optim = OptimSection { lr: 1e-4, warmup: 2500, floor: 0.01, ..optim(LrScheduleKind::CosineEnd, 0.0, 0.1) };
        let schedule = LrSchedule::new(&optim, 500_000);
        for (step, expected) in [(2499, 1e-4), (449_999, 1e-4), (450_000, 1e-4), (475_000, 0.505e-4)] {
            assert!((schedule.rate(step) - expected).abs() < 1e-12, "step {step}: {}", schedule.rate(step));
        }
        assert!((schedule.rate(499_999) - 1e-6).abs() < 1e-12);
    }

    #[test]
    fn without_a_floor_the_cosine_is_that_of_earlier_versions_to_the_bit() {
        let schedule = LrSchedule::new(&OptimSection { lr: 3e-4, ..optim(LrScheduleKind::Cosine, 0.0, 0.1) }, 1000);
        for step in 4..1000 {
            let done = (step - 4) as f64 / 996.0;
            let before = 3e-4 * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
            assert_eq!(schedule.rate(step), before, "step {step}");
        }
    }

    #[test]
    fn more_steps_leave_the_past_alone_until_the_decay_begins() {
        let past = |kind, n_steps| {
            let [short, long] = [100, 200].map(|steps| LrSchedule::new(&optim(kind, 0.0, 0.1), steps));
            short.has_same_past(&long, n_steps)
        };
        assert!(past(LrScheduleKind::Constant, 100));
        for kind in [LrScheduleKind::Linear, LrScheduleKind::Cosine] {
            // The warm-up and the first step after it.
            assert!(past(kind, 5) && !past(kind, 6), "{kind:?}");
        }
        for kind in [LrScheduleKind::CosineEnd, LrScheduleKind::Wsd] {
            assert!(past(kind, 91) && !past(kind, 92), "{kind:?}");
        }
        // A constant rate may turn into a decay.
        let constant = LrSchedule::new(&optim(LrScheduleKind::Constant, 0.0, 0.1), 100);
        assert!(constant.has_same_past(&LrSchedule::new(&optim(LrScheduleKind::Wsd, 0.0, 0.5), 100), 51));
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
