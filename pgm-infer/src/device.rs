//! `--device`: the backend to run on, out of those that are compiled in and have a device on this machine.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
#[cfg(feature = "cli")]
use pgm_model::WeightDtype;

use crate::parallel::n_threads;

/// `--dtype` and `--quantize`: the dtype of a loaded model's weights.
#[cfg(feature = "cli")]
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct WeightArgs {
    /// Dtype of the weights; half precision if the device has it [default: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Quantise the weights: less memory, some loss
    #[arg(long, value_enum, conflicts_with = "dtype")]
    quantize: Option<Quantize>,
}

/// Dtypes without quantisation.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Dtype {
    /// float32
    F32,
    /// Half precision with 11 bits of precision
    F16,
    /// Half precision with the range of float32
    Bf16,
}

#[cfg(feature = "cli")]
impl Dtype {
    /// The dtype as the model knows it.
    pub fn weights(self) -> WeightDtype {
        match self {
            Self::F32 => WeightDtype::F32,
            Self::F16 => WeightDtype::F16,
            Self::Bf16 => WeightDtype::BF16,
        }
    }
}

#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Quantize {
    /// 8 bits
    Q8,
    /// 4 bits
    Q4,
}

#[cfg(feature = "cli")]
impl WeightArgs {
    /// The dtype that the flags choose.
    pub fn weights(&self) -> WeightDtype {
        match (self.dtype, self.quantize) {
            (_, Some(Quantize::Q8)) => WeightDtype::Q8,
            (_, Some(Quantize::Q4)) => WeightDtype::Q4,
            (dtype, None) => dtype.map_or(WeightDtype::F32, Dtype::weights),
        }
    }
}

/// A value of `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    backend: Option<Backend>,
    index: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Cuda,
    Metal,
    Vulkan,
    Wgpu,
    Flex,
    NdArray,
}

// Best first: the order in which `auto` tries them.
const ALL: [(Backend, &str); 6] = [
    (Backend::Cuda, "cuda"),
    (Backend::Metal, "metal"),
    (Backend::Vulkan, "vulkan"),
    (Backend::Wgpu, "wgpu"),
    (Backend::Flex, "flex"),
    (Backend::NdArray, "ndarray"),
];

impl Backend {
    fn name(self) -> &'static str {
        ALL.iter().find(|(backend, _)| *backend == self).map_or("", |(_, name)| name)
    }

    fn is_compiled(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(any(feature = "wgpu", feature = "software-gpu")),
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
        }
    }

    /// The devices on this machine. A driver that panics when it is asked counts as absent.
    fn devices(self) -> Vec<Device> {
        #[allow(unused_imports)]
        use burn::tensor::DeviceType;
        let list = || -> Vec<Device> {
            match self {
                #[cfg(feature = "cuda")]
                Self::Cuda if has_cuda_toolkit() => Device::enumerate(DeviceType::Cuda).into_vec(),
                #[cfg(feature = "metal")]
                Self::Metal => Device::enumerate(DeviceType::Metal).into_vec(),
                #[cfg(feature = "vulkan")]
                Self::Vulkan => Device::enumerate(DeviceType::Vulkan).into_vec(),
                #[cfg(any(feature = "wgpu", feature = "software-gpu"))]
                Self::Wgpu => Device::enumerate(DeviceType::Wgpu).into_vec(),
                #[cfg(feature = "flex")]
                Self::Flex => vec![Device::flex()],
                #[cfg(feature = "ndarray")]
                Self::NdArray => vec![Device::ndarray()],
                #[allow(unreachable_patterns)]
                _ => Vec::new(),
            }
        };
        // The process has one panic hook. With two threads here, the silent hook could be the one that is put back.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let devices = std::panic::catch_unwind(list).unwrap_or_default();
        std::panic::set_hook(hook);
        devices
    }
}

