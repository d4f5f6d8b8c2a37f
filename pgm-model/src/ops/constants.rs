//! Numbers that every implementation of an operation shares.

/// `gelu(x) = x sigmoid(GELU[0] x + GELU[1] x^3)`, the tanh form: `2 sqrt(2 / pi)`, and 0.044715 times it.
pub(crate) const GELU: [f32; 2] = [1.595_769_2, 0.071_354_814];
/// Added to the variance by every norm of the model.
pub(crate) const EPSILON: f32 = 1e-5;
