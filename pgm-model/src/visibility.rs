//! Which keys a query sees. Labels are turned into a mask or sorted once, for all layers.
//!
//! A label may hold the place of a token's set in an order of sets: then a query sees the keys of its group that belong to
//! its own set or to an earlier one.

// B batch, S tokens, Q queries, C keys

use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Int, Tensor};

/// Sets of a group that labels can tell apart.
pub const MAX_SETS: usize = 1 << 16;

/// Labels of tokens in ordered sets: the group, then the place of the token's set in its group's order.
///
/// # Shapes
/// groups below 2^15 and places below [`MAX_SETS`], `[B, S] -> [B, S]`
pub fn set_labels(groups: Tensor<2, Int>, places: Tensor<2, Int>) -> Tensor<2, Int> {
    groups * MAX_SETS as i32 + places
}

/// Which keys a query sees.
///
/// Fused attention reads the labels; composed attention reads the mask `[B, Q, C]`. Either is computed once and kept for
/// all layers.
#[derive(Clone, Debug)]
pub struct Visibility {
    rule: Rule,
    mask: Arc<OnceLock<AttentionMask>>,
    // Whether the keys are the queries.
    #[cfg_attr(not(feature = "fused"), allow(dead_code))]
    within: bool,
    #[cfg(feature = "fused")]
    sorted: Arc<OnceLock<[Tensor<2, Int>; 2]>>,
}

#[derive(Clone, Debug)]
enum Rule {
    // A query sees the keys of its label: `[B, Q]` and `[B, C]`.
    SameLabel(Box<[Tensor<2, Int>; 2]>),
    // A query sees the keys of its group whose set is not later than its own.
    OrderedSets(Box<[Tensor<2, Int>; 2]>),
    // The queries are the last of the keys, and each sees itself and earlier tokens.
    Causal([usize; 2], Device),
}

impl Visibility {
    /// A token sees the tokens of its own label.
    ///
    /// # Shapes
    /// labels `[B, S]`
    pub fn within(labels: Tensor<2, Int>) -> Self {
        Self { within: true, ..Self::across(labels.clone(), labels) }
    }

    /// A query sees the keys of its own label. A label that no query has hides its keys.
    ///
    /// # Shapes
    /// queries `[B, Q]`, keys `[B, C]`
    pub fn across(queries: Tensor<2, Int>, keys: Tensor<2, Int>) -> Self {
        Self::new(Rule::SameLabel(Box::new([queries, keys])))
    }

    /// A token sees the tokens of its group that belong to its own set or to an earlier one.
    ///
    /// # Shapes
    /// labels of [`set_labels`], `[B, S]`
    pub fn within_sets(labels: Tensor<2, Int>) -> Self {
        Self { within: true, ..Self::across_sets(labels.clone(), labels) }
    }

    /// A query sees the keys of its group that belong to its own set or to an earlier one.
    ///
    /// # Shapes
    /// labels of [`set_labels`], queries `[B, Q]`, keys `[B, C]`
    pub fn across_sets(queries: Tensor<2, Int>, keys: Tensor<2, Int>) -> Self {
        Self::new(Rule::OrderedSets(Box::new([queries, keys])))
    }

    /// Each of the last `n_queries` of `n_keys` tokens sees itself and the tokens before it, in every row.
    pub fn causal(n_queries: usize, n_keys: usize, device: &Device) -> Self {
        Self::new(Rule::Causal([n_queries, n_keys], device.clone()))
    }

    fn new(rule: Rule) -> Self {
        Self {
            rule,
            mask: Arc::default(),
            within: false,
            #[cfg(feature = "fused")]
            sorted: Arc::default(),
        }
    }

    #[cfg_attr(not(feature = "fused"), allow(dead_code))]
    pub(crate) fn is_causal(&self) -> bool {
        matches!(self.rule, Rule::Causal(..))
    }

