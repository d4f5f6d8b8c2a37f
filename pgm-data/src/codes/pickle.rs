//! The pickle of one picture that Halton-MaskGIT writes: `{"code": uint16 array, "y": int}`.
//!
//! A pickle is a program for a stack machine. Here it is parsed as data: a call is kept as a name and its arguments, and
//! only the forms of a numpy array and a numpy number are understood. Nothing is executed, all values are in one list
//! without recursion, and the cost is bounded by the length of the file.

use std::collections::HashMap;

/// An array of whole numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<u64>,
    pub(super) values: Vec<i64>,
}

/// The codes and the label of a pickle. The problem is a sentence whose subject is the file.
pub(super) fn read_code_pickle(bytes: &[u8]) -> Result<(Numbers, i64), String> {
    let pickle = Pickle::parse(bytes)?;
    let Some(Value::Dict(entries)) = pickle.values.get(pickle.top) else {
        return Err("is a pickle of something else than {code, y}".to_string());
    };
    let entry = |key: &str| {
        let found = entries.iter().rev().find(|(name, _)| pickle.text(*name) == Some(key));
        found.map(|(_, value)| *value).ok_or_else(|| format!("is a pickle without the key {key:?}"))
    };
    let codes = pickle.array(entry("code")?)?;
    let label = match &pickle.values[entry("y")?] {
        Value::Number(number) => *number,
        _ => match pickle.array(entry("y")?)?.values[..] {
            [number] => number,
            _ => return Err("has a label that is no single number".to_string()),
        },
    };
    Ok((codes, label))
}

/// A value; others are named by their place in the list.
enum Value {
    Nothing,
    Bool(bool),
    Number(i64),
    Float,
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<usize>),
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// A Python name, `module.name`.
    Name(String),
    /// A call of a name, and the state that the object gets afterwards.
    Call {
        callee: usize,
        arguments: usize,
        state: Option<usize>,
    },
}

struct Pickle<'a> {
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: HashMap<u64, usize>,
    top: usize,
}