/// Whether the CUDA toolkit is installed where CubeCL looks for it. A driver alone does not compile kernels with exponentials.
#[cfg(feature = "cuda")]
fn has_cuda_toolkit() -> bool {
    let roots = match std::env::var("CUDA_PATH") {
        Ok(path) => vec![path],
        Err(_) => ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"].map(String::from).to_vec(),
    };
    roots.iter().any(|root| std::path::Path::new(root).join("nvvm/libdevice/libdevice.10.bc").is_file())
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((first, _)) = text.split_once(',') {
            return Err(format!(
                "{text:?} names several devices, which only pgm-infer serve uses; choose one, for example {first}"
            ));
        }
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => {
                let index = index
                    .parse()
                    .map_err(|_| format!("{index:?} is not a device number; write {name}:0, for example"))?;
                (name, Some(index))
            }
            None => (text, None),
        };
        if name == "auto" && index.is_none() {
            return Ok(Self { backend: None, index });
        }
        match ALL.iter().find(|(_, known)| *known == name) {
            Some((backend, _)) => Ok(Self { backend: Some(*backend), index }),
            None => {
                Err(format!("{name:?} is not a device; choose one of auto, {}", ALL.map(|(_, name)| name).join(", ")))
            }
        }
    }
}

impl DeviceName {
    /// The device of one of `n_processes` on this machine, which are numbered from 0: without a number in the name each takes
    /// the GPU of its own number. Flex and NdArray have one device, which all share.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there are more processes than GPUs.
    pub fn open_for(&self, process: usize, n_processes: usize) -> Result<(Device, String), String> {
        if self.index.is_some() || n_processes <= 1 {
            return self.open();
        }
        let of_backend =
            |backend: Backend| Some((backend, backend.devices())).filter(|(_, devices)| !devices.is_empty());
        let found = match self.backend {
            Some(backend) => of_backend(backend),
            None => ALL.iter().find_map(|(backend, _)| of_backend(*backend)),
        };
        let Some((backend, devices)) = found else { return self.open() };
        if matches!(backend, Backend::Flex | Backend::NdArray) {
            return Self { backend: Some(backend), index: None }.open();
        }
        if devices.len() < n_processes {
            return Err(format!(
                "{n_processes} processes run on this machine, but {0} has {1} here; start as many processes, or name the device that \
                 they share: {0}:0",
                backend.name(),
                if devices.len() == 1 { "one device".to_string() } else { format!("{} devices", devices.len()) }
            ));
        }
        Self { backend: Some(backend), index: Some(process) }.open()
    }

    /// The device and its name.
    ///
    /// # Errors
    /// When the device is not compiled in or not present; the message lists the devices that are.
    pub fn open(&self) -> Result<(Device, String), String> {
        let first = self.index.unwrap_or(0);
        let found = match self.backend {
            None => {
                ALL.iter().find_map(|(backend, name)| Some((backend.devices().into_iter().next()?, name.to_string())))
            }
            Some(backend) => {
                let name =
                    format!("{}{}", backend.name(), self.index.map_or(String::new(), |index| format!(":{index}")));
                backend.devices().into_iter().nth(first).map(|device| (device, name))
            }
        };
        found.ok_or_else(|| {
            let present: Vec<String> = ALL
                .iter()
                .flat_map(|(backend, name)| match backend.devices().len() {
                    0 => Vec::new(),
                    1 => vec![(*name).to_string()],
                    n => (0..n).map(|index| format!("{name}:{index}")).collect(),
                })
                .collect();
            let present = if present.is_empty() { "none".to_string() } else { present.join(", ") };
            match self.backend {
                Some(backend) if !backend.is_compiled() => format!(
                    "--device {0} is not compiled in (build with --features {0}); present: {present}",
                    backend.name()
                ),
                #[cfg(feature = "cuda")]
                Some(Backend::Cuda) if !has_cuda_toolkit() => format!(
                    "--device cuda needs an NVIDIA driver and the CUDA toolkit, but there is no nvvm/libdevice/libdevice.10.bc; \
                     install the toolkit or set CUDA_PATH to its folder; present: {present}"
                ),
                Some(backend) => format!(
                    "--device {} {first} is compiled in, but this machine has no such device or driver; present: {present}",
                    backend.name()
                ),
                None => "no backend is compiled in; build with --features flex, wgpu or cuda".to_string(),
            }
        })
    }
}

