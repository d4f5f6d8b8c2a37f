//! Writes the PTX of the attention kernels for tensor cores, for `emulate.py`: `pgm-ptx FOLDER`.

use std::ffi::CStr;
use std::path::Path;
use std::sync::Arc;

use cubecl::prelude::*;
use cubecl::tf32;
use cubecl_core::Compiler;
use cubecl_core::ir::features::Features;
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::ir::types::MatrixLayout;
use cubecl_core::ir::{
    AddressType, ContiguousElements, DeviceIdentity, HardwareProperties, MemoryDeviceProperties, MmaProperties,
};
use cubecl_core::profile::TimingMethod;
use cubecl_cpp::cuda::mma::manual::contiguous_elements_cuda;
use cubecl_llvm::nvptx::ptx_version::PtxVersion;
use cubecl_llvm::{LlvmTarget, PlironArtifact, PlironCompiler, PlironOptions};
use cubecl_runtime::kernel::CubeKernel;
use half::{bf16, f16};

#[allow(dead_code)] // part of it is for the scalar kernels
#[path = "../../../src/ops/attention/cube/layout.rs"]
mod layout;
#[allow(dead_code)] // part of it is for the launching side
#[path = "../../../src/ops/attention/cube/tensor_cores/mod.rs"]
mod tensor_cores;

use layout::Layout;
use tensor_cores::{UNITS, forward, key_grads, query_grads};

// The properties of a Hopper GPU that the compiler reads.
fn device() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 32,
        max_shared_memory_size: 232_448,
        max_cube_count: (u32::MAX, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity = DeviceIdentity { name: "none".into(), fingerprint: "none".into(), physical: None };
    let memory = MemoryDeviceProperties::new(u64::MAX, 512);
    Arc::new(DeviceProperties::new(Features::default(), memory, hardware, TimingMethod::Device, identity))
}

fn target() -> Arc<TargetProperties> {
    let mma = MmaProperties {
        register_size_bits: 32,
        const_plane_size: 32,
        register_layout_a: MatrixLayout::RowMajor,
        register_layout_b: MatrixLayout::ColMajor,
        register_layout_acc: MatrixLayout::RowMajor,
        register_duplication_a: 1,
        register_duplication_b: 1,
        register_duplication_acc: 1,
        contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
    };
    Arc::new(TargetProperties { mma })
}

fn write(folder: &Path, name: &str, kernel: impl CubeKernel) {
    let options = PlironOptions {
        sm_arch: Some(SmArch::new(90, true)),
        ptx_version: PtxVersion::for_driver(12_080),
        ..Default::default()
    };
    let compiled = PlironCompiler { target: LlvmTarget::Nvptx }.compile(kernel.define(), &options);
    let PlironArtifact::NvptxCode(module) = compiled.expect("the kernel compiles") else {
        unreachable!("the target is PTX");
    };
    // SAFETY: the compiler ends its text with a zero.
    let text = unsafe { CStr::from_ptr(module.ptx.as_ptr()) };
    std::fs::write(folder.join(format!("{name}.ptx")), text.to_bytes()).expect("the folder can be written");
    println!("{name}: {} bytes of shared memory", module.shared_memory_size);
}

fn main() {
    let folder = std::env::args().nth(1).expect("usage: pgm-ptx FOLDER");
    let folder = Path::new(&folder);
    let settings = || KernelSettings::new(*CubeDim::new_1d(UNITS), ExecutionMode::Checked, AddressType::U32);
    let buffer = || BufferCompilationArg { inplace: None };
    macro_rules! kernels {
        ($name:literal, $number:ty, $width:literal, $layout:expr) => {{
            let layout: Layout = $layout;
            let [a, b, c, d, e, f, g, h] = std::array::from_fn(|_| buffer());
            let forward = forward::Forward::<$number>::new(
                settings(),
                device(),
                target(),
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                (),
                (),
                (),
                layout,
                $width,
            );
            write(folder, concat!("forward_", $name), forward);
            let [a, b, c, d, e, f, g, h, i] = std::array::from_fn(|_| buffer());
            let queries = query_grads::QueryGrads::<$number>::new(
                settings(),
                device(),
                target(),
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                i,
                (),
                (),
                (),
                layout,
                $width,
            );
            write(folder, concat!("query_grads_", $name), queries);
            let [a, b, c, d, e, f, g, h, i] = std::array::from_fn(|_| buffer());
            let keys = key_grads::KeyGrads::<$number>::new(
                settings(),
                device(),
                target(),
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                i,
                (),
                (),
                (),
                layout,
                $width,
            );
            write(folder, concat!("key_grads_", $name), keys);
        }};
    }
    // Two heads of width d, as `emulate.py` has them.
    let own = |d: usize, shared: bool| Layout {
        head_width: d,
        rows: [6 * d; 3],
        firsts: [0, 2 * d, 4 * d],
        causal: false,
        shared_angles: [shared; 2],
        labelled: true,
        ordered: false,
    };
    let causal = |d: usize| Layout { causal: true, labelled: false, ..own(d, false) };
    let cross = |d: usize| Layout {
        rows: [2 * d, 4 * d, 4 * d],
        firsts: [0, 0, 2 * d],
        shared_angles: [true, false],
        ..own(d, true)
    };
    kernels!("groups_bf16", bf16, 2, own(64, true));
    kernels!("all_bf16", bf16, 2, Layout { labelled: false, ..own(64, true) });
    kernels!("cross_bf16", bf16, 2, cross(64));
    kernels!("causal_f16", f16, 2, causal(32));
    kernels!("groups_tf32", tf32, 1, own(64, true));
    kernels!("groups48_tf32", tf32, 1, own(48, true));
    kernels!("cross_tf32", tf32, 1, cross(16));
    kernels!("causal_tf32", tf32, 1, causal(32));
}
