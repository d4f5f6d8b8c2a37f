//! `pgm-data prepare`.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use pgm_data::{
    DataError, Mode, PartIndex, Prepare, Prepared, TextInputs, TextTokenizer, Validation, part_share, prepare_part,
    prepare_with_notes,
};

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
        return match args.shard {
            Some(part) => list_share(&inputs, held_out, part),
            None => dry_run(&inputs, held_out),
        };
    }
    if args.shard.is_none() {
        let _ = listing::write(&mut std::io::stderr(), &inputs, held_out, false);
    }
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
    if let Some(part) = args.shard {
        let prepared = prepare_part(&options, part, &mut |progress| display.update(progress));
        display.finish();
        let prepared = prepared?;
        print_notes(&prepared.notes);
        let mut stdout = std::io::stdout().lock();
        let what = if prepared.was_finished { "was finished before" } else { "is finished" };
        writeln!(stdout, "part {part} {what}: {} tokens from {} documents", prepared.tokens, prepared.documents)?;
        writeln!(stdout, "{}", prepared.folder.display())?;
        return Ok(());
    }
    let prepared = prepare_with_notes(&options, &mut |progress| display.update(progress));
    display.finish();
    report(&prepared?, out)
}

/// Prints what was made in `out`.
pub(crate) fn report(prepared: &Prepared, out: &Path) -> anyhow::Result<()> {
    print_notes(&prepared.notes);
    let manifest = &prepared.manifest;
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

fn print_notes(notes: &[String]) {
    for note in notes {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
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

// What a part reads.
fn list_share(inputs: &TextInputs, validation: Option<&TextInputs>, part: PartIndex) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for (name, inputs) in [("read", Some(inputs)), ("read for validation", validation)] {
        let Some(inputs) = inputs else { continue };
        let shares = part_share(inputs, part)?;
        let lines = shares.iter().map(|(path, share)| format!("{} ({share})", path.display()));
        listing::write_list(&mut stdout, name, lines, true)?;
    }
    Ok(())
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
