//! Published checkpoints: a broken, hostile or contradictory file gets an error of one sentence, and nothing panics.
#![cfg(feature = "files")]

#[allow(dead_code)] // each test file uses its own part of it
mod common;
#[allow(dead_code)]
#[path = "common/torch.rs"]
mod torch;

use burn::tensor::Device;
use common::Golden;
use pgm_model::import::torch_file::{MAX_WORK, Pickle, TorchFile, Value};
use pgm_model::import::{CheckpointWeights, ImportOverrides, PublishedCheckpoint, SpecialIds};
use pgm_model::{ModelConfig, ModelError, Network, Projection, Sets, WeightDtype, model_folder};
use safetensors::SafeTensors;
use torch::{Writer, around, pack, pack_as, unpack};

fn lightning() -> Vec<u8> {
    std::fs::read(Golden::open_ours("lightning").folder.join("last.ckpt")).unwrap()
}

fn one_tensor(count: usize, offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let mut pickle = Writer::default();
    pickle.op(b"\x80\x02}(").text("backbone.vocab_embed.embedding").tensor(count, offset, shape, strides).op(b"u.");
    let storage = (0..12_u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    pack(&[("a/data.pkl".to_string(), pickle.0), ("a/data/0".to_string(), storage)])
}

/// Opens, resolves and loads; returns the error.
fn refusal(bytes: &[u8]) -> String {
    refusal_of(bytes, None)
}

fn refusal_of(bytes: &[u8], weights: Option<CheckpointWeights>) -> String {
    let import = || -> Result<(), ModelError> {
        let checkpoint = PublishedCheckpoint::parse(bytes, "here.ckpt")?;
        let overrides = ImportOverrides { n_heads: Some(1), length: Some(8), ..ImportOverrides::default() };
        let (config, _) = checkpoint.resolve(&overrides, &SpecialIds::default())?;
        let weights = weights.unwrap_or(checkpoint.default_weights());
        checkpoint.network(weights, &config, &Device::flex())?;
        Ok(())
    };
    let sentence = import().expect_err("should be refused").to_string();
    assert!(sentence.contains("here.ckpt") && !sentence.contains('\n') && sentence.len() < 400, "{sentence}");
    sentence
}

#[test]
fn a_truncated_file_says_so_wherever_it_ends() {
    let whole = lightning();
    for length in (0..whole.len()).step_by(whole.len() / 97).chain(whole.len() - 30..whole.len()) {
        let sentence = refusal(&whole[..length]);
        assert!(sentence.contains("truncated"), "{length}: {sentence}");
    }
    let pickle = unpack(&whole).swap_remove(0).1;
    for length in (0..pickle.len()).step_by(211) {
        assert!(refusal(&around(&pickle[..length])).contains("truncated"), "{length}");
    }
}

#[test]
fn a_damaged_byte_never_panics() {
    let entries = unpack(&lightning());
    let pickle = &entries[0].1;
    for at in (0..pickle.len()).step_by(97) {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = entries.clone();
            damaged[0].1[at] ^= flip;
            // Damage inside a number or an unused name cannot be noticed.
            let bytes = pack(&damaged);
            if let Ok(checkpoint) = PublishedCheckpoint::parse(&bytes, "here") {
                let _ = checkpoint.resolve(&ImportOverrides::default(), &SpecialIds::default());
            }
        }
    }
}

#[test]
fn a_call_in_a_pickle_is_data_and_runs_nothing() {
    let witness = std::env::temp_dir().join(format!("pgm-import-{}", std::process::id()));
    let mut hostile = Writer::default();
    hostile.op(b"\x80\x02cposix\nsystem\n").text(&format!("touch {}", witness.display())).op(b"\x85R.");
    let sentence = refusal(&around(&hostile.0));
    assert!(sentence.contains("no dictionary of tensors"), "{sentence}");
    assert!(!witness.exists());

    let pickle = Pickle::parse(&hostile.0).unwrap();
    let Value::Object(object) = pickle.get(pickle.root()) else { panic!("a call is an object") };
    assert_eq!(pickle.global(object.callable), Some(("posix", "system")));

    // In the place of a weight it is no tensor, so the weight is missing.
    let mut hostile = Writer::default();
    hostile.op(b"\x80\x02}(").text("vocab_embed.embedding").op(b"cbuiltins\neval\n").text("1/0").op(b"\x85Ru.");
    assert!(refusal(&around(&hostile.0)).contains("vocab_embed.embedding"));
}

