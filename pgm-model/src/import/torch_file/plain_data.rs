//! Constructors of plain data, the only calls of a pickle that have an effect.

use std::borrow::Cow;

use super::value::{Node, Value};

/// A constructor whose result is plain data.
#[derive(Clone, Copy)]
pub(super) enum Constructor {
    Dict,
    DefaultDict,
    Set,
    Encode,
}

impl Constructor {
    /// By module and name.
    pub(super) fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Some(Self::Dict),
            ("collections", "defaultdict") => Some(Self::DefaultDict),
            ("builtins" | "__builtin__", "set" | "frozenset") => Some(Self::Set),
            ("_codecs", "encode") => Some(Self::Encode),
            _ => None,
        }
    }

    /// Its result, for arguments of the form in which Python pickles them.
    pub(super) fn call<'a>(self, nodes: &[Value<'a>], args: Node) -> Option<Value<'a>> {
        let Value::Tuple(args) = &nodes[args.0 as usize] else { return None };
        let values: Vec<&Value> = args.iter().take(3).map(|node| &nodes[node.0 as usize]).collect();
        Some(match (self, values.as_slice()) {
            (Self::Dict, []) | (Self::DefaultDict, [] | [_]) => Value::Dict(Vec::new()),
            (Self::Dict, [Value::List(pairs)]) => {
                let pair = |node: &Node| match &nodes[node.0 as usize] {
                    Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                    _ => None,
                };
                Value::Dict(pairs.iter().map(pair).collect::<Option<_>>()?)
            }
            (Self::Set, [Value::List(elements)]) => Value::Set(elements.clone()),
            // Protocol 2 has no bytes: Python writes them as a string of their Latin-1 characters.
            (Self::Encode, [Value::Str(text), Value::Str(codec)]) if matches!(codec.as_ref(), "latin1" | "latin-1") => {
                let bytes = text.chars().map(|letter| u8::try_from(letter).ok()).collect::<Option<_>>()?;
                Value::Bytes(Cow::Owned(bytes))
            }
            _ => return None,
        })
    }
}

/// The cost of a constructor's call: the elements of its first argument that are read or copied.
pub(super) fn cost(nodes: &[Value], args: Node) -> usize {
    let Value::Tuple(args) = &nodes[args.0 as usize] else { return 0 };
    match args.first().map(|node| &nodes[node.0 as usize]) {
        Some(Value::List(elements)) => elements.len(),
        Some(Value::Str(text)) => text.len() / 64,
        _ => 0,
    }
}
