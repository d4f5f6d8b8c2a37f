//! `results.md` and its plots.

use std::fmt::Write;
use std::path::Path;

use anyhow::anyhow;
use pgm_model::model_folder::write_file;
use pgm_train::judge::metrics::Estimate;
use plotters::prelude::*;

use crate::evaluate::{Difference, Findings, Generated, Trained};
use crate::{KINDS, Study};

const BLUE: RGBColor = RGBColor(50, 100, 190);
const ORANGE: RGBColor = RGBColor(210, 110, 30);
const GREEN: RGBColor = RGBColor(40, 140, 70);
const GREY: RGBColor = RGBColor(110, 110, 110);

fn colour(kind: &str) -> RGBColor {
    match kind {
        "pgm" => BLUE,
        "masked" => ORANGE,
        "complementary" => GREEN,
        _ => GREY,
    }
}

fn title(kind: &str) -> &'static str {
    match kind {
        "pgm" => "PGM",
        "masked" => "masked",
        "complementary" => "masked-complementary",
        _ => "autoregressive",
    }
}

impl Study {
    /// Writes `results.md` and three plots into a folder.
    pub fn report(&self, found: &Findings, folder: &Path, command: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let curves = KINDS.iter().map(|(_, kind)| {
            let models: Vec<&Trained> = found.trained.iter().filter(|model| model.kind == *kind).collect();
            let points = models[0].curve.iter().enumerate().skip(1).map(|(index, &(step, _))| {
                let logs = models.iter().filter_map(|model| model.curve.get(index)).map(|point| point.1.ln());
                (step, (logs.sum::<f64>() / models.len() as f64).exp())
            });
            (title(kind).to_string(), colour(kind), false, points.collect())
        });
        let axes = Axes { x: "training step", y: "perplexity of held-out bytes", log_x: false };
        save(folder, "results-perplexity.svg", &plot(&axes, &curves.collect::<Vec<_>>())?)?;
        let lines = |value: fn(&Generated) -> f64| {
            let mut lines: Vec<Line> = Vec::new();
            for kind in ["pgm", "masked", "complementary"] {
                for targets in [None, Some("one"), Some("both")] {
                    let last = |row: &&Generated| row.rounds == 0 || row.rounds == self.plan.rounds;
                    let rows = found.generated.iter().filter(|row| row.kind == kind && row.targets == targets);
                    let points: Vec<(f64, f64)> = rows.filter(last).map(|row| (row.rate, value(row))).collect();
                    if !points.is_empty() {
                        let name = match targets {
                            None => title(kind).to_string(),
                            Some(targets) => format!("{} distilled, {targets} ▲", title(kind)),
                        };
                        let shade = match targets {
                            None => 1.0,
                            Some("one") => 0.7,
                            Some(_) => 0.4,
                        };
                        lines.push((name, mixed(colour(kind), shade), targets.is_some(), points));
                    }
                }
            }
            let ar = found.generated.iter().filter(|row| row.kind == "ar").map(|row| (row.rate, value(row)));
            lines.push((title("ar").to_string(), GREY, false, ar.collect()));
            lines
        };
        let axes = Axes { x: "tokens sampled a second", y: "perplexity under the judge", log_x: true };
        save(folder, "results-generative.svg", &plot(&axes, &lines(Generated::perplexity))?)?;
        let axes = Axes { x: "tokens sampled a second", y: "unigram entropy, nats", log_x: true };
        save(folder, "results-entropy.svg", &plot(&axes, &lines(Generated::entropy))?)?;
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
            "The text is {}, the tokens are its bytes, the rows have {} of them. Every network has {} blocks of \
             width {}, {} heads, and is trained for {} steps of {} rows (seeds {}); AdamW, learning rate 2e-3, averaged \
             weights. The paper's models are a hundred times as large and trained on ten thousand times as much; what \
             carries over is the comparison, not the figures.\n",
            self.text_name,
            plan.length,
            plan.blocks,
            plan.hidden,
            plan.heads,
            plan.steps,
            plan.batch,
            plan.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        )?;
        self.likelihood(out, found)?;
        self.tasks(out, found)?;
        self.generation(out, found)?;
        self.distillation(out, found)?;
        self.reading(out, found)?;
        self.cost(out, found)?;
        Ok(text)
    }

    fn likelihood(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Likelihood\n\n![perplexity against steps](results-perplexity.svg)\n")?;
        writeln!(
            out,
            "Perplexity of a byte on {} held-out rows (`eval ppl`, {} antithetic times a row; exact for the \
             autoregressive model, which does not count the first byte of a row), and what a training step gets through.\n",
            self.plan.rows.min(found.trained[0].ppl.rows),
            self.plan.times
        )?;
        writeln!(out, "| model | parameters | {} | training, tokens/s |", self.seed_columns("perplexity"))?;
        writeln!(out, "|---|---:|{}---:|", "---:|".repeat(self.plan.seeds.len()))?;
        for (_, kind) in KINDS {
            let models: Vec<&Trained> = found.trained.iter().filter(|model| model.kind == kind).collect();
            let cells: Vec<String> = models.iter().map(|model| shown(model.ppl.perplexity, 2)).collect();
            let (parameters, rate) = (models[0].parameters, models[0].training_rate);
            writeln!(out, "| {} | {parameters} | {} | {rate:.0} |", title(kind), cells.join(" | "))?;
        }
        writeln!(out, "\nOn the same rows, times and groups, nats per byte (below 0: the first is better):\n")?;
        writeln!(out, "| difference | {} |", self.seed_columns("nats"))?;
        writeln!(out, "|---|{}", "---:|".repeat(self.plan.seeds.len()))?;
        let mut pairs: Vec<(&str, &str)> = found.differences.iter().map(|row| (row.kind, row.other)).collect();
        pairs.dedup();
        for (kind, other) in pairs {
            let of_pair = found.differences.iter().filter(|row| row.kind == kind && row.other == other);
            let cells: Vec<String> = of_pair.map(|row| shown(Some(row.nats), 4)).collect();
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
            let models: Vec<&Trained> = found.trained.iter().filter(|model| model.kind == kind).collect();
            let cells: Vec<String> = models.iter().map(|model| shown(model.choice.accuracy, 2)).collect();
            let greedy = &models[0].greedy;
            let (words, bytes) = (shown(greedy.accuracy, 2), shown(greedy.perplexity, 1));
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
            shown(found.judge_perplexity, 2),
            shown(found.real.paper.perplexity, 2),
            shown(found.real.entropy_model_tokens, 3)
        )?;
        writeln!(out, "| model | steps | perplexity | public counting | entropy | distinct-2 | tokens/s |")?;
        writeln!(out, "|---|---:|---:|---:|---:|---:|---:|")?;
        for row in &found.generated {
            let steps = row.steps.map_or("one a byte".to_string(), |steps| steps.to_string());
            let distinct = row.report.distinct.get(1).and_then(|distinct| distinct.per_sample).unwrap_or(f64::NAN);
            writeln!(
                out,
                "| {} | {steps} | {} | {} | {} | {distinct:.3} | {:.0} |",
                row.name.replacen(row.kind, title(row.kind), 1).replace("1 rounds", "1 round"),
                shown(row.report.paper.perplexity, 2),
                shown(row.report.public_code.perplexity, 2),
                shown(row.report.entropy_model_tokens, 3),
                row.rate
            )?;
        }
        writeln!(out)
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

    // The teacher, or the last student.
    fn generated_at<'a>(
        &self,
        found: &'a Findings,
        kind: &str,
        targets: Option<&str>,
        steps: usize,
    ) -> Option<&'a Generated> {
        let rounds = if targets.is_some() { self.plan.rounds } else { 0 };
        found
            .generated
            .iter()
            .find(|row| row.kind == kind && row.targets == targets && row.rounds == rounds && row.steps == Some(steps))
    }

    /// What the figures say beside the paper's, in words that follow from the figures.
    fn reading(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        writeln!(out, "## Beside the paper\n")?;
        let of = |kind: &str, other: &str| -> Vec<&Difference> {
            found.differences.iter().filter(|row| row.kind == kind && row.other == other).collect()
        };
        let against_masked = of("pgm", "masked");
        match verdict(&against_masked) {
            Some(true) => writeln!(
                out,
                "* **PGM is ahead of masked at equal steps**, with every seed and outside the intervals, as in the paper \
                 at short lengths: each step supervises every position, the masked loss about half of them."
            )?,
            Some(false) => writeln!(
                out,
                "* **PGM is behind masked at equal steps**, with every seed and outside the intervals; in the paper it is \
                 ahead at short lengths. With {} steps the networks have only begun to use context: a PGM's encoder sees \
                 one group, and what it found must pass one GroupSwap and the decoder, so half of its blocks do the work \
                 that all of the masked model's blocks share. The paper trains a million steps, where the denser \
                 supervision has long paid for that.",
                self.plan.steps
            )?,
            None => writeln!(
                out,
                "* PGM and masked **cannot be told apart** at this size: the seeds disagree or an interval holds 0. After {} \
                 steps both are still on the steep part of their curves, where the seed weighs more than the objective; the \
                 paper, with a million steps, finds PGM ahead at short lengths.",
                self.plan.steps
            )?,
        }
        match verdict(&of("complementary", "masked")) {
            Some(true) => writeln!(
                out,
                "* Complementary masks are ahead of masked at equal steps, as in the paper, at twice the work of a step: \
                 the denser supervision helps by itself."
            )?,
            Some(false) => writeln!(out, "* Complementary masks are behind masked, unlike in the paper.")?,
            None => writeln!(
                out,
                "* Complementary masks, twice the work of a step, cannot be told from masked here; in the paper they are \
                 ahead."
            )?,
        }
        let ar = found.trained.iter().find(|model| model.kind == "ar").and_then(|model| model.ppl.perplexity);
        let pgm = found.trained.iter().find(|model| model.kind == "pgm").and_then(|model| model.ppl.perplexity);
        if let (Some(ar), Some(pgm)) = (ar, pgm) {
            writeln!(
                out,
                "* The autoregressive model has {:.2} against PGM's bound of {:.2}: the order in the paper too. At this \
                 size the gap is wider, since one fixed order is learnt sooner than all of them.",
                ar.value, pgm.value
            )?;
        }
        for kind in ["pgm", "masked"] {
            let few = self.plan.sampling_steps[0];
            let at = |targets| self.generated_at(found, kind, targets, few);
            let (Some(teacher), Some(one), Some(both)) = (at(None), at(Some("one")), at(Some("both"))) else {
                continue;
            };
            let change = |row: &Generated| {
                let lower = row.perplexity() < teacher.perplexity();
                let poorer = row.entropy() < teacher.entropy();
                let words = match (lower, poorer) {
                    (true, true) => "trades entropy for perplexity, as in the paper",
                    (true, false) => "lowers perplexity without losing entropy",
                    (false, true) => "loses entropy and gains nothing",
                    (false, false) => "neither lowers perplexity nor loses entropy",
                };
                format!(
                    "{words} ({:.2} to {:.2}, entropy {:.3} to {:.3})",
                    teacher.perplexity(),
                    row.perplexity(),
                    teacher.entropy(),
                    row.entropy()
                )
            };
            writeln!(
                out,
                "* Distilled {}, at {few} steps: over one group it {}; over both it {}.",
                title(kind),
                change(one),
                change(both)
            )?;
        }
        self.one_against_both(out, found)?;
        self.speeds(out, found)?;
        let guesses = found.trained.iter().filter(|model| {
            let [low, high] = model.choice.accuracy.and_then(|accuracy| accuracy.interval).unwrap_or([0.0, 1.0]);
            (low..=high).contains(&model.choice.chance)
        });
        writeln!(
            out,
            "* In the choice among continuations {} of the {} models cannot be told from guessing: at this size the task \
             shows that the measurement runs, not who is better.\n",
            guesses.count(),
            found.trained.len()
        )
    }

    // What distilling on both groups buys over one.
    fn one_against_both(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        for kind in ["pgm", "masked"] {
            let at = |targets, steps| self.generated_at(found, kind, Some(targets), steps);
            let steps = self.plan.sampling_steps.iter();
            let pairs: Vec<_> = steps.filter_map(|&steps| at("one", steps).zip(at("both", steps))).collect();
            let lower = pairs.iter().filter(|(one, both)| both.perplexity() < one.perplexity()).count();
            let poorer = pairs.iter().filter(|(one, both)| both.entropy() < one.entropy()).count();
            let ratio = pairs.iter().map(|(one, both)| (both.perplexity() / one.perplexity()).ln()).sum::<f64>();
            writeln!(
                out,
                "* Both groups against one, {}: perplexity is lower at {lower} of {} numbers of steps (by the geometric \
                 mean x{:.3}), entropy at {poorer}.",
                title(kind),
                pairs.len(),
                (ratio / pairs.len() as f64).exp()
            )?;
        }
        writeln!(
            out,
            "* Both groups give each step twice the targets. For a PGM the student's two predictions are one evaluation, \
             but the teacher decodes twice; for a masked model everything doubles."
        )
    }

    fn speeds(&self, out: &mut String, found: &Findings) -> std::fmt::Result {
        let rate = |kind: &str, steps| self.generated_at(found, kind, None, steps).map(|row| row.rate);
        let ratios = self.plan.sampling_steps.iter().filter_map(|&steps| {
            let ratio = rate("pgm", steps)? / rate("masked", steps)?;
            Some(format!("{ratio:.1} at {steps}"))
        });
        let ratios: Vec<String> = ratios.collect();
        write!(out, "* PGM's tokens/s over masked at equal steps: {}.", ratios.join(", "))?;
        if let Some(ar) = found.generated.iter().find(|row| row.kind == "ar") {
            let (rate, perplexity) = (ar.rate, ar.perplexity());
            write!(out, " The autoregressive model draws {rate:.0} tokens/s, with a perplexity of {perplexity:.2}")?;
            let others = || found.generated.iter().filter(|row| row.kind != "ar");
            if others().all(|row| row.rate < rate && row.perplexity() > perplexity) {
                write!(
                    out,
                    ": at this size it is faster and better than every parallel sampler, under a judge of its own kind and \
                     with a cache over no more than {} bytes. BenchPhase the others have here is any order and any gap",
                    self.plan.length
                )?;
            }
            write!(out, ".")?;
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

// Whether all differences are below 0 (better) or all above, each outside its interval.
fn verdict(differences: &[&Difference]) -> Option<bool> {
    let below = |row: &&Difference| row.nats.interval.is_some_and(|[_, high]| high < 0.0);
    let above = |row: &&Difference| row.nats.interval.is_some_and(|[low, _]| low > 0.0);
    if differences.iter().all(below) {
        Some(true)
    } else if differences.iter().all(above) {
        Some(false)
    } else {
        None
    }
}

fn shown(estimate: Option<Estimate>, digits: usize) -> String {
    match estimate {
        Some(Estimate { value, interval: Some([low, high]) }) => {
            format!("{value:.digits$} ({low:.digits$} to {high:.digits$})")
        }
        Some(Estimate { value, interval: None }) => format!("{value:.digits$}"),
        None => "-".to_string(),
    }
}

fn machine() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let name = name.map_or("this machine's processor", |(_, name)| name);
    format!("{name}, {threads} threads, {}", std::env::consts::OS)
}

/// The largest memory this process has held.
pub fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    peak.unwrap_or(f64::NAN) / 1024.0
}

fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    Ok(write_file(&folder.join(name), text.as_bytes())?)
}

fn mixed(colour: RGBColor, share: f64) -> RGBColor {
    let mix = |part: u8| (f64::from(part) * share + 255.0 * (1.0 - share)) as u8;
    RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

struct Axes {
    x: &'static str,
    y: &'static str,
    log_x: bool,
}

/// Name, colour, whether its points are triangles, points.
type Line = (String, RGBColor, bool, Vec<(f64, f64)>);

fn plot(axes: &Axes, lines: &[Line]) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, axes, lines).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, axes: &Axes, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    // A logarithmic axis is drawn by hand, as its logarithms: powers of two are its marks.
    let place = |x: f64| if axes.log_x { x.log2() } else { x };
    let points = || lines.iter().flat_map(|line| &line.3).filter(|point| point.1.is_finite());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let margin = (0.06 * (high - low)).max(1e-3);
        low - margin..high + margin
    };
    if points().next().is_none() {
        return Ok(());
    }
    let (x, y) = (range(&mut points().map(|point| place(point.0))), range(&mut points().map(|point| point.1)));
    // The names stand above the points, not on them.
    let y = y.start..y.end + 0.06 * lines.len() as f64 * (y.end - y.start);
    let root = SVGBackend::with_string(svg, (860, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart =
        ChartBuilder::on(&root).margin(16).x_label_area_size(44).y_label_area_size(60).build_cartesian_2d(x, y)?;
    let label = |x: &f64| if axes.log_x { format!("{:.0}", x.exp2()) } else { format!("{x:.0}") };
    chart.configure_mesh().x_desc(axes.x).y_desc(axes.y).x_label_formatter(&label).light_line_style(WHITE).draw()?;
    for (name, colour, triangles, points) in lines {
        let (colour, triangles) = (*colour, *triangles);
        let points: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (place(x), y)).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        if triangles {
            chart.draw_series(points.iter().map(|&point| TriangleMarker::new(point, 5, colour.filled())))?;
        } else {
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