#[test]
fn a_pickle_bomb_costs_no_more_than_its_length() {
    // A list that holds itself, a million lists in each other, and a doubling at each of ten thousand steps.
    let cyclic = b"\x80\x02]q\x00h\x00a.".to_vec();
    let deep = [&[b']'; 1_000_000][..], &[b'a'; 999_999], b"."].concat();
    let laughs = [b"]".as_slice(), &b"2\x86".repeat(10_000), b"."].concat();
    let dictionary = b"}q\x00X\x0a\x00\x00\x00state_dicth\x00s.".to_vec();
    for bomb in [cyclic, deep, laughs, dictionary] {
        let pickle = Pickle::parse(&bomb).unwrap();
        assert!(pickle.n_values() <= bomb.len());
        refusal(&around(&bomb));
    }
    // A long list that is passed to a constructor again and again, without effect.
    let repeated = [
        b"](".as_slice(),
        &[b'N'; 4000],
        b"e\x85q\x00ccollections\nOrderedDict\nq\x01",
        &b"h\x01h\x00R".repeat(4000),
        b".",
    ];
    assert!(refusal(&around(&repeated.concat())).contains("needs more than"));
    // Wrappers that never end, around a weight and around a setting.
    let mut wrapped = Writer::default();
    wrapped.op(b"}(").text("vocab_embed.embedding");
    wrapped.op(b"ctorch._utils\n_rebuild_parameter\n)Rq\x000ctorch._utils\n_rebuild_parameter\n(h\x00\x88}tRu.");
    refusal(&around(&wrapped.0));
}

#[test]
fn a_declared_length_is_checked_before_anything_is_allocated() {
    for bytes in [
        &b"\x80\x02X\xff\xff\xff\xffab."[..],
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.",
        b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x80ab.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
    ] {
        assert!(refusal(&around(bytes)).contains("truncated"));
    }
    let endless = [&vec![b'N'; MAX_WORK][..], b"."].concat();
    assert!(refusal(&around(&endless)).contains("needs more than"));
    assert!(refusal(&around(b"\x80\x02r\xff\xff\xff\xff.")).contains("empty stack"));
}

#[test]
fn a_tensor_cannot_reach_beyond_its_storage() {
    let file = one_tensor(12, 2, &[3, 2], &[1, 4]);
    let file = TorchFile::parse(&file).unwrap();
    let node = file.pickle().entry(file.pickle().root(), "backbone.vocab_embed.embedding").unwrap();
    let tensor = file.tensor(node).unwrap().unwrap();
    let found: Vec<f32> = tensor.to_bytes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(found, [2.0, 6.0, 3.0, 7.0, 4.0, 8.0]);

    let huge = 1 << 62;
    for (count, offset, shape, strides) in [
        (12, 0, &[3, 5][..], &[5, 1][..]),
        (12, 7, &[3, 2], &[2, 1]),
        (12, 13, &[0, 2], &[2, 1]),
        (12, huge, &[1, 1], &[1, 1]),
        (12, 0, &[2, 2], &[huge, huge]),
        (12, 0, &[huge, 4], &[0, 0]),
        (12, 0, &[13, 1], &[0, 1]),
    ] {
        let sentence = refusal(&one_tensor(count, offset, shape, strides));
        assert!(sentence.contains("does not fit its storage"), "{sentence}");
    }
    assert!(refusal(&one_tensor(13, 0, &[3, 4], &[4, 1])).contains("holds 48 bytes"));
    assert!(refusal(&one_tensor(huge, 0, &[3, 4], &[4, 1])).contains("holds 48 bytes"));
    assert!(refusal(&one_tensor(12, 0, &[3, 4], &[4])).contains("strides [4]"));
    assert!(refusal(&one_tensor(12, 0, &[1; 9], &[1; 9])).contains("no small numbers"));
    assert!(refusal(&one_tensor(12, 0, &[3, 4], &[4, 1])).contains("sigma_map.mlp.0.weight"));
}

/// The golden checkpoint with its pickle's bytes changed; the first match only, same length or not.
fn edited(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut entries = unpack(&lightning());
    let pickle = &mut entries[0].1;
    let at = pickle.windows(from.len()).position(|window| window == from).expect("the golden file has it");
    pickle.splice(at..at + from.len(), to.iter().copied());
    pack(&entries)
}

