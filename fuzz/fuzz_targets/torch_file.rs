//! Feeds arbitrary bytes to the parsers of `pgm-model/src/import/torch_file`, which this crate includes as source: they
//! need no Burn.
//!
//! The first byte selects a bare pickle, a container, or a pickle in a well-formed container with two storages. The
//! last reaches the tensor views without guessing a zip file.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../pgm-model/src/import/torch_file/mod.rs"]
mod torch_file;

use torch_file::{Pickle, TorchFile};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => walk_pickle(rest),
        1 => walk_file(rest),
        _ => walk_file(&container(rest)),
    }
});

fn walk_pickle(bytes: &[u8]) {
    let Ok(pickle) = Pickle::parse(bytes) else { return };
    // Two values an instruction at most, and INST's two names and tuple.
    assert!(pickle.n_values() <= 3 * bytes.len());
    for node in pickle.nodes().chain([pickle.root()]) {
        let _ = (pickle.get(node), pickle.str(node), pickle.size(node), pickle.global(node));
        let _ = (pickle.elements(node), pickle.entries(node));
    }
    let _ = pickle.entry(pickle.root(), "state_dict");
}

fn walk_file(bytes: &[u8]) {
    let Ok(file) = TorchFile::parse(bytes) else { return };
    for node in file.pickle().nodes() {
        let _ = file.attribute(node, "_content");
        if let Ok(Some(tensor)) = file.tensor(node) {
            // A view has no more elements than its storage, so a small file cannot become a large tensor.
            assert!(tensor.n_bytes() <= bytes.len());
            assert_eq!(tensor.to_bytes().len(), tensor.n_bytes());
        }
    }
}

fn container(pickle: &[u8]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let parts: [(&str, &[u8]); 3] = [("a/data.pkl", pickle), ("a/data/0", &[7; 64]), ("a/data/1", &[1; 3])];
    for (name, bytes) in parts {
        let (start, length) = ((out.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
        let name_length = (name.len() as u16).to_le_bytes();
        out.extend([b"PK\x03\x04", &[0; 22][..], &name_length, &[0; 2], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02", &[0; 16][..], &length, &length, &name_length, &[0; 12], &start].concat());
        directory.extend(name.as_bytes());
    }
    let start = (out.len() as u32).to_le_bytes();
    out.extend(directory);
    out.extend([b"PK\x05\x06", &[0; 6][..], &[3, 0, 0, 0, 0, 0], &start, &[0; 2]].concat());
    out
}
