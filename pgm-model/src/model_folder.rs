//! Model folders: `config.json` and `model.safetensors`, with `tokenizer.json` and `generation_config.json` beside.
//!
//! Weights are stored under the published checkpoints' names without their `backbone.` prefix, linear weights as
//! `[out, in]`, so that PyTorch code reads our files and we read theirs. `published_name` is the one table of names.
//!
//! Files are written beside and renamed into place. Loading checks that each tensor is there, has the configured shape
//! and belongs to the model. Files of other forms (see [`import`](crate::import)) enter by [`from_source`], through the
//! same table and checks.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::parallel::prelude::*;
use crate::{ModelConfig, ModelError, Network, WeightDtype};

/// Name of the configuration in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the tokenizer in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the sampler defaults in a model folder.
pub const GENERATION_FILE: &str = "generation_config.json";
/// Key of the safetensors metadata under which [`to_published`] keeps the configuration.
pub const CONFIG_METADATA: &str = "pgm_config";

/// What the published names begin with.
const PREFIX: &str = "backbone.";

/// Writes `config.json` and `model.safetensors` into `folder`, which is made if need be.
///
/// # Errors
/// [`ModelError::Io`] when the disk refuses, [`ModelError::Device`] when a weight cannot be read back.
pub fn save(folder: &Path, config: &ModelConfig, network: &Network) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(|cause| io("write", folder, cause))?;
    let weights = to_safetensors(network)?;
    write_file(&folder.join(WEIGHTS_FILE), &weights)?;
    let json = serde_json::to_vec_pretty(config).expect("a configuration always serialises");
    write_file(&folder.join(CONFIG_FILE), &json)
}

/// Reads `config.json` and `model.safetensors` from `folder`. The weights file is mapped, not copied.
///
/// # Errors
/// Says which file cannot be read, or which tensor is missing, unknown, or of the wrong shape or type.
pub fn load(folder: &Path, device: &Device) -> Result<(ModelConfig, Network), ModelError> {
    load_with_progress(folder, device, &|_| ())
}

/// As [`load`]; `watch` is told again and again what share of the weights is read, from 0 to 1, with which it ends
/// (a file may hold more than the network takes).
///
/// # Errors
/// As [`load`].
pub fn load_with_progress(
    folder: &Path,
    device: &Device,
    watch: &dyn Fn(f64),
) -> Result<(ModelConfig, Network), ModelError> {
    let config = load_config(folder)?;
    let file = MappedFile::open(&folder.join(WEIGHTS_FILE))?;
    let source =
        SafeTensorsSource { watch: Some(watch), ..SafeTensorsSource::new(file.bytes(), file.origin(), Some(&file))? };
    let network = from_source(&source, file.origin(), &config, device)?;
    watch(1.0);
    Ok((config, network))
}

/// Reads and checks `config.json` of a model folder.
///
/// # Errors
/// As [`load`].
pub fn load_config(folder: &Path) -> Result<ModelConfig, ModelError> {
    let path = folder.join(CONFIG_FILE);
    let json = std::fs::read(&path).map_err(|cause| io("read", &path, cause))?;
    parse_config(&json, &path.display().to_string())
}

/// Reads a safetensors file into a new network; the file may be ours or a published checkpoint.
///
/// # Errors
/// As [`load`].
pub fn load_weights(path: &Path, config: &ModelConfig, device: &Device) -> Result<Network, ModelError> {
    let file = MappedFile::open(path)?;
    let source = SafeTensorsSource::new(file.bytes(), file.origin(), Some(&file))?;
    from_source(&source, file.origin(), config, device)
}

/// A file that is read where it lies.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
    origin: String,
}

