//! Reads a Python pickle as data: nothing in it is imported, called or executed.
//!
//! A pickle is a program for a stack machine. The machine in `machine.rs` knows every instruction of protocols 0 to 5, but
//! an instruction that would call Python (`REDUCE`, `NEWOBJ`, `BUILD`, `INST`, `OBJ`) only records the callable and its
//! arguments as an inert [`Object`](super::Object). Constructors of plain data (ordered and default dictionaries, sets,
//! encoded strings) become that data.
//!
//! The values are in one arena and refer to each other by index. So shared and cyclic references cost nothing, and nothing
//! is expanded, dropped or walked recursively; code that follows indices must bound its own walk. The work is bounded by the
//! pickle's length and by [`MAX_WORK`](super::MAX_WORK). A length that the pickle declares is checked against its bytes
//! before anything is allocated.

use super::machine::Machine;
use super::value::{Node, PickleError, Value};

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

    /// A number that is not negative.
    pub fn size(&self, node: Node) -> Option<usize> {
        match self.get(node) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The elements of a list, a tuple, or an object that is a kind of list.
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

    /// The number of values.
    pub fn n_values(&self) -> usize {
        self.nodes.len()
    }

    /// Every value, in the order in which the pickle makes them.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        (0..self.nodes.len() as u32).map(Node)
    }
}
