//! `results.md`: the tables. `plots.rs` draws its pictures, `conclusions.rs` writes its comparison with the paper.

use std::fmt::Write;
use std::path::Path;

use pgm_model::model_folder::write_file;
use pgm_train::judge::metrics::Estimate;

use crate::evaluate::{Findings, GeneratedSamples, TrainedModel};
use crate::plan::EMBEDDING_SCALE;
use crate::{KINDS, SET_CAUSAL, Study, WIDE};

/// The name of a kind of model in tables and plots.
pub fn title(kind: &str) -> &'static str {
    match kind {
        "pgm" => "PGM",
        WIDE => "PGM wider",
        SET_CAUSAL => "PGM set-causal",
        "masked" => "masked",
        "complementary" => "masked-complementary",
        _ => "autoregressive",
    }
}

impl Study {
    /// Writes `results.md` and its plots into a folder.
    pub fn report(&self, found: &Findings, folder: &Path, command: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (name, svg) in self.plots(found)? {
            save(folder, name, &svg)?;
        }
        save(folder, "results.md", &self.text(found, command)?)
    }

    fn text(&self, found: &Findings, command: &str) -> Result<String, std::fmt::Error> {
        let plan = &self.plan;
        let mut text = String::new();
        let out = &mut text;
        writeln!(out, "# What the study found\n")?;
        writeln!(
            out,
            "Written by `{command}` on {}, device `{}`. Everything but the speeds follows from the text and the \
             numbers in `examples/study/plan.rs`; intervals are 95 %, by bootstrap over rows, samples or questions.\n",
            machine(),
            self.device_name
        )?;
        writeln!(
            out,
            "The text is {}, its documents in random order and the last 5 % of them held out; the tokens are its bytes, the \
             rows have {} of them. Every network has {} blocks of width {} with {} heads (\"PGM wider\": {} with {}, as the \
             paper's 6/6-1024 is wider than its masked model) and is trained for {} steps of {} rows (seeds {}); AdamW, learning rate 2e-3 with a cosine decay, averaged weights, `embedding_scale` {} \
             ([why](training.md#the-first-plateau)). The paper's models are a hundred times as large \
             and trained on ten thousand times as much; what carries over is the comparison, not the figures.\n",
            self.text_name,
            plan.length,
            plan.blocks,
            plan.hidden,
            plan.heads,
            plan.wide().0,
            plan.wide().1,
            plan.steps,
            plan.batch,
            plan.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
            EMBEDDING_SCALE
        )?;
        self.frontier_section(out, found)?;
        self.likelihood(out, found)?;
        self.tasks(out, found)?;
        self.generation(out, found)?;
        self.distillation(out, found)?;
        self.kept_section(out, found)?;
        self.conclusions(out, found)?;
        self.cost(out, found)?;
        Ok(text)
    }

    fn likelihood(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Likelihood\n\n![perplexity against steps](results-perplexity.svg)\n")?;
        writeln!(
            out,
            "Perplexity of a byte on {} held-out rows (`eval ppl`, {} draws per row by the any-order estimator; exact for the \
             autoregressive model, which does not count the first byte of a row), and what a training step gets through.\n",
            self.plan.rows.min(found.trained[0].ppl.rows),
            self.plan.times
        )?;
        writeln!(out, "| model | parameters | {} | training, tokens/s |", self.seed_columns("perplexity"))?;
        writeln!(out, "|---|---:|{}---:|", "---:|".repeat(self.plan.seeds.len()))?;
        for (_, kind) in KINDS {
            let models: Vec<&TrainedModel> = found.trained.iter().filter(|model| model.kind == kind).collect();
            let cells: Vec<String> = models.iter().map(|model| Estimate::shown(model.ppl.perplexity, 2)).collect();
            let (parameters, rate) = (models[0].parameters, models[0].training_rate);
            writeln!(out, "| {} | {parameters} | {} | {rate:.0} |", title(kind), cells.join(" | "))?;
        }
        writeln!(out, "\nOn the same rows and hidden tokens, nats per byte (below 0: the first is better):\n")?;
        writeln!(out, "| difference | {} |", self.seed_columns("nats"))?;
        writeln!(out, "|---|{}", "---:|".repeat(self.plan.seeds.len()))?;
        let mut pairs: Vec<(&str, &str)> = found.differences.iter().map(|row| (row.kind, row.other)).collect();
        pairs.dedup();
        for (kind, other) in pairs {
            let of_pair = found.differences.iter().filter(|row| row.kind == kind && row.other == other);
            let cells: Vec<String> = of_pair.map(|row| Estimate::shown(Some(row.nats), 4)).collect();
            writeln!(out, "| {} - {} | {} |", title(kind), title(other), cells.join(" | "))?;
        }
        writeln!(out)
    }

    fn seed_columns(&self, what: &str) -> String {
        self.plan.seeds.iter().map(|seed| format!("{what}, seed {seed}")).collect::<Vec<_>>().join(" | ")
    }

