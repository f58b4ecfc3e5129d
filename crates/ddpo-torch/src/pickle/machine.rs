//! The part of Python's pickle machine that `torch.save` needs for a dictionary of tensors.
//!
//! A pickle is a program. This interpreter builds tuples, dictionaries and descriptions of tensors, and calls nothing:
//! globals other than the names in [`Global`] are refused. It knows the opcodes of protocol 2, which `torch.save`
//! writes, and no others. Every opcode makes at most one value, values are handles into one arena, and a
//! dictionary only holds values that are younger than itself: memory stays within a small multiple of the pickle's
//! length, and nothing can refer to itself.

use std::collections::{BTreeMap, HashMap};

use super::value::{Cell, Claim, Global, Value};

/// Maximum number of dimensions. Copies from the arena are bounded, since a pickle may reference a value repeatedly.
const MAX_DIMENSIONS: usize = 8;
/// Longest name of a storage; torch numbers them.
const MAX_KEY: usize = 32;

struct Machine<'a> {
    code: &'a [u8],
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    arena: Vec<Cell>,
}

type Outcome<T> = std::result::Result<T, String>;

/// Runs `code` and returns the tensors of the dictionary that it leaves, by name.
///
/// The error is a lower-case fragment.
pub(super) fn tensors(code: &[u8]) -> Outcome<BTreeMap<String, Claim>> {
    let mut machine = Machine {
        code,
        stack: Vec::new(),
        memo: HashMap::new(),
        arena: Vec::new(),
    };
    let result = machine.run()?;
    machine.named(result)
}

