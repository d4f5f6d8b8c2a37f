//! A measured frontier, as tables and sentences.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::curve::{FrontierCurve, FrontierPoint};
use super::equal_time::{Choice, EqualTime, Reached};
use super::settings::{FrontierSettings, Variant};
use super::timing::WallTime;
use crate::TrainError;
use crate::judge::metrics::Estimate;
use crate::plot::short;

/// A measured frontier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// The device of the models.
    pub device: String,
    /// Threads of the machine.
    pub threads: usize,
    /// Tokens of a sample.
    pub length: usize,
    /// The judge's folder.
    pub judge: String,
    /// What MAUVE's features are.
    pub features: String,
    /// The settings.
    pub settings: FrontierSettings,
    /// The held-out rows.
    pub held_out: HeldOut,
    /// The curves, by model, then from the fewest steps.
    pub curves: Vec<FrontierCurve>,
    /// The models at one wall time.
    pub equal_time: EqualTime,
}

/// What the judge says about held-out rows: perfect samples would have this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Number of rows.
    pub rows: usize,
    /// Their perplexity under the judge.
    pub perplexity: Option<Estimate>,
    /// Their mean unigram entropy, in nats.
    pub entropy: Option<Estimate>,
}

impl Frontier {
    /// The models' names, in their order.
    pub fn models(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.curves.iter().map(|curve| curve.variant.model.as_str()).collect();
        names.dedup();
        names
    }

    /// The curves of a model, with their indices.
    pub fn curves_of(&self, model: &str) -> impl Iterator<Item = (usize, &FrontierCurve)> {
        self.curves.iter().enumerate().filter(move |(_, curve)| curve.variant.model == model)
    }

