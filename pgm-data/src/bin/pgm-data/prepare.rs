//! `pgm-data prepare`.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use pgm_data::{DataError, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare_with_notes};

use crate::args::{ModeArg, PrepareArgs};
use crate::listing;
use crate::progress::ProgressDisplay;

/// `inputs` has the patterns of each `--input`.
pub(crate) fn run(args: &PrepareArgs, inputs: Vec<Vec<String>>) -> anyhow::Result<()> {
    let inputs = resolve(args, inputs)?;
    let validation = validation_of(args, &inputs)?;
    let held_out = match &validation {
        Validation::TextInputs(inputs) => Some(inputs),
        Validation::Fraction(_) | Validation::Documents(_) => None,
    };
    if args.dry_run {
        return dry_run(&inputs, held_out);
    }
    let _ = listing::write(&mut std::io::stderr(), &inputs, held_out, false);
    let (Some(tokenizer), Some(length), Some(out)) = (&args.tokenizer, args.length, &args.out) else {
        anyhow::bail!("--tokenizer, --length and --out are needed");
    };
    let tokenizer = match (tokenizer.as_str(), &args.special_tokens) {
        ("bytes", Some(_)) => anyhow::bail!("--special-tokens has no effect with --tokenizer bytes; remove it"),
        ("bytes", None) => TextTokenizer::bytes(),
        (path, names) => TextTokenizer::from_file(Path::new(path), &names.clone().unwrap_or_default())?,
    };
    let mode = match args.mode {
        ModeArg::Pack => Mode::Pack,
        ModeArg::Pad => Mode::Pad,
    };
    let options = Prepare {
        inputs: &inputs,
        validation: &validation,
        tokenizer: &tokenizer,
        length,
        mode,
        row_eos: args.row_eos,
        out,
    };
    let mut display = ProgressDisplay::new();
    let prepared = prepare_with_notes(&options, &mut |progress| display.update(progress));
    display.finish();
    let prepared = prepared?;
    for note in &prepared.notes {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
    let manifest = prepared.manifest;
    let mut stdout = std::io::stdout().lock();
    for (name, split) in [("training", &manifest.train), ("validation", &manifest.validation)] {
        writeln!(
            stdout,
            "{name}: {} rows of {} tokens from {} documents, {} tokens of {} bytes, {} dropped",
            split.rows, manifest.length, split.documents, split.tokens, split.text_bytes, split.dropped_tokens
        )?;
    }
    writeln!(stdout, "{}", out.display())?;
    Ok(())
}

fn resolve(args: &PrepareArgs, inputs: Vec<Vec<String>>) -> Result<TextInputs, DataError> {
    let seed = args.shuffle_documents;
    if args.weight.is_empty() {
        return Ok(args.input.resolve()?.shuffled(seed));
    }
    if args.weight.len() != inputs.len() {
        let (n_weights, n_inputs) = (args.weight.len(), inputs.len());
        return Err(DataError::Option(format!(
            "{n_inputs} --input have {n_weights} --weight; give one --weight after each --input"
        )));
    }
    let part =
        |(patterns, &weight): (Vec<String>, &f64)| Ok((args.input.resolve_patterns(&patterns)?.shuffled(seed), weight));
    let parts: Result<Vec<_>, DataError> = inputs.into_iter().zip(&args.weight).map(part).collect();
    TextInputs::mixture(parts?)
}

fn validation_of(args: &PrepareArgs, inputs: &TextInputs) -> Result<Validation, DataError> {
    if let Some(patterns) = &args.val {
        let other = args.input.resolve_patterns(patterns)?;
        return Ok(Validation::TextInputs(other.validation_split().unwrap_or(other)));
    }
    if let Some(n_documents) = args.val_documents {
        return Ok(Validation::Documents(n_documents));
    }
    match (args.val_fraction, inputs.validation_split()) {
        (None, Some(split)) => Ok(Validation::TextInputs(split)),
        (fraction, _) => Ok(Validation::Fraction(fraction.unwrap_or(0.05))),
    }
}

fn dry_run(inputs: &TextInputs, validation: Option<&TextInputs>) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    listing::write(&mut stdout, inputs, validation, true)?;
    let mut display = ProgressDisplay::new();
    let mut poll = || match display.update(pgm_data::Progress { done: 0, total: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    for (name, inputs) in [("training", Some(inputs)), ("validation", validation)] {
        let Some(inputs) = inputs else { continue };
        let size = inputs.size(&mut poll)?;
        writeln!(stdout, "{name}: {} bytes of text in {} documents", size.bytes, size.documents)?;
    }
    Ok(())
}
