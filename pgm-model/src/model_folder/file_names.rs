//! Names of the files of a model folder, and of the folders of a training run.

/// Name of the configuration in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the tokenizer in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the tokenizer's settings in a model folder: the names of its special tokens, and a chat template.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// Name of the sampling defaults in a model folder.
pub const GENERATION_FILE: &str = "generation_config.json";
/// Name of the record of its training in a model folder: the step, the settings, the data.
pub const TRAINING_FILE: &str = "training.json";

/// Name of the model folder of a finished run.
pub const MODEL_FOLDER: &str = "model";
/// Name of the folder of a run's checkpoints.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
/// What the name of a checkpoint begins with; its step follows.
pub const STEP_PREFIX: &str = "step-";
/// What the name of the best model begins with; its step follows.
pub const BEST_PREFIX: &str = "best-";
/// What the name of a round of a distillation begins with; its number follows.
pub const ROUND_PREFIX: &str = "round-";
