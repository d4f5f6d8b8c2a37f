//! Reads GPT-2's weights from a safetensors file as Hugging Face publishes it.

use std::path::Path;

use burn::module::Param;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use pgm_model::ModelError;
use pgm_model::model_folder::{MappedFile, StoredTensor, WEIGHTS_FILE};
use safetensors::SafeTensors;

use super::config::Gpt2Config;
use super::network::{Block, Gpt2};
use crate::TrainError;

impl Gpt2 {
    /// Reads `config.json` and `model.safetensors` of a folder. The weights file is memory-mapped. Tensors of type F64,
    /// F32, F16 and BF16 become float32. Their names may have the prefix `transformer.`.
    ///
    /// # Errors
    /// Names the file that cannot be read, the key with an unsupported value, or the tensor that is missing, unknown, or
    /// of the wrong shape or type.
    pub fn load(folder: &Path, device: &Device) -> Result<(Gpt2Config, Self), TrainError> {
        let config = Gpt2Config::load(folder)?;
        let path = folder.join(WEIGHTS_FILE);
        let file = MappedFile::open(&path)?;
        let model = Self::from_safetensors(file.bytes(), file.origin(), &config, device)?;
        Ok((config, model))
    }

    fn from_safetensors(bytes: &[u8], origin: &str, config: &Gpt2Config, device: &Device) -> Result<Self, TrainError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| ModelError::Weights { origin: origin.to_string(), problem: error.to_string() })?;
        // The head shares the embedding's weight, and the causal masks follow from the sizes.
        let ignored = |name: &str| {
            name == "lm_head.weight" || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
        };
        let names: Vec<&str> = file.names().into_iter().filter(|name| !ignored(name)).collect();
        let prefix = if names.iter().any(|name| name.starts_with("transformer.")) { "transformer." } else { "" };
        let mut reader = Reader { file: &file, origin, prefix, device, used: Vec::new() };
        let width = config.n_embd;
        let inner = config.inner();
        let epsilon = config.layer_norm_epsilon;
        let mut blocks = Vec::with_capacity(config.n_layer);
        for index in 0..config.n_layer {
            blocks.push(Block {
                norm1: reader.norm(&format!("h.{index}.ln_1"), width, epsilon)?,
                qkv: reader.linear(&format!("h.{index}.attn.c_attn"), width, 3 * width)?,
                out: reader.linear(&format!("h.{index}.attn.c_proj"), width, width)?,
                norm2: reader.norm(&format!("h.{index}.ln_2"), width, epsilon)?,
                up: reader.linear(&format!("h.{index}.mlp.c_fc"), width, inner)?,
                down: reader.linear(&format!("h.{index}.mlp.c_proj"), inner, width)?,
                n_heads: config.n_head,
            });
        }
        let model = Self {
            tokens: reader.embedding("wte", config.vocab_size, width)?,
            positions: reader.embedding("wpe", config.n_positions, width)?,
            blocks,
            norm: reader.norm("ln_f", width, epsilon)?,
        };
        let mut unknown: Vec<&str> =
            names.into_iter().filter(|name| !reader.used.iter().any(|used| used == name)).collect();
        unknown.sort_unstable();
        if let Some(first) = unknown.first() {
            let (origin, first) = (origin.to_string(), (*first).to_string());
            return Err(ModelError::UnknownTensor { origin, count: unknown.len(), first }.into());
        }
        Ok(model)
    }
}

// Reads tensors of a file by name and records the names it has read.
struct Reader<'a> {
    file: &'a SafeTensors<'a>,
    origin: &'a str,
    prefix: &'static str,
    device: &'a Device,
    used: Vec<String>,
}

