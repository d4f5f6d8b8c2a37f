//! Guidance in the loop, against a fake network.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::*;
use crate::InferError;

const CLASSES: usize = 7;

fn request(length: usize, seed: u64) -> SampleRequest {
    SampleRequest { length, given: vec![(0, 0)], seed, ..SampleRequest::default() }
}

/// Logits favour a row's class; without a class all are equal. Counts the rows of each evaluation.
struct Classes(RefCell<Vec<usize>>);

impl Denoiser for Classes {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        self.0.borrow_mut().push(rows.len());
        let ids: std::collections::HashSet<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows.len(), "a row without its class is another row");
        let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut values = vec![0.0; rows.len() * n_positions * CLASSES];
        for (row, state) in rows.iter().enumerate() {
            for index in 0..n_positions {
                if let Some(class) = state.class {
                    values[(row * n_positions + index) * CLASSES + class] = 1.0;
                }
            }
        }
        Ok(Logits::from_host(values, n_positions, CLASSES))
    }

    fn mask_index(&self) -> usize {
        CLASSES - 1
    }

    fn excluded_classes(&self) -> &[usize] {
        &[CLASSES - 1]
    }
}

#[test]
fn guidance_doubles_the_rows_that_have_a_weight_in_a_step_and_no_others() {
    let run = |weight, schedule, classes: &[Option<usize>], steps| {
        let fake = Classes(RefCell::default());
        let guidance = Guidance { weight, schedule };
        let settings = SampleSettings { steps, guidance, ..SampleSettings::default() };
        let requests: Vec<SampleRequest> = classes
            .iter()
            .enumerate()
            .map(|(seed, &class)| SampleRequest { class, ..request(201, seed as u64) })
            .collect();
        let rows = sample(&fake, &requests, &settings, &mut |_| ControlFlow::Continue(())).unwrap().rows;
        let share = |row: &SampledRow, class: u32| {
            row.tokens[1..].iter().filter(|&&token| token == class).count() as f64 / 200.0
        };
        let shares: Vec<f64> =
            classes.iter().zip(&rows).map(|(class, row)| share(row, class.unwrap_or(0) as u32)).collect();
        (fake.0.into_inner(), shares)
    };
    let classes = [Some(2), None, Some(4)];
    let (evaluated, _) = run(0.0, GuidanceSchedule::Constant, &classes, 4);
    assert_eq!(evaluated, [3; 4], "no weight, no second evaluation");
    let (evaluated, shares) = run(3.0, GuidanceSchedule::Constant, &classes, 4);
    assert_eq!(evaluated, [5; 4], "the row without a class stands once");
    // The class has logit (1 + 3) * 1 against 0 for the other five.
    let expected = 4.0_f64.exp() / (4.0_f64.exp() + 5.0);
    assert!((shares[0] - expected).abs() < 0.08 && (shares[2] - expected).abs() < 0.08, "{shares:?}");
    assert!((shares[1] - 1.0 / 6.0).abs() < 0.08, "{shares:?}");
    let (evaluated, _) = run(3.0, GuidanceSchedule::Linear, &classes, 4);
    assert_eq!(evaluated, [3, 5, 5, 5], "the first step has weight 0");
    let (evaluated, shares) = run(3.0, GuidanceSchedule::Linear, &classes, 1);
    assert!(evaluated == [5] && (shares[0] - expected).abs() < 0.08, "{evaluated:?} {shares:?}");
}

#[test]
fn rows_of_a_batch_may_differ_in_class_and_weight() {
    let row = |class, weight| {
        let guidance = Guidance { weight, ..Guidance::default() };
        let settings = SampleSettings { steps: 1, guidance, ..SampleSettings::default() };
        SampleRow::new(&SampleRequest { class, ..request(101, 5) }, &settings).unwrap()
    };
    let together = |mut rows: Vec<SampleRow>| {
        let fake = Classes(RefCell::default());
        advance(&fake, &mut rows.iter_mut().collect::<Vec<_>>()).unwrap();
        let sampled: Vec<SampledRow> = rows.iter().map(|row| row.sampled(CLASSES - 1)).collect();
        (sampled, fake.0.into_inner())
    };
    let kinds = [(Some(1), 2.0), (Some(1), 0.0), (Some(3), 7.0), (None, 7.0)];
    let (all, evaluated) = together(kinds.iter().map(|&(class, weight)| row(class, weight)).collect());
    assert_eq!(evaluated, [6]);
    for ((class, weight), sampled) in kinds.into_iter().zip(&all) {
        assert_eq!(&together(vec![row(class, weight)]).0[0], sampled);
    }
    assert_ne!(all[0], all[1]);
}

#[test]
fn cells_that_do_not_fit_into_the_row_are_named() {
    let grid = Some(TokenGrid { start: 1, rows: 4, columns: 4, channels: 1 });
    let error = SampleRow::new(&SampleRequest { grid, ..request(16, 1) }, &SampleSettings::default()).unwrap_err();
    assert!(error.to_string().contains("do not fit into a row of 16 tokens"), "{error}");
}
