//! The frontier of the study's models, what kept encodings cost them, and the place of both in `results.md`.

use std::fmt::Write;
use std::ops::ControlFlow;

use pgm_data::DataFolder;
use pgm_infer::sample::Refresh;
use pgm_train::eval::cache::{CacheInputs, CacheReport, CacheSettings, measure};
use pgm_train::eval::frontier::{FrontierInputs, FrontierJudge, FrontierModel, FrontierProgress};
use pgm_train::eval::{EvalModel, Frontier, FrontierSettings, frontier};
use pgm_train::judge::Pooling;

use crate::evaluate::{Findings, SEED};
use crate::report::title;
use crate::{DISTILLED, KINDS, Study};

impl Study {
    /// Measures the frontier of one model of each kind and of the last students; what is kept in `frontier/` is taken from it.
    pub fn frontier(&self, data: &DataFolder) -> anyhow::Result<Frontier> {
        let seed = self.plan.seeds[0];
        let mut folders: Vec<_> =
            KINDS.iter().map(|(_, kind)| (title(kind).to_string(), self.model(kind, seed), None)).collect();
        for kind in DISTILLED {
            let folder = self.student(kind, "both", self.plan.rounds);
            folders.push((format!("{} distilled", title(kind)), folder, None));
        }
        folders.push(("PGM kept".to_string(), self.model("pgm", seed), Some(Refresh::Never)));
        let mut models = Vec::new();
        for (name, folder, refresh) in folders {
            models.push(FrontierModel { name, model: EvalModel::load(&folder, &self.device)?, refresh });
        }
        let judge = FrontierJudge::open(&self.judge(), data, &self.device)?;
        let settings = FrontierSettings {
            temperatures: self.plan.temperatures.clone(),
            steps: self.plan.frontier_steps.clone(),
            samples: self.plan.samples,
            batch: 16,
            seed: SEED,
            // The last byte of a row says little about the row.
            pooling: Pooling::Mean,
            ..FrontierSettings::default()
        };
        let inputs = FrontierInputs { models: &models, judge: &judge, data, device_name: &self.device_name };
        let mut said = String::new();
        let mut observe = |progress: &FrontierProgress| {
            let now = format!("{}: {}", progress.phase.unit(), progress.name);
            if progress.done < progress.all && said != now {
                self.say(&now);
                said = now;
            }
            if self.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.resumable(frontier(&inputs, &settings, &self.out.join("frontier"), &mut observe))
    }

    /// Measures what kept encodings cost the first partition model, and what they save.
    pub fn kept(&self, data: &DataFolder) -> anyhow::Result<CacheReport> {
        let model = EvalModel::load(&self.model("pgm", self.plan.seeds[0]), &self.device)?;
        let judge = pgm_train::judge::open(&self.judge(), &self.device)?;
        let intervals = ["1", "2", "4", "8", "16", "inf"];
        let refresh: Result<Vec<Refresh>, _> = intervals.iter().map(|interval| interval.parse()).collect();
        let steps = self.plan.sampling_steps.iter().copied().max().unwrap_or(1).div_ceil(2);
        let settings = CacheSettings {
            refresh: refresh.map_err(|problem| anyhow::anyhow!("{problem}"))?,
            rows: self.plan.rows.min(128),
            steps,
            seed: SEED,
        };
        let inputs = CacheInputs {
            model: &model,
            data,
            judge: Some((judge.as_ref(), true)),
            samples: self.plan.samples,
            batch: 1,
            runs: 3,
            device: &self.device,
            out: &self.out.join("kept"),
        };
        self.say("what kept encodings cost");
        self.resumable(measure(&inputs, &settings, &mut |_, _, _| {
            if self.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }))
    }

    /// Writes what kept encodings cost.
    pub fn kept_section(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Kept encodings\n\n![nats per byte against speed](results-kept.svg)\n")?;
        writeln!(
            out,
            "PGM, seed {}, as it was trained. All clean tokens are encoded anew every `refresh` steps; in between, new ones attend \
             to what is kept (`--refresh`, `eval cache`). {} steps; speed with one row. The bound is that of writing held-out rows in \
             random orders.\n",
            self.plan.seeds[0],
            self.plan.sampling_steps.iter().copied().max().unwrap_or(1).div_ceil(2)
        )?;
        writeln!(out, "{}", found.kept.table())
    }

    /// Writes the frontier: the first section of the results, since a single perplexity says little without it.
    pub fn frontier_section(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        let frontier = &found.frontier;
        writeln!(out, "## The frontier\n\n![perplexity against entropy](results-frontier.svg)\n")?;
        writeln!(out, "![perplexity at the entropy of held-out text against wall time](results-wall-time.svg)\n")?;
        writeln!(
            out,
            "A lower temperature lowers the perplexity of samples, and their entropy. So each model is sampled at several \
             temperatures, and models are compared at the entropy of held-out text, at equal wall time (`eval frontier`): each \
             with the most of {} sampling steps that fit into it. The models are of seed {}: intervals are over samples, and leave out \
             what another seed of the training changes, which [the likelihood](#likelihood) shows.\n",
            self.plan.frontier_steps.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            self.plan.seeds[0]
        )?;
        for sentence in frontier.sentences() {
            writeln!(out, "* {sentence}")?;
        }
        writeln!(out, "\n{}", frontier.matched_table())?;
        writeln!(
            out,
            "{} Distilled models are the last students with targets over both groups. \"PGM kept\" is PGM with `--refresh inf`: \
             each token is encoded once, without any training for it. \"PGM set-causal\" was trained for that (`model.sets = {}`). \
             All points are in `frontier/frontier.csv` of the study's folder.\n",
            frontier.notes().trim_end(),
            self.plan.length
        )
    }
}
