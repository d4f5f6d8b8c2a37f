//! Peak memory of evaluations. Alone in its program: the peak is that of the whole process.
#![cfg(target_os = "linux")]

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use pgm_data::{DataFolder, Mode, Prepare, TextInputs, TextTokenizer, Validation, prepare};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, Network, PartitionConfig, Projection, Queries,
    model_folder,
};
use pgm_train::eval::{self, EvalModel, PplSettings, ResultLog};
use pgm_train::judge::{Judge, OwnJudge};
use serde_json::json;

const LENGTH: usize = 64;
const N_ROWS: usize = 512;

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

fn save_model(folder: &Path, config: &ModelConfig) {
    let network = Network::new(config, &Device::flex()).with_noise(0.4, 3);
    model_folder::save(folder, config, &network).unwrap();
    std::fs::write(folder.join("tokenizer.json"), TextTokenizer::bytes().json()).unwrap();
}

fn data(folder: &Path) -> DataFolder {
    std::fs::write(folder.join("text.txt"), "some text \n".repeat(3 * N_ROWS * LENGTH / 11)).unwrap();
    let inputs = TextInputs::resolve(&[folder.join("text.txt").display().to_string()], "text", "--input").unwrap();
    let what = Prepare {
        inputs: &inputs,
        validation: &Validation::Fraction(0.5),
        tokenizer: &TextTokenizer::bytes(),
        length: LENGTH,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.join("data"),
    };
    prepare(&what, &mut |_| ControlFlow::Continue(())).unwrap();
    DataFolder::open(&folder.join("data")).unwrap()
}

#[test]
fn no_evaluation_has_the_logits_of_all_positions_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let tokenizer = TextTokenizer::bytes();
    let special = tokenizer.special();
    let mut backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(tokenizer.vocab_size(), 8, 1, LENGTH) };
    backbone.mask_index = special.mask as usize;
    backbone.bos_index = special.bos as usize;
    backbone.eos_index = special.eos as usize;
    backbone.pad_index = None;
    let (queries, projection) = (Queries::default(), Projection::default());
    let configs = [
        ModelConfig::Partition(PartitionConfig {
            backbone: backbone.clone(),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries,
            projection,
            sets: Default::default(),
        }),
        ModelConfig::Masked(MaskedConfig { backbone: backbone.clone(), n_blocks: 1 }),
        ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 1 }),
    ];
    let logits_bytes = N_ROWS * LENGTH * tokenizer.vocab_size() * size_of::<f32>();
    for config in &configs {
        save_model(folder.path(), config);
        let model = EvalModel::load(folder.path(), &Device::flex()).unwrap();
        let evaluate = |rows: usize| {
            let settings = PplSettings { rows, times: 1, batch: N_ROWS, ..PplSettings::default() };
            let log = ResultLog::open(None, &json!({})).unwrap();
            let report = eval::ppl(&model, &data, &settings, log, &mut |_, _| ControlFlow::Continue(())).unwrap();
            assert_eq!(report.rows, rows);
        };
        // Memory that is allocated once, as for thread pools.
        evaluate(1);
        let before = peak_bytes();
        evaluate(N_ROWS);
        let growth = peak_bytes() - before;
        assert!(growth < logits_bytes, "eval ppl of {}: {growth} bytes", eval::kind(config));
    }
    let judge = OwnJudge::load(folder.path(), &Device::flex()).unwrap();
    let row: Vec<u32> = (0..LENGTH as u32).collect();
    judge.token_nll(&[&row]).unwrap();
    let before = peak_bytes();
    assert_eq!(judge.token_nll(&[row.as_slice(); N_ROWS]).unwrap().len(), N_ROWS);
    let growth = peak_bytes() - before;
    assert!(growth < logits_bytes, "the judge: {growth} bytes");
}
