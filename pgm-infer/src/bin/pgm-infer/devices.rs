//! `--device` and `--model`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use burn::tensor::Device;
use pgm_infer::device::DeviceName;

/// The device of `--device` and its name.
pub fn open_device(name: &DeviceName) -> anyhow::Result<(Device, String)> {
    name.open().map_err(|message| anyhow!(message))
}

/// The best device that is there, for a command without `--device`.
pub fn any_device() -> anyhow::Result<Device> {
    let name = "auto".parse().map_err(|message: String| anyhow!(message))?;
    Ok(open_device(&name)?.0)
}

/// The folder of `--model`: `demo` and `demo-digits` are bundled models, unless something has that name.
pub fn model_path(text: &str) -> Result<PathBuf, String> {
    #[cfg(feature = "demo")]
    let path = pgm_infer::demo::resolve(Path::new(text)).map_err(|error| error.to_string())?;
    #[cfg(not(feature = "demo"))]
    let path = PathBuf::from(text);
    let known = if cfg!(feature = "demo") { ", or a bundled model: demo or demo-digits" } else { "" };
    let is_there = path.exists() || text.rsplit_once('@').is_some_and(|(run, _)| Path::new(run).exists());
    if !is_there {
        return Err(format!("{text} is not there; name a model folder, a training run (RUN or RUN@best){known}"));
    }
    Ok(path)
}
