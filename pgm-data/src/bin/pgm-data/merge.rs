//! `pgm-data merge`.

use pgm_data::{MergeParts, merge_parts};

use crate::args::MergeArgs;
use crate::prepare;
use crate::progress::ProgressDisplay;

pub(crate) fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let options = MergeParts { parts: &args.parts, out: args.out.as_deref(), remove_parts: args.remove_parts };
    let mut display = ProgressDisplay::new();
    let prepared = merge_parts(&options, &mut |progress| display.update(progress));
    display.finish();
    // Without --out there is one folder of parts.
    prepare::report(&prepared?, args.out.as_ref().unwrap_or(&args.parts[0]))
}
