//! The stack machine that runs a pickle. `pickle.rs` explains what it does and what it refuses to do.

use std::borrow::Cow;
use std::collections::HashMap;

use super::literals::{self, long, unescape};
use super::plain_data::{self, Constructor};
use super::value::{MAX_WORK, Node, Object, PickleError, Value};

/// The machine: its program, a stack with marks, a memo, and the arena of values.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    work: usize,
    nodes: Vec<Value<'a>>,
    stack: Vec<Node>,
    marks: Vec<usize>,
    memo: HashMap<u64, Node>,
}

type Step<T = ()> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let (nodes, stack, marks) = (Vec::new(), Vec::new(), Vec::new());
        Self { bytes, at: 0, work: 0, nodes, stack, marks, memo: HashMap::new() }
    }

    /// Runs the program to its `STOP` and returns the arena and the top of the stack.
    pub(super) fn run(mut self) -> Step<(Vec<Value<'a>>, Node)> {
        loop {
            self.spend(1)?;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok((self.nodes, root));
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            // The frame of the program.
            0x80 => {
                let [version] = self.array()?;
                if version > 5 {
                    return self.fail(format!("is of protocol {version}, this reader knows 0 to 5"));
                }
            }
            0x95 => {
                let length = u64::from_le_bytes(self.array()?);
                if length > (self.bytes.len() - self.at) as u64 {
                    return self.fail("ends inside a frame; the file is truncated");
                }
            }
            // Constants.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'I' => {
                let value = match self.line()? {
                    b"00" => Value::Bool(false),
                    b"01" => Value::Bool(true),
                    digits => self.decimal(digits)?,
                };
                self.push(value)?;
            }
            b'L' => {
                let digits = self.line()?;
                let value = self.decimal(digits.strip_suffix(b"L").unwrap_or(digits))?;
                self.push(value)?;
            }
            0x8a => {
                let [length] = self.array()?;
                let digits = self.take(length.into())?;
                self.push(long(digits))?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?);
                let digits = self.take(length.into())?;
                self.push(long(digits))?;
            }
            b'F' => {
                let line = self.line()?;
                let Some(value) = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok()) else {
                    return self.fail("holds a float that is no number");
                };
                self.push(Value::Float(value))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            // Text and bytes.
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length.into())?;
            }
            0x8c => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            b'T' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length.into())?;
            }
            b'U' => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.raw(length.into())?;
            }
            b'C' => {
                let [length] = self.array()?;
                self.raw(length.into())?;
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                self.raw(length)?;
            }
            b'S' => {
                let line = self.line()?.trim_ascii();
                let quoted = |quote| line.len() > 1 && line.starts_with(quote) && line.ends_with(quote);
                if !quoted(b"'") && !quoted(b"\"") {
                    return self.fail("holds a string without quotes");
                }
                self.push(Value::Str(unescape(&line[1..line.len() - 1])))?;
            }
            b'V' => {
                let line = self.line()?;
                self.push(Value::Str(unescape(line)))?;
            }
            // Containers.
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x8f => self.push(Value::Set(Vec::new()))?,
            0x85..=0x87 => {
                let elements = self.pop_some(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(elements))?;
            }
            b't' => {
                let elements = self.pop_mark()?;
                self.push(Value::Tuple(elements))?;
            }
            b'l' => {
                let elements = self.pop_mark()?;
                self.push(Value::List(elements))?;
            }
            0x91 => {
                let elements = self.pop_mark()?;
                self.push(Value::Set(elements))?;
            }
            b'd' => {
                let elements = self.pop_mark()?;
                let entries = self.pairs(&elements)?;
                self.push(Value::Dict(entries))?;
            }
            b'a' => {
                let element = self.pop()?;
                self.append(&[element])?;
            }
            b'e' | 0x90 => {
                let elements = self.pop_mark()?;
                self.append(&elements)?;
            }
            b's' => {
                let entry = self.pop_some(2)?;
                self.set(&entry)?;
            }
            b'u' => {
                let entries = self.pop_mark()?;
                self.set(&entries)?;
            }
            // The stack and the memo.
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'p' | b'g' => {
                let line = self.line()?;
                let Some(key) = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok()) else {
                    return self.fail("holds a memo index that is no number");
                };
                if opcode == b'p' { self.put(key)? } else { self.recall(key)? }
            }
            b'q' => {
                let [key] = self.array()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key.into())?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'h' => {
                let [key] = self.array()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key.into())?;
            }
            // Names and calls.
            b'c' => {
                let global = self.global_lines()?;
                self.push(global)?;
            }
            0x93 => {
                let names = self.pop_some(2)?;
                let text = |node: Node| match &self.nodes[node.0 as usize] {
                    Value::Str(text) => Some(text.clone()),
                    _ => None,
                };
                let (Some(module), Some(name)) = (text(names[0]), text(names[1])) else {
                    return self.fail("names a class by something that is no string");
                };
                // A name is copied each time, which must not be free.
                self.spend((module.len() + name.len()) / 64)?;
                self.push(Value::Global { module, name })?;
            }
            b'i' => {
                let global = self.global_lines()?;
                let args = self.pop_mark()?;
                let callable = self.add(global)?;
                let args = self.add(Value::Tuple(args))?;
                self.call(callable, args)?;
            }
            b'o' => {
                let elements = self.pop_mark()?;
                let Some((&callable, args)) = elements.split_first() else {
                    return self.fail("makes an object of nothing");
                };
                let args = self.add(Value::Tuple(args.to_vec()))?;
                self.call(callable, args)?;
            }
            b'R' | 0x81 => {
                let parts = self.pop_some(2)?;
                self.call(parts[0], parts[1])?;
            }
            0x92 => {
                let parts = self.pop_some(3)?;
                self.call(parts[0], parts[1])?;
            }
            b'b' => self.build()?,
            b'P' => {
                let line = self.line()?;
                let text = self.add(Value::Str(String::from_utf8_lossy(line)))?;
                self.push(Value::Persistent(text))?;
            }
            b'Q' => {
                let reference = self.pop()?;
                self.push(Value::Persistent(reference))?;
            }
            0x82..=0x84 => return self.fail("uses Python's extension registry, which no checkpoint does"),
            0x97 | 0x98 => return self.fail("keeps data outside itself, which no checkpoint does"),
            other => return self.fail(format!("holds the unknown instruction 0x{other:02x}; the file is damaged")),
        }
        Ok(())
    }

    fn fail<T>(&self, problem: impl Into<String>) -> Step<T> {
        Err(PickleError { at: self.at, problem: problem.into() })
    }

    fn spend(&mut self, work: usize) -> Step {
        self.work = self.work.saturating_add(work);
        if self.work > MAX_WORK {
            return self.fail(format!("needs more than {MAX_WORK} steps, no checkpoint needs as many"));
        }
        Ok(())
    }

    // Reading.

    fn take(&mut self, length: u64) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
            return self.fail("ends inside a value; the file is truncated or damaged");
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let Some(taken) = self.bytes[self.at..].first_chunk() else {
            return self.fail("ends before its STOP; the file is truncated");
        };
        self.at += N;
        Ok(*taken)
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return self.fail("ends inside a line; the file is truncated or damaged");
        };
        self.at += end + 1;
        let line = &rest[..end];
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn decimal(&self, digits: &[u8]) -> Step<Value<'a>> {
        literals::decimal(digits).map_or_else(|| self.fail("holds an integer that is no number"), Ok)
    }

    fn text(&mut self, length: u64) -> Step {
        let bytes = self.take(length)?;
        self.push(Value::Str(String::from_utf8_lossy(bytes)))
    }

    fn raw(&mut self, length: u64) -> Step {
        let bytes = self.take(length)?;
        self.push(Value::Bytes(Cow::Borrowed(bytes)))
    }

    fn global_lines(&mut self) -> Step<Value<'a>> {
        let module = String::from_utf8_lossy(self.line()?);
        let name = String::from_utf8_lossy(self.line()?);
        Ok(Value::Global { module, name })
    }

    // The stack. Values below the last mark cannot be popped.

    fn add(&mut self, value: Value<'a>) -> Step<Node> {
        // At most two values an instruction and MAX_WORK instructions: the index fits.
        let node = Node(self.nodes.len() as u32);
        self.nodes.push(value);
        Ok(node)
    }

    fn push(&mut self, value: Value<'a>) -> Step {
        let node = self.add(value)?;
        self.stack.push(node);
        Ok(())
    }

    fn available(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Node> {
        match self.stack.last() {
            Some(&node) if self.available() > 0 => Ok(node),
            _ => self.fail("takes a value from an empty stack; the file is damaged"),
        }
    }

    fn pop(&mut self) -> Step<Node> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_some(&mut self, count: usize) -> Step<Vec<Node>> {
        if self.available() < count {
            return self.fail("takes a value from an empty stack; the file is damaged");
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_mark(&mut self) -> Step<Vec<Node>> {
        let Some(mark) = self.marks.pop() else {
            return self.fail("closes a container that it never opened; the file is damaged");
        };
        Ok(self.stack.split_off(mark))
    }

    fn put(&mut self, key: u64) -> Step {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Step {
        let Some(&node) = self.memo.get(&key) else {
            return self.fail(format!("recalls value {key}, which it never stored; the file is damaged"));
        };
        self.stack.push(node);
        Ok(())
    }

    // Containers and objects.

    fn pairs(&self, elements: &[Node]) -> Step<Vec<(Node, Node)>> {
        let (pairs, rest) = elements.as_chunks::<2>();
        if !rest.is_empty() {
            return self.fail("holds a key without a value; the file is damaged");
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn append(&mut self, added: &[Node]) -> Step {
        let container = self.top()?;
        match &mut self.nodes[container.0 as usize] {
            Value::List(elements) | Value::Set(elements) => elements.extend_from_slice(added),
            Value::Object(object) => object.elements.extend_from_slice(added),
            _ => return self.fail("appends to something that is no list; the file is damaged"),
        }
        Ok(())
    }

    fn set(&mut self, added: &[Node]) -> Step {
        let added = self.pairs(added)?;
        let container = self.top()?;
        match &mut self.nodes[container.0 as usize] {
            Value::Dict(entries) => entries.extend(added),
            Value::Object(object) => object.entries.extend(added),
            _ => return self.fail("sets an entry of something that is no dictionary; the file is damaged"),
        }
        Ok(())
    }

    fn call(&mut self, callable: Node, args: Node) -> Step {
        let value = match self.plain_data(callable, args)? {
            Some(value) => value,
            None => {
                let object = Object { callable, args, state: None, elements: Vec::new(), entries: Vec::new() };
                Value::Object(Box::new(object))
            }
        };
        self.push(value)
    }

    // The data that a constructor of plain data would make.
    fn plain_data(&mut self, callable: Node, args: Node) -> Step<Option<Value<'a>>> {
        let Value::Global { module, name } = &self.nodes[callable.0 as usize] else { return Ok(None) };
        let Some(constructor) = Constructor::of(module, name) else { return Ok(None) };
        // The cost is counted before, also where the arguments turn out to be of another form.
        self.spend(plain_data::cost(&self.nodes, args))?;
        Ok(constructor.call(&self.nodes, args))
    }

    fn build(&mut self) -> Step {
        let state = self.pop()?;
        let target = self.top()?;
        match &mut self.nodes[target.0 as usize] {
            Value::Object(object) => object.state = Some(state),
            // Attributes of a dictionary, such as a state dict's `_metadata`, are not needed.
            Value::Dict(_) | Value::Set(_) => {}
            _ => return self.fail("sets the state of something that has none; the file is damaged"),
        }
        Ok(())
    }
}
