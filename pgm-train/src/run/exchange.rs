//! What the ranks of a training exchange in a step: losses, tokens, the wish to stop, and gradients.

use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::optim::global_norm;
use crate::TrainError;
use crate::world::World;

/// A rank's part of a step.
pub(crate) struct OwnPart {
    /// Steps done with this one.
    pub(crate) step: usize,
    /// The loss of its micro-batches, `[1]`.
    pub(crate) loss: Tensor<1>,
    /// Tokens that count.
    pub(crate) tokens: usize,
    /// Whether it was asked to stop.
    pub(crate) stops: bool,
}

/// What all ranks know of a step.
pub(crate) struct WholeStep {
    /// The loss of all micro-batches, `[1]`.
    pub(crate) loss: Tensor<1>,
    /// Tokens that count.
    pub(crate) tokens: usize,
    /// Whether any rank was asked to stop: then all do.
    pub(crate) stops: bool,
    /// The first rank whose own loss or gradient is not finite, and which of them.
    pub(crate) not_finite: Option<(usize, &'static str)>,
}

/// What exchanges of gradients have cost since the last line of figures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExchangeCost {
    pub(crate) waited: Duration,
    /// Bytes that this rank sent.
    pub(crate) sent: u64,
    pub(crate) steps: usize,
}

impl ExchangeCost {
    /// Runs the exchange of a step and adds its cost.
    pub(crate) fn measure<T>(&mut self, world: &World, exchange: impl FnOnce() -> T) -> T {
        // What was exchanged for something else is not counted.
        world.take_cost();
        let found = exchange();
        let (waited, sent) = world.take_cost();
        (self.waited, self.sent, self.steps) = (self.waited + waited, self.sent + sent, self.steps + 1);
        found
    }
}

/// Replaces a rank's gradients by the sums over all ranks, added in their order. A parameter without a gradient on any rank
/// keeps none.
///
/// # Errors
/// [`TrainError::Device`] when the device fails; [`TrainError::Ranks`] when the ranks are at different steps.
pub(crate) fn exchange_step(
    world: &World,
    module: &impl Module,
    gradients: &mut GradientsParams,
    own: OwnPart,
) -> Result<WholeStep, TrainError> {
    let device = own.loss.device();
    let loss = own.loss.try_into_scalar::<f32>().map_err(|error| TrainError::Device(error.to_string()))?;
    let mut present = Present { gradients, found: Vec::new() };
    module.visit(&mut present);
    let present = present.found;
    // After the sum every rank's gradient would be as bad as the worst.
    let norm = present.contains(&true).then(|| global_norm(gradients, module).try_into_scalar::<f32>()).transpose();
    let norm = norm.map_err(|error| TrainError::Device(error.to_string()))?.unwrap_or(0.0);
    let (step, tokens, stops) = (own.step as u64, own.tokens as u64, own.stops);
    let own = Header { step, tokens, loss, stops, has_finite_gradient: norm.is_finite(), present };
    let what = format!("step {}", own.step);
    let all: Vec<Header> =
        world.all_gather_bytes(&what, &own.to_bytes()).iter().map(|bytes| Header::of(bytes)).collect();
    if let Some(rank) = all.iter().position(|other| other.step != all[0].step) {
        let (theirs, first) = (all[rank].step, all[0].step);
        return Err(TrainError::Ranks(format!(
            "rank {rank} is at step {theirs} and rank 0 at step {first}; resume the run"
        )));
    }
    let any = |index: usize| all.iter().any(|header| header.present[index]);
    let present: Vec<bool> = (0..own.present.len()).map(any).collect();
    let mut taken = Taken { gradients, present: &present, index: 0, flat: Vec::new() };
    module.visit(&mut taken);
    if !taken.flat.is_empty() {
        let sums = world.all_reduce_tensor(&what, Tensor::cat(taken.flat, 0))?;
        module.visit(&mut Put { gradients, present: &present, index: 0, sums, at: 0 });
    }
    // From the first to the last, as one process adds its micro-batches.
    let loss = all[1..].iter().fold(all[0].loss, |sum, header| sum + header.loss);
    Ok(WholeStep {
        loss: Tensor::from_data([loss], &device),
        tokens: all.iter().map(|header| header.tokens as usize).sum(),
        stops: all.iter().any(|header| header.stops),
        not_finite: all.iter().enumerate().find_map(|(rank, header)| Some((rank, header.not_finite()?))),
    })
}