impl MappedFile {
    /// Maps a file for reading.
    ///
    /// # Errors
    /// [`ModelError::Io`] naming `path`.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|cause| io("read", path, cause))?;
        // SAFETY: the map is only read. Another process that truncates the file meanwhile could end this one with a bus
        // error, as with every mapped file; our own writers replace files by renaming and never truncate.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|cause| io("read", path, cause))?;
        Ok(Self { map, origin: path.display().to_string() })
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Its path, as errors name it.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    // Says that these bytes will not be read again soon: their pages no longer count as this process's memory.
    #[cfg(unix)]
    fn release(&self, bytes: &[u8]) {
        const PAGE: usize = 1 << 16; // a multiple of every page size in use
        let start = (bytes.as_ptr() as usize - self.map.as_ptr() as usize).next_multiple_of(PAGE);
        let end = (bytes.as_ptr() as usize + bytes.len() - self.map.as_ptr() as usize) / PAGE * PAGE;
        if start < end {
            // SAFETY: the map is of a file and only read, so a page that was given up is read again when it is touched.
            // Advice that is refused changes nothing.
            #[allow(unsafe_code)]
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    #[cfg(not(unix))]
    fn release(&self, _bytes: &[u8]) {}
}

/// As [`load_with_progress`], from bytes: what an application that embeds a model calls.
///
/// # Errors
/// As [`load`], without [`ModelError::Io`].
pub fn load_bytes(
    config: &[u8],
    weights: &[u8],
    device: &Device,
    watch: &dyn Fn(f64),
) -> Result<(ModelConfig, Network), ModelError> {
    let (config, origin) = (parse_config(config, "the configuration")?, "the weights");
    let source = SafeTensorsSource { watch: Some(watch), ..SafeTensorsSource::new(weights, origin, None)? };
    let network = from_source(&source, origin, &config, device)?;
    watch(1.0);
    Ok((config, network))
}

/// Writes `bytes` beside `path` and renames them into place: a reader sees the old file or the new one, never half.
///
/// # Errors
/// [`ModelError::Io`] naming `path`; nothing is left behind.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|cause| io("write", path, cause))
}

fn io(action: &'static str, path: &Path, cause: std::io::Error) -> ModelError {
    ModelError::Io { action, path: path.to_path_buf(), cause }
}

fn parse_config(json: &[u8], origin: &str) -> Result<ModelConfig, ModelError> {
    let config: ModelConfig =
        serde_json::from_slice(json).map_err(|cause| ModelError::Json { origin: origin.to_string(), cause })?;
    config.validate()?;
    Ok(config)
}

/// The published name of a parameter, from its path in our modules, both without the `backbone.` prefix. The baselines
/// have one stack of blocks, no encoder and decoder.
fn published_name(path: &str, one_stack: bool) -> String {
    let (blocks, encoder_blocks) = ("blocks.", if one_stack { "blocks." } else { "encoder.blocks." });
    let whole = [("embedding.weight", "vocab_embed.embedding"), ("swap.base", "decoder.group_swap.base_embedding")];
    if let Some((_, name)) = whole.iter().find(|(ours, _)| *ours == path) {
        return (*name).to_string();
    }
    let starts = [
        ("time.input.", "sigma_map.mlp.0."),
        ("time.output.", "sigma_map.mlp.2."),
        ("encoder.", encoder_blocks),
        (blocks, encoder_blocks),
        ("decoder.", "decoder.layers."),
        ("swap.norm.", "decoder.group_swap.pre_query_norm."),
        ("swap.projection.up.", "decoder.group_swap.query_processor.0."),
        ("swap.projection.down.", "decoder.group_swap.query_processor.2."),
        ("swap.projection.", "decoder.group_swap.query_processor."),
        ("swap.kv.", "decoder.group_swap.hidden_to_key_value."),
        ("swap.out.", "decoder.group_swap.output_linear."),
        ("head.norm.", "output_layer.norm_final."),
        ("head.modulation.", "output_layer.adaLN_modulation."),
        ("head.linear.", "output_layer.linear."),
    ];
    let parts = [
        (".modulation.", ".adaLN_modulation."),
        (".qkv.", ".attn_qkv."),
        (".q.", ".attn_q."),
        (".kv.", ".attn_kv."),
        (".out.", ".attn_out."),
        (".mlp.up.", ".mlp.0."),
        (".mlp.down.", ".mlp.2."),
    ];
    let mut name = match starts.iter().find(|(ours, _)| path.starts_with(ours)) {
        Some((ours, theirs)) => format!("{theirs}{}", &path[ours.len()..]),
        None => path.to_string(),
    };
    if name.starts_with(encoder_blocks) || name.starts_with("decoder.layers.") {
        for (ours, theirs) in parts {
            name = name.replace(ours, theirs);
        }
    }
    // Burn calls a norm's weight gamma and its bias beta.
    name.replace(".gamma", ".weight").replace(".beta", ".bias")
}

// Linear weights are the only matrices whose published name ends so; they are stored transposed.
fn is_linear_weight(name: &str, rank: usize) -> bool {
    rank == 2 && name.ends_with(".weight")
}

/// The path from the network's root to the parameter being visited, without the names of enum variants.
#[derive(Default)]
struct NamePath {
    parts: Vec<String>,
    one_stack: bool,
}

impl NamePath {
    fn enter(&mut self, name: &str) {
        self.one_stack |= matches!(name, "Masked" | "Autoregressive");
        self.parts.push(name.to_string());
    }

    fn exit(&mut self) {
        self.parts.pop();
    }

