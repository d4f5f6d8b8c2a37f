//! Low-precision weights: half precision and quantisation of the matrices.
//!
//! Only matrices change. The residual stream, norms, activations, the softmax and the loss stay in float32. So a matmul in
//! half precision accumulates in float32, and its result is cast back. On devices whose tensor cores multiply in half
//! precision, attention multiplies in the dtype of the weights around it.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::quantization::{
    Calibration, QuantScheme, QuantStore, QuantValue, ScaleDtype, compute_q_params, compute_range,
};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::error::ModelError;
use crate::networks::Network;
use crate::ops::{BLOCK, is_flex};

/// The dtype that the matrices are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightDtype {
    /// float32, as trained.
    #[default]
    F32,
    /// Half precision: 11 bits of precision, values to 65504.
    F16,
    /// Half precision: 8 bits of precision, the range of float32.
    BF16,
    /// 8 bits, with a float32 scale for each 32 inputs of an output.
    Q8,
    /// 4 bits, with a float32 scale for each 32 inputs of an output.
    Q4,
}

impl WeightDtype {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

impl Network {
    /// The network with its matrices in that dtype. Half precision includes the embedding, quantisation does not. The lost
    /// precision cannot be restored: keep the original for training and saving.
    ///
    /// Only matrices whose number of inputs is a multiple of 32 are quantised. Devices that pack several numbers into a word
    /// need a number of outputs that is a multiple of 8, too.
    ///
    /// # Errors
    /// [`ModelError::Precision`] when the device lacks the dtype, or when no matrix can be quantised.
    pub fn with_weight_dtype(self, weights: WeightDtype) -> Result<Self, ModelError> {
        let half = |dtype: FloatDType| {
            let device = self.device();
            if device.supports_dtype(DType::from(dtype)) {
                Ok(dtype)
            } else {
                Err(ModelError::Precision(format!("this device has no {dtype:?}; use another --dtype or --device")))
            }
        };
        match weights {
            WeightDtype::F32 => Ok(self),
            WeightDtype::F16 => half(FloatDType::F16).map(|dtype| self.cast_matrices(dtype, true)),
            WeightDtype::BF16 => half(FloatDType::BF16).map(|dtype| self.cast_matrices(dtype, true)),
            WeightDtype::Q8 => self.quantised(QuantValue::Q8S),
            WeightDtype::Q4 => self.quantised(QuantValue::Q4S),
        }
    }

    /// The network with the weights of its matmuls cast to a half-precision dtype. The cast is part of the graph: gradients
    /// reach the float32 weights of the original.
    pub fn cast_matmul_weights(self, dtype: FloatDType) -> Self {
        self.cast_matrices(dtype, false)
    }

    fn cast_matrices(self, dtype: FloatDType, embedding: bool) -> Self {
        self.map(&mut Cast { modules: ModuleStack::default(), dtype, embedding })
    }

    fn quantised(self, value: QuantValue) -> Result<Self, ModelError> {
        let device = self.device();
        let mut quantise =
            Quantise { modules: ModuleStack::default(), value, packs: !is_flex(&device), n_quantised: 0 };
        let network = self.map(&mut quantise);
        if quantise.n_quantised == 0 {
            let problem =
                format!("no matrix has a multiple of {BLOCK} inputs; this model is too small to be quantised");
            return Err(ModelError::Precision(problem));
        }
        Ok(network)
    }

    fn device(&self) -> Device {
        self.devices().into_iter().next().unwrap_or_default()
    }
}

// The modules around the visited parameter, outermost first.
#[derive(Default)]
struct ModuleStack(Vec<&'static str>);

impl ModuleStack {
    fn enter(&mut self, container: &str) {
        self.0.push(match container {
            "Struct:Linear" => "linear",
            "Struct:Embedding" => "embedding",
            _ => "",
        });
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    // Whether the innermost module is of this kind.
    fn is(&self, container: &str) -> bool {
        self.0.last() == Some(&container)
    }
}

struct Cast {
    modules: ModuleStack,
    dtype: FloatDType,
    embedding: bool,
}

impl ModuleMapper for Cast {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.modules.enter(container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.modules.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D == 2 && (self.modules.is("linear") || self.embedding && self.modules.is("embedding")) {
            return param.map(|weight| weight.cast(self.dtype));
        }
        param
    }
}

struct Quantise {
    modules: ModuleStack,
    value: QuantValue,
    // Whether several numbers are packed into a word, as on GPUs.
    packs: bool,
    n_quantised: usize,
}

impl ModuleMapper for Quantise {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.modules.enter(container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.modules.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let fits = D == 2 && shape[0].is_multiple_of(BLOCK.into()) && (!self.packs || shape[1].is_multiple_of(8));
        if !(fits && self.modules.is("linear")) {
            return param;
        }
        self.n_quantised += 1;
        // A block is 32 inputs of one output: 32 rows of a column of [in, out].
        let scheme = QuantScheme::default().with_value(self.value).per_block([BLOCK, 1], ScaleDtype::F32);
        let scheme = if self.packs { scheme } else { scheme.with_store(QuantStore::Native) };
        param.map(|weight| {
            let range = compute_range(&scheme, &weight, &Calibration::MinMax);
            weight.quantize(&scheme, compute_q_params(&scheme, range))
        })
    }
}