/// A number of rank 0, `[1]`: what ranks compute alike can differ in the last bit, where a device adds in any order.
///
/// # Errors
/// [`TrainError::Device`] when the device fails.
pub(crate) fn number_of_first(world: &World, what: &str, number: Tensor<1>) -> Result<Tensor<1>, TrainError> {
    let device = number.device();
    let own = number.try_into_scalar::<f32>().map_err(|error| TrainError::Device(error.to_string()))?;
    let first = world.all_gather_bytes(what, &own.to_le_bytes()).swap_remove(0);
    let first = first.try_into().map_or(own, f32::from_le_bytes);
    Ok(Tensor::from_data([first], &device))
}

/// Refuses to go on where the ranks' weights have become different.
///
/// # Errors
/// [`TrainError::Ranks`] naming the first rank whose weights are not those of rank 0; [`TrainError::Device`] when the device
/// fails.
pub(crate) fn check_weights(world: &World, module: &impl Module, step: usize) -> Result<(), TrainError> {
    if world.is_alone() {
        return Ok(());
    }
    let all = world.all_gather_bytes(&format!("the checkpoint of step {step}"), &checksum(module)?.to_le_bytes());
    match all.iter().position(|other| *other != all[0]) {
        None => Ok(()),
        Some(rank) => Err(TrainError::Ranks(format!(
            "the weights of rank {rank} differ from those of rank 0 at step {step}, which is not saved; continue with --resume, \
             without that machine if it happens again"
        ))),
    }
}

// The CRC-32 of a module's weights, in their order.
fn checksum(module: &impl Module) -> Result<u32, TrainError> {
    struct Flat(Vec<Tensor<1>>);
    impl ModuleVisitor for Flat {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(flat(param.val()));
        }
    }
    let mut weights = Flat(Vec::new());
    module.visit(&mut weights);
    let data = Tensor::cat(weights.0, 0).try_into_data().map_err(|error| TrainError::Device(error.to_string()))?;
    Ok(crc32fast::hash(data.as_bytes()))
}

/// What a rank says before its gradients. Every rank has as many parameters, so every header is as long.
struct Header {
    step: u64,
    tokens: u64,
    loss: f32,
    stops: bool,
    has_finite_gradient: bool,
    /// Which parameters have a gradient.
    present: Vec<bool>,
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(22 + self.present.len());
        bytes.extend(self.step.to_le_bytes());
        bytes.extend(self.tokens.to_le_bytes());
        bytes.extend(self.loss.to_le_bytes());
        bytes.push(self.stops.into());
        bytes.push(self.has_finite_gradient.into());
        bytes.extend(self.present.iter().map(|&present| u8::from(present)));
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let eight = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Self {
            step: eight(0),
            tokens: eight(8),
            loss: f32::from_le_bytes(bytes[16..20].try_into().expect("four bytes")),
            stops: bytes[20] != 0,
            has_finite_gradient: bytes[21] != 0,
            present: bytes[22..].iter().map(|&byte| byte != 0).collect(),
        }
    }

    fn not_finite(&self) -> Option<&'static str> {
        match (self.loss.is_finite(), self.has_finite_gradient) {
            (false, _) => Some("loss"),
            (true, false) => Some("gradient"),
            (true, true) => None,
        }
    }
}

struct Present<'a> {
    gradients: &'a GradientsParams,
    found: Vec<bool>,
}

impl ModuleVisitor for Present<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(self.gradients.get::<D>(param.id).is_some());
    }
}

struct Taken<'a> {
    gradients: &'a mut GradientsParams,
    present: &'a [bool],
    index: usize,
    flat: Vec<Tensor<1>>,
}

impl ModuleVisitor for Taken<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.present[self.index] {
            let gradient = self.gradients.remove::<D>(param.id);
            self.flat.push(flat(
                gradient
                    .unwrap_or_else(|| Tensor::zeros(param.val().shape(), &param.val().device().without_autodiff())),
            ));
        }
        self.index += 1;
    }
}

struct Put<'a> {
    gradients: &'a mut GradientsParams,
    present: &'a [bool],
    index: usize,
    // Of all parameters, one after the other.
    sums: Tensor<1>,
    at: usize,
}

