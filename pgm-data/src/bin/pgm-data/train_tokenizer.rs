//! `pgm-data train-tokenizer`.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgm_data::TextTokenizer;

use crate::args::TrainTokenizerArgs;
use crate::listing;

/// Time between two lines of progress where there is no terminal.
const PERIOD: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &TrainTokenizerArgs) -> anyhow::Result<()> {
    args.no_shard
        .check("train-tokenizer", "merges are chosen by the counts of all words; give it a sample of the files")?;
    let out = args.out.display();
    // Before the work. It may even be one of the inputs.
    if args.out.exists() {
        bail!("{out} exists already; choose another --out, or delete it");
    }
    if args.out.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        bail!("cannot write {out}: its folder does not exist; make it first");
    }
    let inputs = args.input.resolve()?;
    let _ = listing::write(&mut std::io::stderr(), &inputs, None, false);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} read, {elapsed}  {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let n_read = AtomicU64::new(0);
    let tokenizer = std::thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        scope.spawn(|| {
            // The channel belongs to this thread, so that it can wait on it.
            let stopped = stopped;
            let mut before = 0;
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let now = n_read.load(Ordering::Relaxed);
                let message = if now == before { "learning merges" } else { "reading" };
                before = now;
                bar.set_message(message);
                if !std::io::stderr().is_terminal() {
                    let _ = writeln!(std::io::stderr(), "{:.1} MB read, {message}", now as f64 / 1e6);
                }
            }
        });
        let trained = TextTokenizer::train(&inputs, args.vocab_size, &|n_bytes| {
            n_read.store(n_bytes, Ordering::Relaxed);
            bar.set_position(n_bytes);
        });
        drop(stop);
        trained
    });
    bar.finish_and_clear();
    let tokenizer = tokenizer?;
    tokenizer.save(&args.out)?;
    if tokenizer.vocab_size() < args.vocab_size {
        let _ = writeln!(std::io::stderr(), "note: the text has no more pairs to merge; the vocabulary is smaller");
    }
    writeln!(std::io::stdout(), "{} tokens in {}", tokenizer.vocab_size(), args.out.display())?;
    Ok(())
}