impl Machine<'_> {
    fn run(&mut self) -> Outcome<Value> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                0x80 => self.protocol()?,
                b'(' => self.stack.push(Value::Mark),
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Plain),
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Plain);
                }
                b'K' => {
                    let value = self.byte()?;
                    self.stack.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(value.into()));
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(value.into()));
                }
                0x8a => self.long()?,
                b'X' => self.text()?,
                b'c' => self.global()?,
                b'q' | b'r' => self.put(opcode)?,
                b'h' | b'j' => self.get(opcode)?,
                b')' => self.make(Cell::Tuple(Vec::new())),
                b'}' => self.make(Cell::Dict(Vec::new())),
                b't' => {
                    let items = self.since_mark()?;
                    self.make(Cell::Tuple(items));
                }
                0x85..=0x87 => {
                    let n = usize::from(opcode - 0x84);
                    let items = self.last(n)?;
                    self.make(Cell::Tuple(items));
                }
                b's' => {
                    let items = self.last(2)?;
                    self.fill(&items)?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.fill(&items)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'.' => return self.pop(),
                other => return Err(format!("opcode {other:#04x} is not one that tensors need")),
            }
        }
    }

    fn take(&mut self, n: usize) -> Outcome<&[u8]> {
        let (head, rest) = self
            .code
            .split_at_checked(n)
            .ok_or("its pickle is cut off")?;
        self.code = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("take gives what was asked for"))
    }

    fn pop(&mut self) -> Outcome<Value> {
        self.stack
            .pop()
            .ok_or_else(|| "its pickle takes from an empty stack".to_owned())
    }

    fn make(&mut self, cell: Cell) {
        self.stack.push(Value::Heap(self.arena.len()));
        self.arena.push(cell);
    }

    fn last(&mut self, n: usize) -> Outcome<Vec<Value>> {
        let at = self.stack.len().checked_sub(n);
        let at = at.ok_or("its pickle takes from an empty stack")?;
        let items = self.stack.split_off(at);
        match items.contains(&Value::Mark) {
            true => Err("its pickle takes a mark for a value".to_owned()),
            false => Ok(items),
        }
    }

    fn since_mark(&mut self) -> Outcome<Vec<Value>> {
        let at = self.stack.iter().rposition(|v| *v == Value::Mark);
        let items = self.stack.split_off(at.ok_or("its pickle lacks a mark")?);
        Ok(items[1..].to_vec())
    }

    fn protocol(&mut self) -> Outcome<()> {
        match self.byte()? {
            2 => Ok(()),
            other => Err(format!("pickle protocol {other}, expected 2")),
        }
    }

    /// An integer of up to eight bytes; sizes need no more.
    fn long(&mut self) -> Outcome<()> {
        let n = usize::from(self.byte()?);
        if n > 8 {
            return Err(format!("an integer of {n} bytes"));
        }
        let bytes = self.take(n)?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut whole = [fill; 8];
        whole[..n].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(whole)));
        Ok(())
    }

    fn text(&mut self) -> Outcome<()> {
        let n = u32::from_le_bytes(self.array()?);
        let bytes = self.take(n as usize)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?;
        self.make(Cell::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Outcome<String> {
        let end = self.code.iter().position(|&b| b == b'\n');
        let line = self.take(end.ok_or("its pickle is cut off")?)?.to_vec();
        self.take(1)?;
        String::from_utf8(line).map_err(|_| "a global that is not UTF-8".to_owned())
    }

    fn global(&mut self) -> Outcome<()> {
        let (module, name) = (self.line()?, self.line()?);
        let global = Global::find(&module, &name).ok_or_else(|| {
            format!("it names the global `{module}.{name}`, which is not one of tensors")
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn memo_key(&mut self, opcode: u8) -> Outcome<u32> {
        Ok(match opcode {
            b'q' | b'h' => self.byte()?.into(),
            _ => u32::from_le_bytes(self.array()?),
        })
    }

    fn put(&mut self, opcode: u8) -> Outcome<()> {
        let key = self.memo_key(opcode)?;
        match self.stack.last() {
            None | Some(Value::Mark) => {
                Err("its pickle memoizes a value that is not there".to_owned())
            }
            Some(value) => {
                self.memo.insert(key, *value);
                Ok(())
            }
        }
    }

    fn get(&mut self, opcode: u8) -> Outcome<()> {
        let key = self.memo_key(opcode)?;
        let value = self.memo.get(&key).copied();
        self.stack.push(
            value.ok_or_else(|| format!("its pickle reads memo {key}, which it never wrote"))?,
        );
        Ok(())
    }

    fn cell(&self, value: Value) -> Option<&Cell> {
        match value {
            Value::Heap(at) => Some(&self.arena[at]),
            _ => None,
        }
    }

    fn tuple(&self, value: Value) -> Outcome<&[Value]> {
        match self.cell(value) {
            Some(Cell::Tuple(items)) => Ok(items),
            _ => Err("a value that should be a tuple is not".to_owned()),
        }
    }

    fn string(&self, value: Value) -> Outcome<&str> {
        match self.cell(value) {
            Some(Cell::Text(text)) => Ok(text),
            _ => Err("a value that should be a string is not".to_owned()),
        }
    }

    fn ints(&self, value: Value) -> Outcome<Vec<i64>> {
        let int = |value: &Value| match value {
            Value::Int(n) => Ok(*n),
            _ => Err("a size that is not an integer".to_owned()),
        };
        let sizes = self.tuple(value)?;
        if sizes.len() > MAX_DIMENSIONS {
            return Err(format!("a tensor of {} dimensions", sizes.len()));
        }
        sizes.iter().map(int).collect()
    }

    /// Puts pairs of key and value into the dictionary on top of the stack.
    fn fill(&mut self, items: &[Value]) -> Outcome<()> {
        let Some(Value::Heap(at)) = self.stack.last().copied() else {
            return Err("its pickle sets items of a value that is not a dictionary".to_owned());
        };
        if !items.len().is_multiple_of(2) {
            return Err("its pickle has a key without a value".to_owned());
        }
        for &item in items {
            match (item, self.cell(item)) {
                (Value::Heap(child), Some(Cell::Dict(_))) if child <= at => {
                    return Err("a dictionary refers to itself or to an older one".to_owned());
                }
                (_, Some(Cell::Tuple(_))) => return Err("a dictionary holds a tuple".to_owned()),
                _ => {}
            }
        }
        let Cell::Dict(pairs) = &mut self.arena[at] else {
            return Err("its pickle sets items of a value that is not a dictionary".to_owned());
        };
        pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// `('storage', type, key, location, elements)`: the only persistent identity that torch writes.
    fn persistent(&mut self) -> Outcome<()> {
        let id = self.pop()?;
        let &[tag, kind, key, location, n] = self.tuple(id)? else {
            return Err("the description of a storage does not have five values".to_owned());
        };
        let (Value::Global(Global::Storage(kind)), Value::Int(n)) = (kind, n) else {
            return Err("a storage without type or size".to_owned());
        };
        self.string(location)?;
        if self.string(tag)? != "storage" {
            return Err("a persistent value that is not a storage".to_owned());
        }
        let key = self.string(key)?;
        if key.len() > MAX_KEY {
            return Err(format!("a storage's name has {} bytes", key.len()));
        }
        let key = key.to_owned();
        self.make(Cell::Storage { key, kind, n });
        Ok(())
    }

    fn reduce(&mut self) -> Outcome<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        match function {
            Value::Global(Global::OrderedDict) => {
                if !self.tuple(arguments)?.is_empty() {
                    return Err("an OrderedDict with arguments".to_owned());
                }
                self.make(Cell::Dict(Vec::new()));
            }
            Value::Global(Global::RebuildTensor) => {
                let claim = self.rebuilt(arguments)?;
                self.make(Cell::Tensor(claim));
            }
            _ => return Err("it calls a function that is not one of tensors".to_owned()),
        }
        Ok(())
    }

    /// `(storage, offset, size, stride, requires_grad, backward_hooks)`, hooks empty.
    fn rebuilt(&self, arguments: Value) -> Outcome<Claim> {
        let &[storage, offset, shape, strides, _, hooks] = self.tuple(arguments)? else {
            return Err("the description of a tensor does not have six values".to_owned());
        };
        let (Some(Cell::Storage { key, kind, n }), Value::Int(offset)) =
            (self.cell(storage), offset)
        else {
            return Err("a tensor without storage or offset".to_owned());
        };
        match self.cell(hooks) {
            Some(Cell::Dict(pairs)) if pairs.is_empty() => {}
            _ => return Err("a tensor with hooks".to_owned()),
        }
        Ok(Claim {
            storage: key.clone(),
            kind: *kind,
            n_stored: *n,
            offset,
            shape: self.ints(shape)?,
            strides: self.ints(strides)?,
        })
    }

    /// Only `_metadata`, the versions that `state_dict()` records on its dictionary: ignored.
    fn build(&mut self) -> Outcome<()> {
        let state = self.pop()?;
        let is_metadata = match self.cell(state) {
            Some(Cell::Dict(pairs)) => pairs
                .iter()
                .all(|(key, _)| self.string(*key) == Ok("_metadata")),
            _ => false,
        };
        let on_dict = self.stack.last().and_then(|v| self.cell(*v));
        match (is_metadata, on_dict) {
            (true, Some(Cell::Dict(_))) => Ok(()),
            _ => Err("it sets the state of an object".to_owned()),
        }
    }

    fn named(&self, result: Value) -> Outcome<BTreeMap<String, Claim>> {
        let Some(Cell::Dict(pairs)) = self.cell(result) else {
            return Err("it does not hold a dictionary of tensors".to_owned());
        };
        let mut named = BTreeMap::new();
        for &(key, value) in pairs {
            let name = self.string(key)?;
            let Some(Cell::Tensor(claim)) = self.cell(value) else {
                return Err(format!("`{name}` is no tensor"));
            };
            if named.insert(name.to_owned(), claim.clone()).is_some() {
                return Err(format!("`{name}` is there twice"));
            }
        }
        Ok(named)
    }
}