#[test]
fn wrong_shapes_missing_tensors_and_averages_are_named() {
    // [96, 32] -> [32, 96] and [48, 32], in the state dict only.
    for (shape, found) in [(b"K\x20K\x60\x86", "[32, 96]"), (b"K\x30K\x20\x86", "[48, 32]")] {
        let file = edited(b"K\x60K\x20\x86", shape);
        let sentence = refusal_of(&file, Some(CheckpointWeights::Raw));
        assert!(sentence.contains("tensor encoder.blocks.0.attn_qkv.weight has shape"), "{sentence}");
        assert!(sentence.contains(found) && sentence.contains("[96, 32]"), "{sentence}");
        let sentence = refusal_of(&file, Some(CheckpointWeights::Ema));
        assert!(sentence.contains("ema.shadow_params[6]") && sentence.contains(found), "{sentence}");
    }

    let lost = edited(b"blocks.1.attn_out.weight", b"blocks.1.attn_lot.weight");
    let sentence = refusal_of(&lost, Some(CheckpointWeights::Raw));
    assert!(sentence.contains("lacks 1 of") && sentence.contains("encoder.blocks.1.attn_out.weight"), "{sentence}");

    let sentence = refusal(&edited(b"vocab_embed.embedding", b"vocab_embed.embeddinx"));
    assert!(sentence.contains("vocab_embed.embedding"), "{sentence}");

    // One average too few.
    let sentence = refusal(&edited(b"backbone.rotary_emb.inv_freq", b"backbone.rotary_emb.in__freq"));
    assert!(sentence.contains("63 averaged weights") && sentence.contains("64 parameters"), "{sentence}");

    // A storage that is gone.
    let mut entries = unpack(&lightning());
    entries.retain(|(name, _)| name != "archive/data/7");
    let sentence = refusal(&pack(&entries));
    assert!(sentence.contains("the storage 7, which the file lacks"), "{sentence}");

    let sentence = refusal(&edited(b"learn+freqs", b"learn+freak"));
    assert!(sentence.contains("learn+freak") && sentence.contains("--queries"), "{sentence}");
}

#[test]
fn files_of_other_formats_are_named() {
    assert!(refusal(b"\x80\x02\x8a\x0alP\x46\xf9\x20j\xa8P\x19.\x80\x02M\xe9\x03.").contains("before 1.6"));
    assert!(refusal(&pack(&[("a/b".to_string(), vec![1])])).contains("no data.pkl"));
    assert!(refusal(b"hello, this is text").contains("neither a file of torch.save nor"));
    assert!(refusal(b"\xff\xff\xff\xff\xff\xff\xff\xff{}").contains("not a readable safetensors file"));
    let mut long = Writer::default();
    long.op(b"}(").text(&"x".repeat(600)).tensor(12, 0, &[3], &[1]).op(b"u.");
    let storage = ("archive/data/0".to_string(), vec![0; 48]);
    assert!(
        refusal(&pack(&[("archive/data.pkl".to_string(), long.0), storage])).contains("names of more than 512 bytes")
    );
    assert!(refusal(&around(b"}.")).contains("none of its 0 tensors"));
    let mut deflated = around(b"}.");
    let directory = deflated.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    deflated[directory + 10] = 8;
    assert!(refusal(&deflated).contains("entry archive/data.pkl is compressed"));
}

#[test]
fn files_of_more_than_four_gigabytes_have_longer_records() {
    let entries = unpack(&lightning());
    let (small, large) = (pack_as(&entries, false), pack_as(&entries, true));
    let weights = |bytes: &[u8]| {
        let checkpoint = PublishedCheckpoint::parse(bytes, "here").unwrap();
        let (config, _) = checkpoint.resolve(&ImportOverrides::default(), &SpecialIds::default()).unwrap();
        model_folder::to_safetensors(&checkpoint.network(CheckpointWeights::Ema, &config, &Device::flex()).unwrap())
            .unwrap()
    };
    assert_eq!(weights(&small), weights(&large));
    for length in (0..large.len()).step_by(large.len() / 41).chain(large.len() - 30..large.len()) {
        assert!(refusal(&large[..length]).contains("truncated"), "{length}");
    }
}

#[test]
fn tokenizer_and_settings_in_the_file_are_read() {
    let bytes = lightning();
    let checkpoint = PublishedCheckpoint::parse(&bytes, "here").unwrap();
    let folder = Golden::open_ours("lightning").folder;
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let expected = std::fs::read(folder.join("tokenizer.json")).unwrap();
    assert_eq!(json(checkpoint.tokenizer_json().unwrap()), json(&expected));
    assert_eq!(checkpoint.special_names().bos.as_deref(), Some("<|endoftext|>"));
    assert_eq!(checkpoint.special_names().mask, None);
    assert_eq!(checkpoint.sampling(), (Some(8), Some(1.0)));

    let overrides = ImportOverrides { n_heads: Some(8), ..ImportOverrides::default() };
    let special = SpecialIds { bos: Some(0), eos: Some(0), ..SpecialIds::default() };
    let (config, taken) = checkpoint.resolve(&overrides, &special).unwrap();
    assert_eq!((config.backbone().n_heads, config.backbone().length, config.backbone().bos_index), (8, 32, 0));
    let source = |key: &str| taken.iter().find(|taken| taken.key == key).unwrap().source.clone();
    assert_eq!(source("n_heads"), "the command line");
    assert_eq!(source("length"), "the file's configuration");
    assert_eq!(source("bos_index"), "the tokenizer");
    assert_eq!(source("mask_index"), "the published default");
    assert_eq!(source("hidden_size"), "the tensors");
}

