//! A run's events as lines of text, and Ctrl-C.

use std::io::Write;

use burn::train::Interrupter;
use pgm_train::TrainEvent;
use pgm_train::history::{ValidationFigures, ValidationLine};

/// An interrupter that Ctrl-C stops.
pub fn stopped_by_ctrl_c() -> anyhow::Result<Interrupter> {
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || on_signal.stop(Some("interrupted")))?;
    Ok(interrupter)
}

/// An interrupter that Ctrl-C stops, and SIGUSR1, which MPI's and Slurm's launchers pass on.
pub fn stopped_by_signals() -> anyhow::Result<Interrupter> {
    let interrupter = stopped_by_ctrl_c()?;
    #[cfg(unix)]
    {
        let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGUSR1])?;
        let on_signal = interrupter.clone();
        std::thread::spawn(move || signals.forever().for_each(|_| on_signal.stop(Some("interrupted"))));
    }
    Ok(interrupter)
}

/// The figures of a validation with their interval.
pub fn validation_text(line: &ValidationLine) -> String {
    let text = format!("{:.4} nats per token, perplexity {:.3}", line.val_nelbo, line.val_ppl);
    match line.val_nelbo_interval {
        Some([low, high]) => {
            format!("{text}; 95 %: {low:.4} to {high:.4} nats, {:.3} to {:.3}", low.exp(), high.exp())
        }
        None => text,
    }
}

/// Prints an event as one line.
pub fn print_event(event: &TrainEvent) {
    print_event_with(event, "tokens", validation_text);
}

/// As [`print_event`], for a run that counts something else than tokens, with the text of a validation.
pub fn print_event_with<V: ValidationFigures>(event: &TrainEvent<V>, counted: &str, text_of: impl Fn(&V) -> String) {
    let line = match event {
        TrainEvent::Round { round, n_rounds, teacher_steps, student_steps } => {
            format!("round {round} of {n_rounds}: the student learns to do {teacher_steps} steps in {student_steps}")
        }
        TrainEvent::Started { step, parameters, rows, world_size } => {
            let ranks = if *world_size > 1 { format!(", {world_size} ranks") } else { String::new() };
            format!("{parameters} parameters, {rows} training rows, from step {step}{ranks}")
        }
        TrainEvent::Trained { line, steps, seconds_left } => {
            let exchange = line.world.as_ref().map(|world| format!("  exchange {:.1} ms", world.exchange_ms));
            format!(
                "step {}/{steps}  loss {:.4}  lr {:.2e}  grad {:.3}  {:.0} {counted}/s{}  {} left",
                line.step,
                line.train_loss,
                line.lr,
                line.grad_norm,
                line.tokens_per_second,
                exchange.unwrap_or_default(),
                clock(*seconds_left)
            )
        }
        TrainEvent::Validated(line) => {
            let best = if line.is_best() && line.step() > 0 { "; the best so far" } else { "" };
            format!("step {}  validation {}{best}", line.step(), text_of(line))
        }
        TrainEvent::Saved { step } => format!("step {step}  saved"),
        TrainEvent::Notice(text) => format!("note: {text}"),
    };
    // A closed pipe, as behind `| head`, does not end a training.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}