    fn published(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        let is_variant = |part: &str| part.starts_with(char::is_uppercase);
        let path = parts.into_iter().filter(|part| !is_variant(part)).collect::<Vec<_>>().join(".");
        published_name(&path, self.one_stack)
    }
}

/// The network's weights as a safetensors file: published names, float32, linear weights `[out, in]`.
///
/// # Errors
/// [`ModelError::Device`] when a weight cannot be read back from its device.
pub fn to_safetensors(network: &Network) -> Result<Vec<u8>, ModelError> {
    Ok(serialize(&collect(network)?, "", Dtype::F32, HashMap::new()))
}

/// As [`to_safetensors`], in the form that the published code loads with `load_state_dict`: names begin with `backbone.`
/// and the rotary frequencies are there. The configuration travels in the metadata, under [`CONFIG_METADATA`]. The values are
/// stored in float32 or rounded to a half-precision type.
///
/// # Errors
/// As [`to_safetensors`], and [`ModelError::Precision`] for a quantised type, which the published form does not know.
pub fn to_published(network: &Network, config: &ModelConfig, weights: WeightDtype) -> Result<Vec<u8>, ModelError> {
    let dtype = match weights {
        WeightDtype::F32 => Dtype::F32,
        WeightDtype::F16 => Dtype::F16,
        WeightDtype::BF16 => Dtype::BF16,
        WeightDtype::Q8 | WeightDtype::Q4 => {
            let message = "weights are published in f32, f16 or bf16; a model is quantised when it is loaded";
            return Err(ModelError::Precision(message.into()));
        }
    };
    let mut tensors = collect(network)?;
    let frequencies = crate::rotary::frequencies(config.backbone().head_dim());
    let bytes = frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()).collect();
    tensors.insert("rotary_emb.inv_freq".to_string(), (vec![frequencies.len()], bytes));
    let json = serde_json::to_string(config).expect("a configuration always serialises");
    Ok(serialize(&tensors, PREFIX, dtype, HashMap::from([(CONFIG_METADATA.to_string(), json)])))
}

/// Shape and little-endian float32 values of each tensor, by its published name.
type Collected = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn serialize(tensors: &Collected, prefix: &str, dtype: Dtype, mut metadata: HashMap<String, String>) -> Vec<u8> {
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, bytes))| {
            let rounded: Cow<[u8]> = match dtype {
                Dtype::F16 => {
                    values(bytes).into_iter().flat_map(|v| burn::tensor::f16::from_f32(v).to_le_bytes()).collect()
                }
                Dtype::BF16 => {
                    values(bytes).into_iter().flat_map(|v| burn::tensor::bf16::from_f32(v).to_le_bytes()).collect()
                }
                _ => Cow::Borrowed(bytes),
            };
            (format!("{prefix}{name}"), shape.clone(), rounded)
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(dtype, shape.clone(), bytes).expect("shape and bytes belong together");
        (name, view)
    });
    metadata.insert("format".to_string(), "pt".to_string());
    safetensors::serialize(views, Some(metadata)).expect("views of equal type always serialise")
}

fn collect(network: &Network) -> Result<Collected, ModelError> {
    struct Collect {
        path: NamePath,
        tensors: Collected,
        failed: Option<ModelError>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.published();
            let value = if is_linear_weight(&name, D) { param.val().swap_dims(0, 1) } else { param.val() };
            let shape = value.dims().to_vec();
            match value.try_into_vec_as::<f32>() {
                Ok(values) => {
                    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    self.tensors.insert(name, (shape, bytes));
                }
                Err(error) => {
                    self.failed.get_or_insert(ModelError::Device { name, problem: error.to_string() });
                }
            }
        }
    }
    let mut collect = Collect { path: NamePath::default(), tensors: BTreeMap::new(), failed: None };
    network.visit(&mut collect);
    match collect.failed {
        Some(error) => Err(error),
        None => Ok(collect.tensors),
    }
}

/// A tensor as a file stores it: values row by row, least byte first.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    /// What its elements are.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> From<TensorView<'a>> for StoredTensor<'a> {
    fn from(view: TensorView<'a>) -> Self {
        Self { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: Cow::Borrowed(view.data()) }
    }
}