#[test]
fn an_exported_model_is_imported_to_the_same_bits_with_its_configuration() {
    for name in ["text_learn_mlp4", "text_logsumexp_linear", "mdlm"] {
        let mut golden = Golden::open_ours(name);
        if let ModelConfig::Partition(config) = &mut golden.config {
            config.sets = if name == "text_learn_mlp4" { Sets::Mix } else { Sets::Fixed(4) };
        }
        let device = Device::flex();
        let network = golden.network(&device);
        let exported = model_folder::to_published(&network, &golden.config, WeightDtype::F32).unwrap();
        let checkpoint = PublishedCheckpoint::parse(&exported, "here").unwrap();
        let (config, _) = checkpoint.resolve(&ImportOverrides::default(), &SpecialIds::default()).unwrap();
        assert_eq!(config, golden.config);
        let imported = checkpoint.network(CheckpointWeights::Raw, &config, &device).unwrap();
        let bits = |network: &Network| model_folder::to_safetensors(network).unwrap();
        assert_eq!(bits(&imported), bits(&network));
        assert!(
            checkpoint
                .network(CheckpointWeights::Ema, &config, &device)
                .unwrap_err()
                .to_string()
                .contains("--weights raw")
        );

        // Published names, all of them, with the rotary frequencies that `load_state_dict` asks for.
        let published = std::fs::read(golden.folder.join("reference.safetensors")).unwrap();
        let published = SafeTensors::deserialize(&published).unwrap();
        let exported = SafeTensors::deserialize(&exported).unwrap();
        let sorted = |file: &SafeTensors| {
            let mut names: Vec<String> = file.names().into_iter().map(str::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&exported), sorted(&published));
        let frequencies = |file: &SafeTensors| -> Vec<f32> {
            let bytes = file.tensor("backbone.rotary_emb.inv_freq").unwrap().data().to_vec();
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        for (ours, theirs) in frequencies(&exported).iter().zip(frequencies(&published)) {
            assert!((ours - theirs).abs() <= 1e-7 * theirs, "{ours} against {theirs}");
        }
    }
}

#[test]
fn a_safetensors_file_may_begin_like_a_pickle_or_a_zip_file() {
    let golden = Golden::open_ours("mdlm");
    let exported =
        model_folder::to_published(&golden.network(&Device::flex()), &golden.config, WeightDtype::F32).unwrap();
    let header_length = u64::from_le_bytes(exported[..8].try_into().unwrap()) as usize;
    for beginning in [[0x80, 0x02], *b"PK"] {
        // The header is filled up with spaces until its length begins so.
        let wanted = usize::from(u16::from_le_bytes(beginning));
        let padded = header_length + (wanted + (1 << 16) - header_length % (1 << 16)) % (1 << 16);
        let mut file = (padded as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&exported[8..8 + header_length]);
        file.resize(8 + padded, b' ');
        file.extend_from_slice(&exported[8 + header_length..]);
        assert_eq!(file[..2], beginning);
        let checkpoint = PublishedCheckpoint::parse(&file, "here").unwrap();
        let (config, _) = checkpoint.resolve(&ImportOverrides::default(), &SpecialIds::default()).unwrap();
        assert_eq!(config, golden.config);
    }
}

#[test]
fn sizes_come_from_the_tensors_and_the_rest_from_defaults() {
    let golden = Golden::open_ours("text_learn_mlp4");
    let bytes = std::fs::read(golden.folder.join("reference.safetensors")).unwrap();
    let checkpoint = PublishedCheckpoint::parse(&bytes, "here").unwrap();
    let resolve = |overrides: &ImportOverrides| checkpoint.resolve(overrides, &SpecialIds::default());
    let error = resolve(&ImportOverrides::default()).unwrap_err().to_string();
    assert!(error.contains("n_heads") && error.contains("--heads"), "{error}");
    let heads = ImportOverrides { n_heads: Some(4), ..ImportOverrides::default() };
    assert!(resolve(&heads).unwrap_err().to_string().contains("--length"));
    let (config, _) = resolve(&ImportOverrides { length: Some(24), ..heads }).unwrap();
    let ModelConfig::Partition(config) = config else { panic!("it is a partition model") };
    assert_eq!(config.projection, Projection::Mlp4);
    assert_eq!((config.backbone.dropout, config.queries), (0.1, pgm_model::Queries::LearnFreqs));
    let error = resolve(&ImportOverrides { n_heads: Some(usize::MAX), length: Some(24), ..ImportOverrides::default() });
    assert!(error.unwrap_err().to_string().contains("--heads"));
}
