//! The values of a pickle.

use std::borrow::Cow;

/// The largest number of instructions and copied elements of one pickle. A published checkpoint needs some ten thousand. A
/// slow tokenizer that pickles its vocabulary entry by entry needs a few hundred thousand.
pub const MAX_WORK: usize = 1 << 22;

/// A pickle that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickleError {
    /// The byte at which reading stopped.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
}

impl std::fmt::Display for PickleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the pickle {} (at byte {})", self.problem, self.at)
    }
}

impl std::error::Error for PickleError {}

/// The index of a value in the pickle's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node(pub(super) u32);

/// A value as plain data.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Python's `None`.
    None,
    /// True or false.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// An integer beyond 64 bits; its value is not kept.
    BigInt,
    /// A float.
    Float(f64),
    /// A string; invalid Unicode in it is replaced.
    Str(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A list.
    List(Vec<Node>),
    /// A tuple.
    Tuple(Vec<Node>),
    /// A set, as a list.
    Set(Vec<Node>),
    /// A dictionary in its order. If a key occurs twice, the last one counts.
    Dict(Vec<(Node, Node)>),
    /// The name of a class or function.
    Global {
        /// Its module.
        module: Cow<'a, str>,
        /// Its name in the module.
        name: Cow<'a, str>,
    },
    /// The call that Python would have made.
    Object(Box<Object>),
    /// A reference to something outside the pickle; in torch's files a storage.
    Persistent(Node),
}

/// A call that was not executed: the callable, its arguments, and the state and elements that Python would have set.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The class or function.
    pub callable: Node,
    /// Its arguments, a tuple.
    pub args: Node,
    /// The state that `BUILD` sets.
    pub state: Option<Node>,
    /// Elements that were appended, if the object is a kind of list.
    pub elements: Vec<Node>,
    /// Entries that were set, if the object is a kind of dictionary.
    pub entries: Vec<(Node, Node)>,
}
