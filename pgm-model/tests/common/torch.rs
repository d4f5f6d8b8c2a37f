//! Files of `torch.save`, written byte by byte.

pub type Entries = Vec<(String, Vec<u8>)>;

/// The entries of a container as Python's zip writes it, by its directory.
pub fn unpack(file: &[u8]) -> Entries {
    let number = |at: usize, n: usize| file[at..at + n].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let end = file.len() - 22;
    let mut at = number(end + 16, 4);
    let mut entries = Vec::new();
    for _ in 0..number(end + 10, 2) {
        let (length, name, extra, header) =
            (number(at + 20, 4), number(at + 28, 2), number(at + 30, 2), number(at + 42, 4));
        let data = header + 30 + number(header + 26, 2) + number(header + 28, 2);
        let path = String::from_utf8(file[at + 46..at + 46 + name].to_vec()).unwrap();
        entries.push((path, file[data..data + length].to_vec()));
        at += 46 + name + extra;
    }
    entries
}

/// A container with 64-bit or 32-bit records.
pub fn pack_as(entries: &[(String, Vec<u8>)], large: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let four = |value: usize| if large { [0xff; 4] } else { (value as u32).to_le_bytes() };
    for (name, bytes) in entries {
        let start = out.len();
        let name_length = (name.len() as u16).to_le_bytes();
        out.extend([b"PK\x03\x04", &[0; 22][..], &name_length, &[0; 2], name.as_bytes(), bytes].concat());
        let extra: Vec<u8> = if large {
            let values = [bytes.len(), bytes.len(), start].map(|value| (value as u64).to_le_bytes()).concat();
            [b"\x63\x00\x01\x00z\x01\x00\x18\x00", &values[..]].concat()
        } else {
            Vec::new()
        };
        directory.extend([b"PK\x01\x02", &[0; 16][..], &four(bytes.len()), &four(bytes.len()), &name_length].concat());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([&[0; 10][..], &four(start), name.as_bytes(), &extra].concat());
    }
    let (start, count) = (out.len(), entries.len());
    out.extend(&directory);
    if large {
        let end = out.len() as u64;
        let values = [count, count, directory.len(), start].map(|value| (value as u64).to_le_bytes()).concat();
        out.extend([b"PK\x06\x06", &[0; 20][..], &values].concat());
        out.extend([b"PK\x06\x07", &[0; 4][..], &end.to_le_bytes(), &[0; 4]].concat());
    }
    let count = if large { [0xff; 2] } else { (count as u16).to_le_bytes() };
    out.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &four(directory.len()), &four(start), &[0; 2]].concat());
    out
}

pub fn pack(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    pack_as(entries, false)
}

/// A file of `torch.save` with that pickle and no storage.
pub fn around(pickle: &[u8]) -> Vec<u8> {
    pack(&[("archive/data.pkl".to_string(), pickle.to_vec())])
}

/// Writes the pickle that torch writes for a dictionary of tensors, with one storage of float32 for all.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    pub fn int(&mut self, value: usize) -> &mut Self {
        self.0.extend([0x8a, 8]);
        self.0.extend((value as u64).to_le_bytes());
        self
    }

    pub fn op(&mut self, opcodes: &[u8]) -> &mut Self {
        self.0.extend(opcodes);
        self
    }

    pub fn sizes(&mut self, sizes: &[usize]) -> &mut Self {
        self.op(b"(");
        sizes.iter().for_each(|&size| {
            self.int(size);
        });
        self.op(b"t")
    }

    pub fn tensor(&mut self, count: usize, offset: usize, shape: &[usize], strides: &[usize]) -> &mut Self {
        self.op(b"ctorch._utils\n_rebuild_tensor_v2\n((").text("storage").op(b"ctorch\nFloatStorage\n");
        self.text("0").text("cpu").int(count).op(b"tQ").int(offset).sizes(shape).sizes(strides);
        self.op(b"\x89}tR")
    }
}

/// A value that torch pickles.
#[derive(Clone)]
pub enum Py {
    Dict(Vec<(String, Py)>),
    List(Vec<Py>),
    Text(&'static str),
    Bool(bool),
    Int(usize),
    /// A contiguous tensor: the name of its storage class or of its dtype, its shape and its bytes.
    Tensor(&'static str, Vec<usize>, Vec<u8>),
}

/// A dictionary.
pub fn dict<const N: usize>(entries: [(&str, Py); N]) -> Py {
    Py::Dict(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// The file that `torch.save` writes for a value.
pub fn save(value: &Py) -> Vec<u8> {
    let (mut pickle, mut storages) = (Writer::default(), Entries::new());
    pickle.op(b"\x80\x02");
    write(value, &mut pickle, &mut storages);
    pickle.op(b".");
    storages.insert(0, ("archive/data.pkl".to_string(), pickle.0));
    pack(&storages)
}

fn write(value: &Py, pickle: &mut Writer, storages: &mut Entries) {
    match value {
        Py::Dict(entries) => {
            pickle.op(b"}(");
            for (key, value) in entries {
                pickle.text(key);
                write(value, pickle, storages);
            }
            pickle.op(b"u");
        }
        Py::List(values) => {
            pickle.op(b"](");
            values.iter().for_each(|value| write(value, pickle, storages));
            pickle.op(b"e");
        }
        Py::Text(text) => {
            pickle.text(text);
        }
        Py::Bool(value) => {
            pickle.op(if *value { b"\x88" } else { b"\x89" });
        }
        Py::Int(value) => {
            pickle.int(*value);
        }
        Py::Tensor(kind, shape, bytes) => {
            let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            let (is_untyped, key) = (!kind.ends_with("Storage"), storages.len().to_string());
            let (rebuild, class): (&[u8], _) = match is_untyped {
                true => (b"ctorch._utils\n_rebuild_tensor_v3\n((", "ctorch.storage\nUntypedStorage\n".to_string()),
                false => (b"ctorch._utils\n_rebuild_tensor_v2\n((", format!("ctorch\n{kind}\n")),
            };
            let count = if is_untyped { bytes.len() } else { shape.iter().product() };
            pickle.op(rebuild).text("storage").op(class.as_bytes()).text(&key).text("cpu").int(count).op(b"tQ").int(0);
            pickle.sizes(shape).sizes(&strides).op(b"\x89}");
            if is_untyped {
                pickle.op(format!("ctorch\n{kind}\n").as_bytes());
            }
            pickle.op(b"tR");
            storages.push((format!("archive/data/{key}"), bytes.clone()));
        }
    }
}