    #[cfg_attr(not(feature = "fused"), allow(dead_code))]
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self.rule, Rule::OrderedSets(_))
    }

    /// Labels of queries and keys, `[B, Q]` and `[B, C]`; all the same if there are none, as with causality.
    pub(crate) fn labels(
        visibility: Option<&Self>,
        [n_rows, n_queries, n_keys]: [usize; 3],
        device: &Device,
    ) -> [Tensor<2, Int>; 2] {
        match visibility {
            Some(Self { rule: Rule::SameLabel(labels), .. }) => labels.as_ref().clone(),
            _ => [n_queries, n_keys].map(|n| Tensor::zeros([n_rows, n], device)),
        }
    }

    /// The labels of queries and keys after `sort`, which runs once; nothing where there are no labels.
    #[cfg(feature = "fused")]
    pub(crate) fn sorted_labels(&self, sort: impl Fn(Tensor<2, Int>) -> Tensor<2, Int>) -> Option<[Tensor<2, Int>; 2]> {
        let (Rule::SameLabel(labels) | Rule::OrderedSets(labels)) = &self.rule else { return None };
        let sort_both = || {
            let [queries, keys] = labels.as_ref().clone();
            let queries = sort(queries);
            [queries.clone(), if self.within { queries } else { sort(keys) }]
        };
        Some(self.sorted.get_or_init(sort_both).clone())
    }

    /// The mask, which is computed once.
    pub(crate) fn mask(&self) -> &AttentionMask {
        self.mask.get_or_init(|| match &self.rule {
            Rule::SameLabel(labels) => {
                let [queries, keys] = labels.as_ref();
                let [n_rows, n_queries] = queries.dims();
                let shape = [n_rows, n_queries, keys.dims()[1]];
                let queries = queries.clone().unsqueeze_dim::<3>(2).expand(shape);
                AttentionMask::hiding(queries.not_equal(keys.clone().unsqueeze_dim::<3>(1).expand(shape)))
            }
            Rule::OrderedSets(labels) => {
                let [queries, keys] = labels.as_ref();
                let [n_rows, n_queries] = queries.dims();
                let shape = [n_rows, n_queries, keys.dims()[1]];
                let queries = queries.clone().unsqueeze_dim::<3>(2).expand(shape);
                let keys = keys.clone().unsqueeze_dim::<3>(1).expand(shape);
                let group = |labels: Tensor<3, Int>| labels / MAX_SETS as i32;
                let is_later = keys.clone().greater(queries.clone());
                AttentionMask::hiding(group(queries).not_equal(group(keys)).bool_or(is_later))
            }
            Rule::Causal([n_queries, n_keys], device) => {
                let (n_queries, n_keys) = (*n_queries, *n_keys);
                let key = Tensor::<1, Int>::arange(0..n_keys as i64, device).unsqueeze_dim::<2>(0);
                let first = (n_keys - n_queries) as i64;
                let query = Tensor::<1, Int>::arange(first..n_keys as i64, device).unsqueeze_dim::<2>(1);
                let shape = [n_queries, n_keys];
                AttentionMask::hiding(key.expand(shape).greater(query.expand(shape)).unsqueeze_dim(0))
            }
        })
    }
}

/// The mask of composed attention. Only this type knows the polarity: `true` hides.
#[derive(Clone, Debug)]
pub(crate) struct AttentionMask {
    /// `[B, 1, Q, C]`.
    pub(crate) hidden: Tensor<4, Bool>,
    /// 1 for a query that sees at least one key, else 0: `[B, 1, Q, 1]`.
    pub(crate) has_keys: Tensor<4>,
}

impl AttentionMask {
    // Hides keys where `hidden` is true, `[B, Q, C]`.
    fn hiding(hidden: Tensor<3, Bool>) -> Self {
        let hidden: Tensor<4, Bool> = hidden.unsqueeze_dim(1); // [B, 1, Q, C]
        let has_keys = hidden.clone().bool_not().float().max_dim(3); // [B, 1, Q, 1]
        Self { hidden, has_keys }
    }
}