impl ModuleVisitor for Put<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.present[self.index] {
            let shape = param.val().shape();
            let n = shape.num_elements();
            self.gradients.register::<D>(param.id, self.sums.clone().narrow(0, self.at, n).reshape(shape));
            self.at += n;
        }
        self.index += 1;
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;
    use crate::world::threads::in_ranks;

    #[derive(Module, Debug)]
    struct Two {
        first: Linear,
        second: Linear,
    }

    fn two(device: &Device) -> Two {
        Two { first: LinearConfig::new(3, 2).init(device), second: LinearConfig::new(3, 2).init(device) }
    }

    #[test]
    fn gradients_are_summed_and_one_that_only_some_ranks_have_counts() {
        let found = in_ranks(3, |world| {
            let device = Device::flex().autodiff();
            let module = two(&device);
            let x = Tensor::<2>::full([1, 3], 1.0 + world.rank() as f32, &device);
            // Only rank 2 uses the second layer's weight; nobody its bias.
            let mut loss = module.first.forward(x.clone()).sum();
            if world.rank() == 2 {
                loss = loss + x.matmul(module.second.weight.val()).sum();
            }
            let own = loss.clone().inner() * 0.0 + (world.rank() as f32 + 0.5);
            let mut gradients = GradientsParams::from_grads(loss.backward(), &module);
            let own = OwnPart { step: 7, loss: own, tokens: 10 + world.rank(), stops: world.rank() == 1 };
            let whole = exchange_step(&world, &module, &mut gradients, own).unwrap();
            let weights = [&module.first.weight, &module.second.weight];
            let weights =
                weights.map(|weight| gradients.get::<2>(weight.id).unwrap().into_data().try_into_vec::<f32>().unwrap());
            let bias = module.second.bias.as_ref().unwrap().id;
            assert!(gradients.get::<1>(bias).is_none());
            (weights, whole.loss.into_scalar::<f32>(), whole.tokens, whole.stops, whole.not_finite)
        });
        let expected = ([vec![6.0; 6], vec![3.0; 6]], 4.5, 33, true, None);
        assert!(found.iter().all(|found| *found == expected), "{found:?}");
    }

    #[test]
    fn a_rank_whose_weights_differ_is_named_and_all_take_the_number_of_the_first() {
        let found = in_ranks(3, |world| {
            let device = Device::flex();
            let fill = |value: f32| {
                let mut module = two(&device);
                let parameter = |shape| Param::initialized(Default::default(), Tensor::full(shape, value, &device));
                (module.first.weight, module.second.weight) = (parameter([3, 2]), parameter([3, 2]));
                module.first.bias = None;
                module.second.bias = None;
                module
            };
            let same = check_weights(&world, &fill(1.0), 4).is_ok();
            let other = check_weights(&world, &fill(if world.rank() == 2 { 1.0 + 1e-7 } else { 1.0 }), 4);
            let norm = Tensor::from_data([1.0 + world.rank() as f32], &device);
            let norm = number_of_first(&world, "the norm", norm).unwrap().into_scalar::<f32>();
            (same, other.unwrap_err().to_string(), norm)
        });
        for (same, other, norm) in found {
            assert!(same && other.contains("the weights of rank 2 differ from those of rank 0 at step 4"), "{other}");
            assert_eq!(norm, 1.0);
        }
    }

    #[test]
    fn the_rank_whose_loss_or_gradient_is_not_finite_and_one_at_another_step_are_named() {
        let run = |losses: [f32; 3], slopes: [f32; 3], late: usize| {
            in_ranks(3, move |world| {
                let (device, rank) = (Device::flex().autodiff(), world.rank());
                let module = two(&device);
                let x = Tensor::<2>::full([1, 3], slopes[rank], &device);
                let mut gradients = GradientsParams::from_grads(module.first.forward(x).sum().backward(), &module);
                let loss = Tensor::from_data([losses[rank]], &Device::flex());
                let own = OwnPart { step: if rank == late { 4 } else { 5 }, loss, tokens: 1, stops: false };
                exchange_step(&world, &module, &mut gradients, own)
                    .map(|whole| whole.not_finite)
                    .map_err(|error| error.to_string())
            })
        };
        let (fine, nan) = ([1.0; 3], f32::NAN);
        for (losses, slopes, named) in [
            (fine, fine, None),
            ([1.0, nan, nan], fine, Some((1, "loss"))),
            (fine, [1.0, 1.0, f32::INFINITY], Some((2, "gradient"))),
            ([1.0, 1.0, nan], [1.0, nan, 1.0], Some((1, "gradient"))),
        ] {
            assert!(run(losses, slopes, 9).iter().all(|found| *found == Ok(named)), "{named:?}");
        }
        let late = run(fine, fine, 2);
        assert!(late.iter().all(|found| found.as_ref().is_err_and(|error| error.contains("rank 2 is at step 4"))));
    }
}