/// A value of `--device` where several devices may share the work: names with commas between them. A device that stands
/// there twice is used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceList(Vec<DeviceName>);

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > 1 && parts.contains(&"") {
            return Err(format!("{text:?} lacks a device beside a comma; write cuda:0,cuda:1, for example"));
        }
        let devices = parts.iter().map(|part| part.parse()).collect::<Result<Vec<DeviceName>, _>>()?;
        let (first, others) = devices.split_first().ok_or("no device is named")?;
        if !others.is_empty() && devices.iter().any(|device| device.backend.is_none()) {
            return Err(format!("{text:?}: auto chooses one device by itself; a list names each, as in cuda:0,cuda:1"));
        }
        if let Some(other) = others.iter().find(|other| other.backend != first.backend) {
            let name = |device: &DeviceName| device.backend.map_or("auto", Backend::name);
            let (first, other) = (name(first), name(other));
            return Err(format!(
                "{text:?}: the devices of a list are of one kind, so that a seed gives the same tokens on each; {first} \
                 and {other} round differently"
            ));
        }
        Ok(Self(devices))
    }
}

impl DeviceList {
    /// The devices and their names.
    ///
    /// # Errors
    /// As [`DeviceName::open`].
    pub fn open(&self) -> Result<Vec<(Device, String)>, String> {
        self.0.iter().map(DeviceName::open).collect()
    }

    /// Threads of the CPU for each device, where several devices are the CPU: an equal share of those that the process has.
    pub fn threads_each(&self) -> Option<usize> {
        let n = self.0.len();
        let is_cpu = self.0.iter().all(|device| matches!(device.backend, Some(Backend::Flex | Backend::NdArray)));
        (n > 1 && is_cpu).then(|| (n_threads() / n).max(1))
    }
}

/// Makes the CPU the default device of Burn, if Flex is compiled in: sets the environment variable `BURN_DEVICE`.
///
/// Restoring an optimiser loads each tensor on the default device first. Without this call that is the best *compiled*
/// backend, whether or not the machine has such a device.
///
/// # Safety
/// No other thread may read or write the environment meanwhile: call it first thing in `main`.
#[allow(unsafe_code)]
pub unsafe fn restore_through_the_cpu() {
    if cfg!(feature = "flex") {
        // SAFETY: the caller keeps what `# Safety` asks for.
        unsafe { std::env::set_var("BURN_DEVICE", "flex") };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_an_absent_device_is_an_error_that_lists_the_present_ones() {
        assert!("auto".parse::<DeviceName>().unwrap().open().is_ok());
        assert!("flex".parse::<DeviceName>().unwrap().open().is_ok());
        for (text, says) in [("tpu", "one of auto"), ("wgpu:x", "not a device number"), ("auto:1", "one of auto")] {
            let message = text.parse::<DeviceName>().unwrap_err();
            assert!(message.contains(says), "{message}");
        }
        let message = "flex,flex".parse::<DeviceName>().unwrap_err();
        assert!(message.contains("choose one, for example flex"), "{message}");
        let message = "flex:3".parse::<DeviceName>().unwrap().open().unwrap_err();
        assert!(message.contains("present: ") && message.ends_with("flex"), "{message}");
        if !cfg!(feature = "cuda") {
            let message = "cuda".parse::<DeviceName>().unwrap().open().unwrap_err();
            assert!(message.contains("--features cuda") && message.ends_with("flex"), "{message}");
        }
    }

    #[test]
    fn a_list_names_devices_of_one_kind() {
        for text in ["flex", "auto", "flex,flex", "flex, flex,flex"] {
            let list: DeviceList = text.parse().unwrap();
            assert_eq!(list.open().unwrap().len(), text.split(',').count(), "{text}");
        }
        for (text, says) in [
            ("flex,", "lacks a device"),
            (",", "lacks a device"),
            ("", "is not a device"),
            ("flex,tpu", "one of auto"),
            ("auto,flex", "auto chooses one device"),
            ("cuda:0,flex", "cuda and flex round differently"),
            ("cuda:0,cuda:x", "not a device number"),
        ] {
            let message = text.parse::<DeviceList>().unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
        }
        let message = "flex,flex:3".parse::<DeviceList>().unwrap().open().unwrap_err();
        assert!(message.contains("present: flex"), "{message}");
        assert_eq!("flex".parse::<DeviceList>().unwrap().threads_each(), None);
        let each = "flex,flex".parse::<DeviceList>().unwrap().threads_each();
        assert_eq!(each, Some((n_threads() / 2).max(1)));
    }
}