impl Reader<'_> {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Param<Tensor<D>>, TrainError> {
        let name = format!("{}{name}", self.prefix);
        let Ok(view) = self.file.tensor(&name) else {
            let problem = format!("lacks the tensor {name}; does config.json belong to it?");
            return Err(TrainError::judge(self.origin, problem));
        };
        if view.shape() != shape {
            let (origin, expected, found) = (self.origin.to_string(), shape.to_vec(), view.shape().to_vec());
            return Err(ModelError::Shape { origin, name, expected, found }.into());
        }
        let values = StoredTensor::from(view).floats(self.origin, &name)?;
        self.used.push(name);
        Ok(Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device)))
    }

    // Conv1D stores [in, out], as Burn does.
    fn linear(&mut self, name: &str, n_in: usize, n_out: usize) -> Result<Linear, TrainError> {
        let mut layer = LinearConfig::new(n_in, n_out).init(self.device);
        layer.weight = self.tensor(&format!("{name}.weight"), [n_in, n_out])?;
        layer.bias = Some(self.tensor(&format!("{name}.bias"), [n_out])?);
        Ok(layer)
    }

    fn norm(&mut self, name: &str, width: usize, epsilon: f64) -> Result<LayerNorm, TrainError> {
        let mut norm = LayerNormConfig::new(width).with_epsilon(epsilon).init(self.device);
        norm.gamma = self.tensor(&format!("{name}.weight"), [width])?;
        norm.beta = Some(self.tensor(&format!("{name}.bias"), [width])?);
        Ok(norm)
    }

    fn embedding(&mut self, name: &str, n: usize, width: usize) -> Result<Embedding, TrainError> {
        let mut embedding = EmbeddingConfig::new(n, width).init(self.device);
        embedding.weight = self.tensor(&format!("{name}.weight"), [n, width])?;
        Ok(embedding)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::tensor::Int;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

    fn config() -> Gpt2Config {
        let (vocab_size, n_positions, n_embd, n_layer, n_head) = (11, 7, 6, 1, 3);
        Gpt2Config { vocab_size, n_positions, n_embd, n_layer, n_head, n_inner: Some(5), ..Gpt2Config::default() }
    }

    fn tensors(prefix: &str) -> Tensors {
        let shapes: [(&str, &[usize]); 16] = [
            ("wte.weight", &[11, 6]),
            ("wpe.weight", &[7, 6]),
            ("h.0.ln_1.weight", &[6]),
            ("h.0.ln_1.bias", &[6]),
            ("h.0.attn.c_attn.weight", &[6, 18]),
            ("h.0.attn.c_attn.bias", &[18]),
            ("h.0.attn.c_proj.weight", &[6, 6]),
            ("h.0.attn.c_proj.bias", &[6]),
            ("h.0.ln_2.weight", &[6]),
            ("h.0.ln_2.bias", &[6]),
            ("h.0.mlp.c_fc.weight", &[6, 5]),
            ("h.0.mlp.c_fc.bias", &[5]),
            ("h.0.mlp.c_proj.weight", &[5, 6]),
            ("h.0.mlp.c_proj.bias", &[6]),
            ("ln_f.weight", &[6]),
            ("ln_f.bias", &[6]),
        ];
        let filled = |(index, (name, shape)): (usize, (&str, &[usize]))| {
            let n: usize = shape.iter().product();
            // Multiples of 1/8 are exact in every stored type.
            let value = |i: usize| ((i * 7 + index * 3) % 17) as f32 / 8.0 - 1.0;
            let bytes = (0..n).flat_map(|i| value(i).to_le_bytes()).collect();
            (format!("{prefix}{name}"), (Dtype::F32, shape.to_vec(), bytes))
        };
        shapes.into_iter().enumerate().map(filled).collect()
    }

    fn load(tensors: &Tensors) -> Result<Gpt2, TrainError> {
        let views: Vec<(&String, TensorView)> = tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
            .collect();
        let bytes = safetensors::serialize(views, None).unwrap();
        Gpt2::from_safetensors(&bytes, "m.safetensors", &config(), &Device::flex())
    }

    fn rows() -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(vec![3_i32, 1, 4, 1, 5, 9, 2, 10, 0, 8, 8, 0, 6, 7], [2, 7]), &Device::flex())
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn names_with_a_prefix_and_16_bit_types_give_the_same_model() {
        let expected = values(load(&tensors("")).unwrap().forward(rows()));
        assert!(expected.iter().all(|value| value.is_finite()));
        let mut prefixed = tensors("transformer.");
        prefixed.insert("transformer.h.0.attn.bias".into(), (Dtype::U8, vec![1, 1, 2, 2], vec![1, 0, 1, 1]));
        prefixed.insert("transformer.h.0.attn.masked_bias".into(), (Dtype::F32, vec![1], vec![0; 4]));
        prefixed.insert("lm_head.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
        assert_eq!(values(load(&prefixed).unwrap().forward(rows())), expected);
        for half in [Dtype::F16, Dtype::BF16] {
            let mut stored = tensors("transformer.");
            for (dtype, _, bytes) in stored.values_mut() {
                let floats = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                *bytes = match half {
                    Dtype::F16 => floats.flat_map(|f| burn::tensor::f16::from_f32(f).to_le_bytes()).collect(),
                    _ => floats.flat_map(|f| burn::tensor::bf16::from_f32(f).to_le_bytes()).collect(),
                };
                *dtype = half;
            }
            assert_eq!(values(load(&stored).unwrap().forward(rows())), expected);
        }
    }

    #[test]
    fn the_nll_is_that_of_the_logits_and_later_tokens_do_not_change_earlier_ones() {
        let model = load(&tensors("")).unwrap();
        let log_probabilities = burn::tensor::activation::log_softmax(model.forward(rows()), 2).narrow(1, 0, 6);
        let targets = rows().narrow(1, 1, 6).unsqueeze_dim::<3>(2);
        let expected = values(-log_probabilities.gather(2, targets));
        let found = values(model.negative_log_likelihood(rows()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
        }
        let shorter = values(model.negative_log_likelihood(rows().narrow(1, 0, 4)));
        for (row, index) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            assert!((shorter[row * 3 + index] - found[row * 6 + index]).abs() < 1e-5);
        }
    }

    #[test]
    fn features_are_the_hidden_state_at_the_given_position() {
        let model = load(&tensors("")).unwrap();
        let positions = Tensor::from_data(TensorData::new(vec![6_i32, 2], [2]), &Device::flex());
        let features = model.features(rows(), positions);
        let logits = values(model.logits(features));
        let all = values(model.forward(rows()));
        for (found, expected) in logits.iter().zip(all[6 * 11..7 * 11].iter().chain(&all[9 * 11..10 * 11])) {
            assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
        }
    }

    #[test]
    fn errors_name_the_tensor_and_the_problem() {
        let message = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors = tensors("");
            change(&mut tensors);
            load(&tensors).unwrap_err().to_string()
        };
        let missing = message(&|tensors| drop(tensors.remove("ln_f.bias")));
        assert!(missing.contains("m.safetensors: lacks") && missing.contains("ln_f.bias"), "{missing}");
        let shape = message(&|tensors| tensors.get_mut("h.0.mlp.c_fc.weight").unwrap().1 = vec![5, 6]);
        assert!(shape.contains("h.0.mlp.c_fc.weight has shape [5, 6]") && shape.contains("[6, 5]"), "{shape}");
        let unknown = message(&|tensors| {
            tensors.insert("h.1.ln_1.bias".into(), (Dtype::F32, vec![6], vec![0; 24]));
        });
        assert!(unknown.contains("h.1.ln_1.bias"), "{unknown}");
        let dtype = message(&|tensors| {
            tensors.insert("ln_f.bias".into(), (Dtype::I32, vec![6], vec![0; 24]));
        });
        assert!(dtype.contains("ln_f.bias is stored as I32"), "{dtype}");
    }
}