impl StoredTensor<'_> {
    /// Its values as float32; `origin` and `name` say in errors which it is.
    ///
    /// # Errors
    /// [`ModelError::DType`] when it holds anything but F64, F32, F16 or BF16.
    pub fn floats(&self, origin: &str, name: &str) -> Result<Vec<f32>, ModelError> {
        self.read(None, &|_| (), origin, name)
    }

    // The values; with `[rows, columns]` those of the transposed matrix.
    fn read(
        &self,
        transposed: Option<[usize; 2]>,
        release: &dyn Fn(&[u8]),
        origin: &str,
        name: &str,
    ) -> Result<Vec<f32>, ModelError> {
        let bytes: &[u8] = &self.bytes;
        match self.dtype {
            Dtype::F32 => Ok(convert(bytes, transposed, release, f32::from_le_bytes)),
            Dtype::F64 => Ok(convert(bytes, transposed, release, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => Ok(convert(bytes, transposed, release, |b| burn::tensor::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(convert(bytes, transposed, release, |b| burn::tensor::bf16::from_le_bytes(b).to_f32())),
            other => Err(ModelError::DType {
                origin: origin.to_string(),
                name: name.to_string(),
                dtype: format!("{other:?}"),
            }),
        }
    }
}

/// Where weights come from: tensors under their published names without the `backbone.` prefix.
pub trait TensorSource {
    /// The names of all its tensors.
    fn names(&self) -> Vec<&str>;

    /// One of them.
    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>>;

    /// Called with each part of a tensor that has been copied and will not be asked for again.
    fn release(&self, _bytes: &[u8]) {}
}

/// A safetensors file, whose names may carry the prefix.
struct SafeTensorsSource<'a> {
    file: SafeTensors<'a>,
    prefix: &'static str,
    map: Option<&'a MappedFile>,
    watch: Option<&'a dyn Fn(f64)>,
    // Bytes of all tensors, and of those read so far.
    size: usize,
    read: Cell<usize>,
}

impl<'a> SafeTensorsSource<'a> {
    fn new(bytes: &'a [u8], origin: &str, map: Option<&'a MappedFile>) -> Result<Self, ModelError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| ModelError::Weights { origin: origin.to_string(), problem: error.to_string() })?;
        let prefix = if file.names().iter().any(|name| name.starts_with(PREFIX)) { PREFIX } else { "" };
        let size = file.iter().map(|(_, tensor)| tensor.data().len()).sum();
        Ok(Self { file, prefix, map, watch: None, size, read: Cell::new(0) })
    }
}

impl TensorSource for SafeTensorsSource<'_> {
    fn names(&self) -> Vec<&str> {
        self.file.names().into_iter().map(|name| name.strip_prefix(self.prefix).unwrap_or(name)).collect()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.file.tensor(&format!("{}{name}", self.prefix)).ok().map(StoredTensor::from)
    }

    fn release(&self, bytes: &[u8]) {
        if let Some(map) = self.map {
            map.release(bytes);
        }
        if let Some(watch) = self.watch {
            self.read.set(self.read.get() + bytes.len());
            watch(self.read.get() as f64 / self.size.max(1) as f64);
        }
    }
}

/// A network of that configuration with the weights of a safetensors file; `origin` names the file in errors.
///
/// # Errors
/// As [`load`].
pub fn from_safetensors(
    bytes: &[u8],
    origin: &str,
    config: &ModelConfig,
    device: &Device,
) -> Result<Network, ModelError> {
    from_source(&SafeTensorsSource::new(bytes, origin, None)?, origin, config, device)
}

/// A network of that configuration with weights from anywhere; `origin` names the place in errors.
///
/// # Errors
/// As [`load`].
pub fn from_source(
    source: &dyn TensorSource,
    origin: &str,
    config: &ModelConfig,
    device: &Device,
) -> Result<Network, ModelError> {
    struct Fill<'a> {
        path: NamePath,
        source: &'a dyn TensorSource,
        origin: &'a str,
        device: &'a Device,
        used: usize,
        missing: Vec<String>,
        failed: Option<ModelError>,
    }
    impl Fill<'_> {
        fn read<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Option<Tensor<D>>, ModelError> {
            let Some(stored) = self.source.tensor(name) else {
                self.missing.push(name.to_string());
                return Ok(None);
            };
            self.used += 1;
            let transposed = is_linear_weight(name, D);
            let mut expected = shape.to_vec();
            if transposed {
                expected.reverse();
            }
            let origin = || self.origin.to_string();
            if stored.shape != expected {
                return Err(ModelError::Shape {
                    origin: origin(),
                    name: name.to_string(),
                    expected,
                    found: stored.shape,
                });
            }
            let transposed = transposed.then(|| [expected[0], expected[1]]);
            let values = stored.read(transposed, &|bytes| self.source.release(bytes), self.origin, name)?;
            Ok(Some(Tensor::from_data(TensorData::new(values, shape), self.device)))
        }
    }
    impl ModuleMapper for Fill<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.failed.is_some() {
                return param;
            }
            let name = self.path.published();
            match self.read(&name, param.lazy_shape().dims()) {
                Ok(Some(value)) => Param::initialized(param.id, value).set_require_grad(true),
                Ok(None) => param,
                Err(error) => {
                    self.failed = Some(error);
                    param
                }
            }
        }
    }
    let mut fill =
        Fill { path: NamePath::default(), source, origin, device, used: 0, missing: Vec::new(), failed: None };
    let network = Network::new(config, device).map(&mut fill);
    if let Some(error) = fill.failed {
        return Err(error);
    }
    let origin = origin.to_string();
    if let Some(first) = fill.missing.first() {
        return Err(ModelError::MissingTensor { origin, count: fill.missing.len(), first: first.clone() });
    }
    // The rotary frequencies that published files carry follow from the sizes.
    let names: Vec<&str> = source.names().into_iter().filter(|name| !is_buffer(name)).collect();
    if fill.used < names.len() {
        let known = BTreeSet::from_iter(known_names(&network));
        let mut unknown: Vec<&str> = names.into_iter().filter(|name| !known.contains(*name)).collect();
        unknown.sort_unstable();
        if let Some(first) = unknown.first() {
            return Err(ModelError::UnknownTensor { origin, count: unknown.len(), first: (*first).to_string() });
        }
    }
    Ok(network)
}