impl<'a> Pickle<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let mut pickle = Self { rest: bytes, values, stack, marks, memo, top: 0 };
        if bytes.first() != Some(&0x80) {
            return Err("is no pickle".to_string());
        }
        loop {
            let [code] = pickle.take::<1>()?;
            if code == b'.' {
                pickle.top = pickle.pop()?;
                return Ok(pickle);
            }
            pickle.step(code)?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            0x80 => _ = self.take::<1>()?,
            0x95 => _ = self.take::<8>()?,
            // A buffer that cannot be written.
            0x98 => {}
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::Nothing),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.small_number::<1>()?,
            b'M' => self.small_number::<2>()?,
            b'J' => {
                let number = i32::from_le_bytes(self.take()?);
                self.push(Value::Number(number.into()));
            }
            0x8a => {
                let [length] = self.take::<1>()?;
                let bytes = self.take_slice(length.into())?;
                if bytes.len() > 8 {
                    return Err("has a number of more than 64 bits".to_string());
                }
                let number = little_endian(bytes, true);
                self.push(Value::Number(number));
            }
            b'G' => {
                self.take::<8>()?;
                self.push(Value::Float);
            }
            0x8c => self.text_of::<1>()?,
            b'X' => self.text_of::<4>()?,
            0x8d => self.text_of::<8>()?,
            b'C' => self.bytes_of::<1>()?,
            b'B' => self.bytes_of::<4>()?,
            0x8e | 0x96 => self.bytes_of::<8>()?,
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code - 0x84)).ok_or_else(broken)?;
                let items = self.stack.split_off(start);
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.extend_dict(&items)?;
            }
            0x94 => {
                let top = *self.stack.last().ok_or_else(broken)?;
                self.memo.insert(self.memo.len() as u64, top);
            }
            b'q' => self.put::<1>()?,
            b'r' => self.put::<4>()?,
            b'h' => self.get::<1>()?,
            b'j' => self.get::<4>()?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Name(format!("{module}.{name}")));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.text(module), self.text(name)) else { return Err(broken()) };
                let name = format!("{module}.{name}");
                self.push(Value::Name(name));
            }
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.push(Value::Call { callee, arguments, state: None });
            }
            b'b' => {
                let built = self.pop()?;
                let object = *self.stack.last().ok_or_else(broken)?;
                match &mut self.values[object] {
                    Value::Call { state, .. } => *state = Some(built),
                    _ => return Err(broken()),
                }
            }
            other => return Err(format!("has the pickle instruction {other:#04x}, which codes do not need")),
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.rest.split_first_chunk().ok_or("is a pickle that ends too early")?;
        self.rest = rest;
        Ok(*head)
    }

    fn take_slice(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (head, rest) = self.rest.split_at_checked(length).ok_or("is a pickle that ends too early")?;
        self.rest = rest;
        Ok(head)
    }

    fn take_length<const N: usize>(&mut self) -> Result<u64, String> {
        let bytes: [u8; N] = self.take()?;
        Ok(bytes.iter().rev().fold(0, |length, &byte| length << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or_else(broken)?;
        let line = std::str::from_utf8(&self.rest[..end]).map_err(|_| broken())?;
        self.rest = &self.rest[end + 1..];
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<usize, String> {
        self.stack.pop().ok_or_else(broken)
    }

    fn since_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(broken)?;
        Ok(self.stack.split_off(mark))
    }

    fn small_number<const N: usize>(&mut self) -> Result<(), String> {
        let number = self.take_length::<N>()? as i64;
        self.push(Value::Number(number));
        Ok(())
    }

    fn text_of<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.take_length::<N>()?;
        let text = std::str::from_utf8(self.take_slice(length)?).map_err(|_| broken())?;
        self.push(Value::Text(text.to_string()));
        Ok(())
    }

    fn bytes_of<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.take_length::<N>()?;
        let bytes = self.take_slice(length)?.to_vec();
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn put<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.take_length::<N>()?;
        let top = *self.stack.last().ok_or_else(broken)?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn get<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.take_length::<N>()?;
        let value = *self.memo.get(&place).ok_or_else(broken)?;
        self.stack.push(value);
        Ok(())
    }

    fn extend_list(&mut self, items: Vec<usize>) -> Result<(), String> {
        let list = *self.stack.last().ok_or_else(broken)?;
        match &mut self.values[list] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(broken()),
        }
    }

    fn extend_dict(&mut self, items: &[usize]) -> Result<(), String> {
        let dict = *self.stack.last().ok_or_else(broken)?;
        match &mut self.values[dict] {
            Value::Dict(dict) => {
                dict.extend(items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            _ => Err(broken()),
        }
    }

    fn text(&self, value: usize) -> Option<&str> {
        match &self.values[value] {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn items(&self, value: usize) -> Option<&[usize]> {
        match &self.values[value] {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    // The last part of a called name, its arguments and its state.
    fn call(&self, value: usize) -> Result<(&str, &[usize], Option<&[usize]>), String> {
        let Value::Call { callee, arguments, state } = &self.values[value] else {
            return Err("has something else than a numpy array".to_string());
        };
        let Value::Name(name) = &self.values[*callee] else { return Err(broken()) };
        let known = ["numpy.", "_codecs.encode"].iter().any(|start| name.starts_with(start));
        if !known {
            return Err(format!("has an object of Python's {name}, which is not read; only numpy arrays are"));
        }
        let arguments = self.items(*arguments).ok_or_else(broken)?;
        let state = state.map(|state| self.items(state).ok_or_else(broken)).transpose()?;
        Ok((name.rsplit('.').next().unwrap_or(name), arguments, state))
    }

    /// An array, or a single number of numpy.
    fn array(&self, value: usize) -> Result<Numbers, String> {
        let other = || "has something else than a numpy array of whole numbers".to_string();
        let (shape, dtype, buffer) = match self.call(value)? {
            ("_reconstruct", _, Some(&[_, shape, dtype, is_fortran, buffer])) => {
                if matches!(self.values[is_fortran], Value::Bool(true)) {
                    return Err("has an array in Fortran's order".to_string());
                }
                (Some(shape), dtype, buffer)
            }
            ("_frombuffer", &[buffer, dtype, shape, order], _) if self.text(order) == Some("C") => {
                (Some(shape), dtype, buffer)
            }
            ("scalar", &[dtype, buffer], _) => (None, dtype, buffer),
            _ => return Err(other()),
        };
        let shape = match shape {
            Some(shape) => self.items(shape).ok_or_else(broken)?.to_vec(),
            None => Vec::new(),
        };
        let side = |&side: &usize| match &self.values[side] {
            Value::Number(side) => u64::try_from(*side).map_err(|_| broken()),
            _ => Err(broken()),
        };
        let shape: Vec<u64> = shape.iter().map(side).collect::<Result<_, _>>()?;
        let (width, is_signed, is_big) = self.dtype(dtype)?;
        let bytes = self.buffer(buffer)?;
        let n_values = shape.iter().try_fold(1_u64, |all, &side| all.checked_mul(side));
        if n_values.and_then(|n_values| n_values.checked_mul(width as u64)) != Some(bytes.len() as u64) {
            return Err("has an array whose size does not fit its shape".to_string());
        }
        let number = |bytes: &[u8]| {
            if is_big {
                let turned: Vec<u8> = bytes.iter().rev().copied().collect();
                little_endian(&turned, is_signed)
            } else {
                little_endian(bytes, is_signed)
            }
        };
        Ok(Numbers { shape, values: bytes.chunks_exact(width).map(number).collect() })
    }

    // Bytes of a number, whether it is signed, and whether its greatest byte comes first.
    fn dtype(&self, value: usize) -> Result<(usize, bool, bool), String> {
        let (name, arguments, state) = self.call(value)?;
        let kind =
            arguments.first().and_then(|&kind| self.text(kind)).filter(|_| name == "dtype").ok_or_else(broken)?;
        let order = state.and_then(|state| self.text(*state.get(1)?)).unwrap_or("<");
        let (is_signed, width) = match kind {
            "u1" | "u2" | "u4" | "u8" => (false, &kind[1..]),
            "i1" | "i2" | "i4" | "i8" => (true, &kind[1..]),
            other => return Err(format!("has an array of the type {other:?}, not of whole numbers")),
        };
        Ok((width.parse().map_err(|_| broken())?, is_signed, order == ">"))
    }

    fn buffer(&self, value: usize) -> Result<Vec<u8>, String> {
        match &self.values[value] {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            // Old protocols write bytes as the characters of Latin-1.
            Value::Call { .. } => match self.call(value)? {
                ("encode", &[text, ..], _) => {
                    let text = self.text(text).ok_or_else(broken)?;
                    text.chars().map(|letter| u8::try_from(u32::from(letter)).map_err(|_| broken())).collect()
                }
                _ => Err(broken()),
            },
            _ => Err(broken()),
        }
    }
}

fn little_endian(bytes: &[u8], is_signed: bool) -> i64 {
    let number = bytes.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let unused = 64 - 8 * bytes.len().min(8) as u32;
    if is_signed && unused < 64 { (number << unused) as i64 >> unused } else { number as i64 }
}

fn broken() -> String {
    "is a broken pickle".to_string()
}
