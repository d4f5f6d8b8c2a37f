//! The averaged weights of a checkpoint, and weights that change their parameters' ids.

use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;
use pgm_model::model_folder;

use crate::TrainError;
use crate::run::train_model::TrainModel;

/// Where the averaged weights of a checkpoint are.
#[derive(Clone, Debug)]
pub(crate) enum StoredAverage {
    /// A record, in a checkpoint of an earlier version.
    Record(ModuleRecord),
    /// The weights of this model folder.
    Folder(PathBuf),
}

impl StoredAverage {
    /// `model` with the averaged weights. Its parameters keep their ids.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the model folder cannot be read.
    pub(crate) fn apply(self, model: TrainModel) -> Result<TrainModel, TrainError> {
        match self {
            Self::Record(record) => Ok(model.load_record(record)),
            Self::Folder(folder) => {
                let device = model.devices().into_iter().next().unwrap_or_default();
                let (_, network) = model_folder::load(&folder, &device)?;
                let mut model = model;
                model.network = with_values(model.network, &network);
                Ok(model)
            }
        }
    }
}

/// `module` with the weights of another of the same structure; the parameters keep their ids.
fn with_values<M: Module>(module: M, values: &M) -> M {
    struct Collect(TensorContainer<usize>, usize);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(self.1, param.val());
            self.1 += 1;
        }
    }
    struct Replace(TensorContainer<usize>, usize);
    impl ModuleMapper for Replace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value: Tensor<D> = self.0.get(&self.1).expect("both have the same parameters");
            self.1 += 1;
            param.map(|_| value)
        }
    }
    let mut collect = Collect(TensorContainer::new(), 0);
    values.visit(&mut collect);
    module.map(&mut Replace(collect.0, 0))
}

/// The ids of a module's parameters, in their order.
pub(super) fn parameter_ids(module: &impl Module) -> Vec<u64> {
    struct Ids(Vec<u64>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id.val());
        }
    }
    let mut ids = Ids(Vec::new());
    module.visit(&mut ids);
    ids.0
}

/// `module` with other ids for its parameters; `None` when there are not as many.
pub(super) fn with_parameter_ids<M: Module>(module: M, ids: &[u64]) -> Option<M> {
    struct Rename<'a>(std::slice::Iter<'a, u64>);
    impl ModuleMapper for Rename<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.0.next() {
                Some(id) => Param::initialized(ParamId::from(*id), param.val()),
                None => param,
            }
        }
    }
    if parameter_ids(&module).len() != ids.len() {
        return None;
    }
    Some(module.map(&mut Rename(ids.iter())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[test]
    fn weights_and_ids_can_be_exchanged_apart() {
        let layer = || -> Linear { LinearConfig::new(3, 2).init(&Device::flex()) };
        let (first, second) = (layer(), layer());
        let mixed = with_values(first.clone(), &second);
        assert_eq!(parameter_ids(&mixed), parameter_ids(&first));
        mixed.weight.val().into_data().assert_eq(&second.weight.val().into_data(), true);
        let renamed = with_parameter_ids(second.clone(), &parameter_ids(&first)).unwrap();
        assert_eq!(parameter_ids(&renamed), parameter_ids(&first));
        renamed.weight.val().into_data().assert_eq(&second.weight.val().into_data(), true);
        assert!(with_parameter_ids(second, &[1]).is_none());
    }
}
