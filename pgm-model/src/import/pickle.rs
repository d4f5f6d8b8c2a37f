//! Reads a Python pickle as data: nothing in it is imported, called or executed.
//!
//! A pickle is a program for a stack machine. Ours (`machine.rs`) knows every instruction of the protocols 0 to 5, but
//! what would call Python (`REDUCE`, `NEWOBJ`, `BUILD`, `INST`, `OBJ`) only notes down who would have been called with
//! what, as an inert [`Object`]. Constructors of plain data (ordered and default dictionaries, sets, encoded strings)
//! become that data.
//!
//! The values lie in one arena and refer to each other by index. Shared and cyclic references therefore cost nothing,
//! nothing is expanded, dropped or walked recursively, and a reader who follows indices has to bound its own walk. The
//! work is bounded by the pickle's length and by [`MAX_WORK`]; no length that a pickle declares is believed before as
//! many bytes have been seen.
//!
//! These two files depend on the standard library alone, so that the fuzzer builds them without Burn.

use std::borrow::Cow;

use super::machine::Machine;

/// Instructions and copied elements that one pickle may cost. A published checkpoint needs some ten thousand; a slow
/// tokenizer that pickles its vocabulary entry by entry needs a few hundred thousand.
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

/// The index of a value.
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
    /// An integer beyond 64 bits, whose value nothing needs.
    BigInt,
    /// A float.
    Float(f64),
    /// A string; what is not Unicode in it has been replaced.
    Str(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A list.
    List(Vec<Node>),
    /// A tuple.
    Tuple(Vec<Node>),
    /// A set, as a list.
    Set(Vec<Node>),
    /// A dictionary in its order; a key may occur twice, the last one counts.
    Dict(Vec<(Node, Node)>),
    /// The name of a class or function.
    Global {
        /// Its module.
        module: Cow<'a, str>,
        /// Its name in the module.
        name: Cow<'a, str>,
    },
    /// What Python would have made by calling something.
    Object(Box<Object>),
    /// A reference to something outside the pickle; in torch's files a storage.
    Persistent(Node),
}

/// An object that was not made: who would have been called, with what, and what it would have been given afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The class or function.
    pub callable: Node,
    /// Its arguments, a tuple.
    pub args: Node,
    /// The state that `BUILD` sets.
    pub state: Option<Node>,
    /// Elements appended, where the object is a kind of list.
    pub elements: Vec<Node>,
    /// Entries set, where the object is a kind of dictionary.
    pub entries: Vec<(Node, Node)>,
}

/// The values of a pickle.
#[derive(Clone, Debug)]
pub struct Pickle<'a> {
    nodes: Vec<Value<'a>>,
    root: Node,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle at the start of `bytes`, up to its `STOP`.
    ///
    /// # Errors
    /// Names the byte at which a truncated or malformed pickle cannot be read on, or the limit that it exceeds.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let (nodes, root) = Machine::new(bytes).run()?;
        Ok(Self { nodes, root })
    }

    /// The value that the pickle describes.
    pub fn root(&self) -> Node {
        self.root
    }

    /// A value.
    pub fn get(&self, node: Node) -> &Value<'a> {
        &self.nodes[node.0 as usize]
    }

    /// A string's text.
    pub fn str(&self, node: Node) -> Option<&str> {
        match self.get(node) {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A number that counts something.
    pub fn size(&self, node: Node) -> Option<usize> {
        match self.get(node) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The elements of a list or tuple, or of an object that is a kind of list.
    pub fn elements(&self, node: Node) -> Option<&[Node]> {
        match self.get(node) {
            Value::List(elements) | Value::Tuple(elements) => Some(elements),
            Value::Object(object) if !object.elements.is_empty() => Some(&object.elements),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an object that is a kind of dictionary.
    pub fn entries(&self, node: Node) -> Option<&[(Node, Node)]> {
        match self.get(node) {
            Value::Dict(entries) => Some(entries),
            Value::Object(object) if !object.entries.is_empty() => Some(&object.entries),
            _ => None,
        }
    }

    /// The value under a string key of a dictionary.
    pub fn entry(&self, node: Node, key: &str) -> Option<Node> {
        let entries = self.entries(node)?;
        entries.iter().rev().find(|(known, _)| self.str(*known) == Some(key)).map(|(_, value)| *value)
    }

    /// Module and name of a class or function.
    pub fn global(&self, node: Node) -> Option<(&str, &str)> {
        match self.get(node) {
            Value::Global { module, name } => Some((module, name)),
            _ => None,
        }
    }

    /// How many values there are.
    pub fn n_values(&self) -> usize {
        self.nodes.len()
    }

    /// Every value, in the order in which they were made.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        (0..self.nodes.len() as u32).map(Node)
    }
}