    fn tasks(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        let first = &found.trained[0];
        writeln!(out, "## Tasks\n")?;
        writeln!(
            out,
            "The true continuation of {} bytes among three of other rows (`eval choice`, {} questions, {} draws a \
             candidate, guessing gives {:.2}), and the last word of a text with all its bytes at once (`eval greedy`, {} \
             texts; perplexity of a byte of the word, which the autoregressive model sees one by one).\n",
            self.plan.length / 2,
            first.choice.answered,
            self.plan.draws,
            first.choice.chance,
            first.greedy.answered
        )?;
        writeln!(out, "| model | {} | word right | perplexity of its bytes |", self.seed_columns("choice"))?;
        writeln!(out, "|---|{}---:|---:|", "---:|".repeat(self.plan.seeds.len()))?;
        for (_, kind) in KINDS {
            let models: Vec<&TrainedModel> = found.trained.iter().filter(|model| model.kind == kind).collect();
            let cells: Vec<String> = models.iter().map(|model| Estimate::shown(model.choice.accuracy, 2)).collect();
            let greedy = &models[0].greedy;
            let (words, bytes) = (Estimate::shown(greedy.accuracy, 2), Estimate::shown(greedy.perplexity, 1));
            writeln!(out, "| {} | {} | {words} | {bytes} |", title(kind), cells.join(" | "))?;
        }
        writeln!(out)
    }

    fn generation(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Samples\n\n![perplexity under the judge](results-generative.svg)\n")?;
        writeln!(out, "![unigram entropy](results-entropy.svg)\n")?;
        let steps: Vec<String> = self.plan.sampling_steps.iter().rev().map(usize::to_string).collect();
        writeln!(out, "A line's points are, from left to right, {} sampling steps.\n", steps.join(", "))?;
        writeln!(
            out,
            "{} samples of {} bytes for each number of steps, seed {}, drawn 16 at a time (`eval generative`). The judge \
             is an autoregressive model of the same size trained for {} steps on the same text, with a perplexity of {} \
             on held-out rows: a stand-in for GPT-2 that is blind to what it did not learn. Perplexity is the paper's \
             eq. 14 and, in the second column, the public code's counting (on the decoded text, where bytes that are no \
             UTF-8 are lost). Held-out rows under the judge: perplexity {}, entropy {}.\n",
            self.plan.samples,
            self.plan.length,
            self.plan.seeds[0],
            self.plan.judge_steps,
            Estimate::shown(found.judge_perplexity, 2),
            Estimate::shown(found.real.paper.perplexity, 2),
            Estimate::shown(found.real.entropy_model_tokens, 3)
        )?;
        writeln!(out, "| model | steps | perplexity | public counting | entropy | distinct-2 | tokens/s |")?;
        writeln!(out, "|---|---:|---:|---:|---:|---:|---:|")?;
        for row in &found.generated {
            let steps = row.steps.map_or("one per byte".to_string(), |steps| steps.to_string());
            let distinct = row.report.distinct.get(1).and_then(|distinct| distinct.per_sample).unwrap_or(f64::NAN);
            writeln!(
                out,
                "| {} | {steps} | {} | {} | {} | {distinct:.3} | {:.0} |",
                row.name.replacen(row.kind, title(row.kind), 1).replace("1 rounds", "1 round"),
                Estimate::shown(row.report.paper.perplexity, 2),
                Estimate::shown(row.report.public_code.perplexity, 2),
                Estimate::shown(row.report.entropy_model_tokens, 3),
                row.rate
            )?;
        }
        writeln!(out)?;
        self.first_samples(out, found)
    }

    // The first sample of each model and each last student, to be read.
    fn first_samples(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        let steps = self.plan.sampling_steps[self.plan.sampling_steps.len() / 2];
        writeln!(out, "The first sample of each, at {steps} steps and temperature 1:\n\n```text")?;
        let shown = |row: &&GeneratedSamples| {
            row.steps.is_none_or(|other| other == steps) && [0, self.plan.rounds].contains(&row.rounds)
        };
        for row in found.generated.iter().filter(shown) {
            // Without the BOS that each row begins with.
            let text = row.first.strip_prefix("<|endoftext|>").unwrap_or(&row.first);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(out, "{}: {text}\n", row.name.replacen(row.kind, title(row.kind), 1))?;
        }
        writeln!(out, "```\n")
    }

    fn distillation(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Distillation\n")?;
        writeln!(
            out,
            "{} rounds of {} steps, from a teacher of {} sampling steps; `one` compares student and teacher on one group \
             of each row, as the paper does, `both` on each in turn. Perplexity under the judge / entropy at each number \
             of steps:\n",
            self.plan.rounds, self.plan.round_steps, self.plan.teacher_steps
        )?;
        writeln!(out, "| steps | PGM | one | both | masked | one | both |")?;
        writeln!(out, "|---:|---:|---:|---:|---:|---:|---:|")?;
        for &steps in &self.plan.sampling_steps {
            let mut cells = Vec::new();
            for kind in ["pgm", "masked"] {
                for targets in [None, Some("one"), Some("both")] {
                    let cell = self.generated_at(found, kind, targets, steps);
                    cells.push(
                        cell.map_or(String::new(), |row| format!("{:.2} / {:.3}", row.perplexity(), row.entropy())),
                    );
                }
            }
            writeln!(out, "| {steps} | {} |", cells.join(" | "))?;
        }
        writeln!(out)
    }

    fn cost(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Cost\n")?;
        let training: f64 = found.trained.iter().map(|model| model.seconds).sum();
        writeln!(
            out,
            "Training the {} models took {training:.0} s by their own clocks; other work may have run beside it.",
            found.trained.len()
        )
    }
}

fn machine() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let name = name.map_or("this machine's processor", |(_, name)| name);
    format!("{name}, {threads} threads, {}", std::env::consts::OS)
}

/// Peak memory of this process, where the system reports it.
pub fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    peak.unwrap_or(f64::NAN) / 1024.0
}

fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    Ok(write_file(&folder.join(name), text.as_bytes())?)
}