    /// The files of a folder, by their names.
    ///
    /// # Errors
    /// [`TrainError::File`] when a plot cannot be drawn.
    pub(super) fn files(&self) -> Result<[(&'static str, String); 5], TrainError> {
        let json =
            serde_json::to_string_pretty(self).map_err(|error| TrainError::file("write", "frontier.json", error))?;
        Ok([
            ("frontier.svg", self.plot()?),
            ("wall-time.svg", self.time_plot()?),
            ("frontier.csv", self.csv()),
            ("frontier.md", self.text()),
            ("frontier.json", json),
        ])
    }

    /// The sentences, the table at matched entropy and the table of all points, as Markdown.
    pub fn text(&self) -> String {
        let sentences: String = self.sentences().iter().map(|sentence| format!("* {sentence}\n")).collect();
        format!("{sentences}\n{}\n{}\n{}", self.matched_table(), self.table(), self.notes())
    }

    /// How it was measured, in one paragraph.
    pub fn notes(&self) -> String {
        let settings = &self.settings;
        let points = if self.settings.sweeps_top_p() { "shares of top-p" } else { "temperatures" };
        format!(
            "{} samples of {} tokens a point, seed {}, against {} held-out rows; the points of a curve are {points}. Judge: {}. \
             Perplexity: the paper's eq. 14. Wall time: a batch of {} on {} ({} threads) divided by its samples, median of {} \
             batches, all curves in turn. MAUVE's features: {}; another featurizer gives another MAUVE. Intervals are 95 %, by \
             bootstrap over samples; MAUVE's over clusterings.\n",
            settings.samples,
            self.length,
            settings.seed,
            self.held_out.rows,
            self.judge,
            settings.batch,
            self.device,
            self.threads,
            settings.runs,
            self.features,
        )
    }

    /// All points, as a Markdown table.
    pub fn table(&self) -> String {
        let has_top_p = self.settings.top_ps != [1.0];
        let (name, rule) = if has_top_p { (" top-p |", "---:|") } else { ("", "") };
        let mut out = format!(
            "| model | steps | temperature |{name} perplexity | entropy | MAUVE | distinct-2 | s a sample |\n\
             |---|---:|---:|{rule}---:|---:|---:|---:|---:|\n"
        );
        for curve in &self.curves {
            for point in &curve.points {
                let top_p = if has_top_p { format!(" {} |", point.top_p) } else { String::new() };
                let mauve = mauve_cell(point);
                let distinct = point.distinct_2.map_or("-".to_string(), |share| format!("{share:.3}"));
                let _ = writeln!(
                    out,
                    "| {} | {} | {} |{top_p} {} | {} | {mauve} | {distinct} | {} |",
                    cell(&curve.variant.model),
                    curve.variant.steps_cell(),
                    point.temperature,
                    Estimate::shown(point.perplexity, 2),
                    Estimate::shown(point.entropy, 3),
                    short(curve.wall_time.median),
                );
            }
        }
        out
    }

    /// The curves at the entropy of held-out text, as a Markdown table. MAUVE is that of the point with the nearest entropy.
    pub fn matched_table(&self) -> String {
        let target = self.held_out.entropy.map(|entropy| entropy.value);
        let mut out = format!(
            "| curve | s a sample | perplexity at {} nats | entropies of its points | MAUVE, at the nearest |\n\
             |---|---:|---:|---:|---:|\n",
            target.map_or("-".to_string(), |target| format!("{target:.3}"))
        );
        for curve in &self.curves {
            let entropy = |point: &FrontierPoint| point.entropy.map_or(f64::NAN, |entropy| entropy.value);
            let (low, high) = curve
                .points
                .iter()
                .map(entropy)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
            let distance = |point: &FrontierPoint| (entropy(point) - target.unwrap_or(0.0)).abs();
            let nearest = curve.points.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
            let mauve = nearest.map_or(String::new(), |point| {
                let at = if curve.top_p.is_some() { point.temperature } else { point.top_p };
                format!("{}, at {at}", mauve_cell(point))
            });
            let WallTime { median, least, most } = curve.wall_time;
            let _ = writeln!(
                out,
                "| {} | {} ({} to {}) | {} | {low:.3} to {high:.3} | {mauve} |",
                cell(&curve.name),
                short(median),
                short(least),
                short(most),
                curve.matched.map_or("not reached".to_string(), |matched| Estimate::shown(Some(matched), 2)),
            );
        }
        out
    }

    /// The comparison at one wall time, a sentence for each model.
    pub fn sentences(&self) -> Vec<String> {
        let entropy = self.held_out.entropy.map_or("-".to_string(), |entropy| format!("{:.3}", entropy.value));
        let EqualTime { seconds, given, choices } = &self.equal_time;
        let why = if *given { "" } else { ", the least at which every model has a curve" };
        let mut out = vec![format!(
            "Within {} s a sample{why}, at {entropy} nats, the entropy of held-out text (interpolated along each curve):",
            short(*seconds)
        )];
        let Some((first, others)) = choices.split_first() else { return out };
        out.push(format!("{}.", self.found(first)));
        for choice in others {
            let mut sentence = self.found(choice);
            if let Some(ratio) = choice.ratio {
                let [low, high] = ratio.interval.unwrap_or([f64::NAN; 2]);
                let verdict = match (high < 1.0, low > 1.0) {
                    (true, _) => format!("{} is better", first.model),
                    (_, true) => format!("{} is worse", first.model),
                    _ => "they cannot be told apart".to_string(),
                };
                let _ = write!(
                    sentence,
                    "; {}'s perplexity is {:.3} times that ({low:.3} to {high:.3}): {verdict}",
                    first.model, ratio.value
                );
            }
            if let Some(reached) = choice.reached {
                let _ = write!(sentence, ". {}", self.reach(choice, reached, &first.model));
            }
            out.push(format!("{sentence}."));
        }
        out
    }

    // What a model has at the wall time.
    fn found(&self, choice: &Choice) -> String {
        let model = &choice.model;
        let Some(index) = choice.curve else {
            let curve = &self.curves[choice.fastest];
            let time = short(curve.wall_time.median);
            return format!("{model}: none of its curves fits, the fastest ({}) takes {time} s", curve.name);
        };
        let curve = &self.curves[index];
        let perplexity = match curve.matched {
            Some(matched) => format!("has a perplexity of {}", Estimate::shown(Some(matched), 2)),
            None => {
                "does not reach that entropy with these points, so that it is not compared; sweep others".to_string()
            }
        };
        format!("{} ({} s) {perplexity}", curve.name, short(curve.wall_time.median))
    }

    fn reach(&self, choice: &Choice, reached: Reached, first: &str) -> String {
        let model = &choice.model;
        match reached {
            Reached::Never => format!("{model} does not reach {first}'s perplexity with any of its curves"),
            Reached::AtOnce { curve } => {
                let curve = &self.curves[curve];
                let time = short(curve.wall_time.median);
                format!("Its fastest curve, {} ({time} s), already reaches {first}'s perplexity", curve.name)
            }
            Reached::Times { value, interval } => {
                let end = |end: Option<f64>| end.map_or("never".to_string(), short);
                // Resamples that all choose one curve say nothing of the clock: their ends differ by rounding alone.
                let ends = interval.map(|ends| ends.map(end)).filter(|[low, high]| low != high);
                let interval = ends.map_or(String::new(), |[low, high]| format!(" ({low} to {high})"));
                format!("For {first}'s perplexity {model} takes {} times {first}'s wall time{interval}", short(value))
            }
        }
    }

    /// All numbers of all points, as CSV.
    pub fn csv(&self) -> String {
        let mut out =
            "model,kind,steps,temperature,top_p,perplexity,perplexity_low,perplexity_high,public_code,entropy,\
                       entropy_low,entropy_high,distinct_2,mauve,mauve_low,mauve_high,mauve_smoothed,features,seconds,\
                       seconds_least,seconds_most,matched_perplexity,matched_low,matched_high\n"
                .to_string();
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let estimate = |estimate: Option<Estimate>| {
            let ends = estimate.and_then(|estimate| estimate.interval);
            [
                number(estimate.map(|found| found.value)),
                number(ends.map(|ends| ends[0])),
                number(ends.map(|ends| ends[1])),
            ]
        };
        let mut line = |fields: &[String]| {
            let quoted = |field: &String| {
                if field.contains([',', '"', '\n']) {
                    format!("\"{}\"", field.replace('"', "\"\""))
                } else {
                    field.clone()
                }
            };
            let _ = writeln!(out, "{}", fields.iter().map(quoted).collect::<Vec<_>>().join(","));
        };
        for curve in &self.curves {
            for point in &curve.points {
                let Variant { model, kind, steps, .. } = &curve.variant;
                let mut fields = vec![model.clone(), kind.clone(), steps.map_or(String::new(), |n| n.to_string())];
                fields.extend([point.temperature.to_string(), point.top_p.to_string()]);
                fields.extend(estimate(point.perplexity));
                fields.push(number(point.public_code.map(|found| found.value)));
                fields.extend(estimate(point.entropy));
                fields.push(number(point.distinct_2));
                fields.extend([
                    number(point.mauve.map(|mauve| mauve.score)),
                    number(point.mauve.map(|mauve| mauve.interval[0])),
                    number(point.mauve.map(|mauve| mauve.interval[1])),
                    number(point.mauve.map(|mauve| mauve.smoothed)),
                    self.features.clone(),
                ]);
                let WallTime { median, least, most } = curve.wall_time;
                fields.extend([median, least, most].map(|seconds| seconds.to_string()));
                fields.extend(estimate(curve.matched));
                line(&fields);
            }
        }
        out
    }
}

fn mauve_cell(point: &FrontierPoint) -> String {
    point.mauve.map_or("-".to_string(), |mauve| {
        let [low, high] = mauve.interval;
        format!("{:.3} ({low:.3} to {high:.3})", mauve.score)
    })
}

// A name in a cell of a Markdown table.
fn cell(name: &str) -> String {
    name.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Mauve;

    fn estimate(value: f64) -> Option<Estimate> {
        Some(Estimate { value, interval: Some([0.9 * value, 1.1 * value]) })
    }

    fn frontier() -> Frontier {
        let point = |temperature: f64| FrontierPoint {
            temperature,
            top_p: 1.0,
            perplexity: estimate(50.0 * temperature),
            public_code: estimate(51.0),
            entropy: estimate(3.0 * temperature),
            distinct_2: Some(0.5),
            mauve: Some(Mauve {
                score: 0.4,
                interval: [0.3, 0.5],
                smoothed: 0.45,
                buckets: 3,
                components: 2,
                clusterings: 3,
            }),
        };
        let curve = |model: &str, steps, median: f64, matched| FrontierCurve {
            name: model.to_string(),
            variant: Variant { model: model.to_string(), kind: "masked".into(), steps, refresh: None },
            top_p: Some(1.0),
            wall_time: WallTime { median, least: median, most: 2.0 * median },
            matched,
            points: vec![point(1.0), point(0.8)],
        };
        let choice =
            |model: &str, curve, ratio, reached| Choice { model: model.into(), curve, fastest: 1, ratio, reached };
        let ratio = |value| Some(Estimate { value, interval: Some([value - 0.1, value + 0.1]) });
        let times = Reached::Times { value: 2.5, interval: Some([Some(1.5), None]) };
        Frontier {
            device: "flex".into(),
            threads: 2,
            length: 24,
            judge: "judge".into(),
            features: "last hidden state, a, b".into(),
            settings: FrontierSettings::default(),
            held_out: HeldOut { rows: 9, perplexity: estimate(30.0), entropy: estimate(2.7) },
            curves: vec![curve("a|b", Some(8), 0.5, estimate(44.0)), curve("c, d", None, 0.25, None)],
            equal_time: EqualTime {
                seconds: 0.5,
                given: true,
                choices: vec![
                    choice("a|b", Some(0), None, None),
                    choice("c, d", Some(0), ratio(0.8), Some(times)),
                    choice("e", Some(0), ratio(1.05), Some(Reached::Never)),
                    choice("f", None, None, Some(Reached::AtOnce { curve: 1 })),
                    choice("g", Some(1), ratio(1.2), None),
                    choice(
                        "h",
                        Some(0),
                        ratio(1.2),
                        Some(Reached::Times { value: 0.5, interval: Some([Some(0.5), Some(0.500_000_1)]) }),
                    ),
                ],
            },
        }
    }

    #[test]
    fn the_sentences_say_who_is_better_at_the_wall_time_and_how_long_equal_quality_takes() {
        let sentences = frontier().sentences();
        assert_eq!(
            sentences[0],
            "Within 0.5 s a sample, at 2.700 nats, the entropy of held-out text (interpolated along each curve):"
        );
        assert_eq!(sentences[1], "a|b (0.5 s) has a perplexity of 44.00 (39.60 to 48.40).");
        let has = |at: usize, what: &str| assert!(sentences[at].contains(what), "{}", sentences[at]);
        has(2, "a|b's perplexity is 0.800 times that (0.700 to 0.900): a|b is better");
        has(2, ". For a|b's perplexity c, d takes 2.5 times a|b's wall time (1.5 to never).");
        has(3, "they cannot be told apart. e does not reach a|b's perplexity with any of its curves.");
        has(
            4,
            "f: none of its curves fits, the fastest (c, d) takes 0.25 s. Its fastest curve, c, d (0.25 s), already reaches",
        );
        has(5, "c, d (0.25 s) does not reach that entropy");
        has(5, "a|b is worse.");
        has(6, "For a|b's perplexity h takes 0.5 times a|b's wall time.");
    }

    #[test]
    fn tables_and_csv_have_every_point_and_survive_odd_names() {
        let found = frontier();
        let table = found.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2 + 4);
        assert_eq!(
            lines[2],
            "| a\\|b | 8 | 1 | 50.00 (45.00 to 55.00) | 3.000 (2.700 to 3.300) | 0.400 (0.300 to 0.500) | 0.500 | 0.5 |"
        );
        assert!(lines[4].starts_with("| c, d | one a token | 1 |"));
        assert!(
            found.matched_table().contains(
                "| c, d | 0.25 (0.25 to 0.5) | not reached | 2.400 to 3.000 | 0.400 (0.300 to 0.500), at 1 |"
            )
        );
        let csv = found.csv();
        let columns = csv.lines().next().unwrap().split(',').count();
        let first: Vec<&str> = csv.lines().nth(1).unwrap().split("\"last hidden state, a, b\"").collect();
        assert_eq!(first.concat().split(',').count(), columns);
        assert!(csv.lines().nth(3).unwrap().starts_with("\"c, d\",masked,,1,1,50,45,"));
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Frontier>(&json).unwrap(), found);
        assert!(found.text().contains("another featurizer gives another MAUVE"));
        for (_, text) in found.files().unwrap() {
            assert!(!text.is_empty());
        }
    }
}
