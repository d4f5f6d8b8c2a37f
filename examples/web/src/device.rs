//! The device that this program computes on: the processor, or the graphics card by WebGPU.

use burn::tensor::Device;

use crate::failure::Failure;

/// The processor.
#[cfg(not(feature = "webgpu"))]
pub async fn open_device() -> Result<Device, Failure> {
    Ok(Device::flex())
}

/// The graphics card.
///
/// # Errors
/// When the browser gives none.
#[cfg(feature = "webgpu")]
pub async fn open_device() -> Result<Device, Failure> {
    use std::cell::OnceCell;

    thread_local! {
        // A device that is open cannot be opened again.
        static OPEN: OnceCell<Device> = const { OnceCell::new() };
    }
    if let Some(device) = OPEN.with(|device| device.get().cloned()) {
        return Ok(device);
    }
    let device = Device::wgpu_options().init_async().await;
    let device = device.map_err(|error| Failure::plain(format!("the graphics card cannot be used: {error}")))?;
    Ok(OPEN.with(|open| open.get_or_init(|| device).clone()))
}