/// Whether a published tensor is one that no training changes: the rotary frequencies.
pub(crate) fn is_buffer(name: &str) -> bool {
    name.ends_with("inv_freq")
}

/// The published name of each parameter, in the modules' order.
pub fn known_names(network: &Network) -> Vec<String> {
    struct Names(NamePath, Vec<String>);
    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
            self.1.push(self.0.published());
        }
    }
    let mut names = Names(NamePath::default(), Vec::new());
    network.visit(&mut names);
    names.1
}

// Numbers of `N` bytes each as float32, on all cores: most of the time goes to the first touch of new memory. With
// `[rows, columns]` the matrix is transposed on the way, in tiles that fit the cache. `release` is told what has been read.
fn convert<const N: usize>(
    bytes: &[u8],
    transposed: Option<[usize; 2]>,
    release: &dyn Fn(&[u8]),
    number: impl Fn([u8; N]) -> f32 + Sync,
) -> Vec<f32> {
    const BAND: usize = 1 << 22;
    const TILE: usize = 32;
    let mut out = vec![0.0; bytes.len() / N];
    match transposed {
        None => {
            for (out, bytes) in out.chunks_mut(BAND).zip(bytes.chunks(BAND * N)) {
                let numbers = bytes.as_chunks::<N>().0;
                out.par_chunks_mut(BAND / 64).zip(numbers.par_chunks(BAND / 64)).for_each(|(out, numbers)| {
                    out.iter_mut().zip(numbers).for_each(|(out, bytes)| *out = number(*bytes));
                });
                release(bytes);
            }
        }
        Some([rows, columns]) => {
            let band = (BAND / columns.max(1)).next_multiple_of(TILE);
            for (start, bytes) in (0..rows).step_by(band).zip(bytes.chunks(band * columns * N)) {
                let numbers = bytes.as_chunks::<N>().0;
                out.par_chunks_mut(TILE * rows).enumerate().for_each(|(tile, out)| {
                    for (tile_start, tile_rows) in (start..).step_by(TILE).zip(numbers.chunks(TILE * columns)) {
                        for (column, out) in (tile * TILE..).zip(out.chunks_exact_mut(rows)) {
                            for (out, row) in out[tile_start..].iter_mut().zip(tile_rows.chunks_exact(columns)) {
                                *out = number(row[column]);
                            }
                        }
                    }
                });
                release(bytes);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_several_bands_are_read_whole_and_turned() {
        for [rows, columns] in [[1, 1], [33, 70], [2200, 2003]] {
            let n = rows * columns;
            let bytes: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
            let stored = StoredTensor { dtype: Dtype::F32, shape: vec![rows, columns], bytes: Cow::Borrowed(&bytes) };
            let released = Cell::new(0);
            let release = |bytes: &[u8]| released.set(released.get() + bytes.len());
            let plain = stored.read(None, &release, "file", "w").unwrap();
            assert!(plain.iter().enumerate().all(|(i, &value)| value == i as f32));
            let turned = stored.read(Some([rows, columns]), &release, "file", "w").unwrap();
            let expected = |i: usize| ((i % rows) * columns + i / rows) as f32;
            assert!(turned.iter().enumerate().all(|(i, &value)| value == expected(i)));
            assert_eq!(released.get(), 2 * bytes.len());
        }
    }
}
