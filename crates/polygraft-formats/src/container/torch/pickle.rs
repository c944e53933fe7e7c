//! A pickle machine that can build tensors, and nothing else.
//!
//! It knows the opcodes that `torch.save` writes and a closed list of globals, each with one fixed meaning; there is no
//! call, no import, no attribute. Whatever is off the list ends the reading with its name. The size of everything is
//! bounded by the limits below, whatever the file claims.

use super::global;
use super::heap::{Heap, Id, List, Value, put};
use crate::error::{FormatError, Result, shown};
use std::collections::HashMap;

/// Longest pickle: the tensors' numbers lie outside it, lists of indexes (sparse fine-tuning) inside.
pub(super) const MAX_PICKLE: usize = 64 << 20;
/// Most values on the stack: torch writes lists by the thousand.
const MAX_STACK: usize = 1 << 14;
/// Most lists, dictionaries, tuples, storages and tensors.
const MAX_OBJECTS: usize = 1 << 19;
/// Most remembered values.
const MAX_MEMO: usize = 1 << 19;
/// Most entries in all lists and dictionaries.
const MAX_ITEMS: usize = 1 << 24;
/// Most entries that are not small whole numbers.
const MAX_WIDE_ITEMS: usize = 1 << 19;

/// One pickle of a file.
pub(super) struct Machine<'a> {
    pub(super) file: &'a str,
    data: &'a [u8],
    /// Where `data` lies in its file or member, for messages.
    pub(super) base: usize,
    at: usize,
    pub(super) start: usize,
    op: u8,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: Vec<Option<Value<'a>>>,
    items: usize,
    wide_items: usize,
    pub(super) keys: HashMap<&'a str, Id>,
    pub(super) heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    /// A machine over `data`, which lies at `base` in what messages call the file.
    pub(super) fn new(file: &'a str, data: &'a [u8], base: usize) -> Self {
        Self {
            file,
            data,
            base,
            at: 0,
            start: 0,
            op: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            items: 0,
            wide_items: 0,
            keys: HashMap::new(),
            heap: Heap::default(),
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// An error at the opcode that is being run.
    pub(super) fn bad(&self, why: impl Into<String>) -> FormatError {
        FormatError::PickleOp {
            file: self.file.into(),
            op: opcode(self.op),
            offset: self.base + self.start,
            why: why.into(),
        }
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let part = self.at.checked_add(n).and_then(|end| self.data.get(self.at..end));
        let part = part.ok_or_else(|| self.bad(format!("needs {n} bytes and the pickle ends before")))?;
        self.at += n;
        Ok(part)
    }

    fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut wide = [0; 8];
        for (to, from) in wide.iter_mut().zip(self.bytes(N)?) {
            *to = *from;
        }
        Ok(u64::from_le_bytes(wide))
    }

    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let n = self.number::<N>()?;
        self.bytes(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.bad("its text is not UTF-8"))
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        if self.stack.len() >= MAX_STACK {
            return Err(self.bad(format!("more than {MAX_STACK} values are on the stack")));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        // Nothing below a mark is anybody's but the mark's.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.bad("the stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.bad("the stack is empty"))
    }

    pub(super) fn top(&self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[_]>::last).copied().ok_or_else(|| self.bad("the stack is empty"))
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| self.bad("there is no mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn room(&mut self, entries: usize, wide: usize) -> Result<()> {
        self.items = self.items.saturating_add(entries);
        self.wide_items = self.wide_items.saturating_add(wide);
        if self.heap.objects() >= MAX_OBJECTS || self.items > MAX_ITEMS || self.wide_items > MAX_WIDE_ITEMS {
            return Err(self.bad(format!(
                "it makes more than {MAX_OBJECTS} objects, {MAX_ITEMS} list entries or {MAX_WIDE_ITEMS} entries of other kinds"
            )));
        }
        Ok(())
    }

    fn tuple(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        self.room(items.len(), items.len())?;
        let id = put(&mut self.heap.tuples, items);
        self.push(Value::Tuple(id))
    }

    fn tuple_of(&mut self, n: usize) -> Result<()> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.tuple(items)
    }

    fn append(&mut self, values: &[Value<'a>]) -> Result<()> {
        let Value::List(id) = self.top()? else { return Err(self.bad("appends to something that is not a list")) };
        let small: Option<Vec<u32>> =
            values.iter().map(|v| if let Value::Int(n) = v { u32::try_from(*n).ok() } else { None }).collect();
        let was_small = matches!(self.heap.lists.get(id as usize), Some(List::Small(_)));
        let grown = match self.heap.lists.get(id as usize) {
            // A list of numbers that takes something else is made anew, wide.
            Some(List::Small(old)) if small.is_none() => old.len(),
            _ => 0,
        };
        let wide = if small.is_some() && was_small { 0 } else { values.len() + grown };
        self.room(values.len(), wide)?;
        let Some(list) = self.heap.lists.get_mut(id as usize) else { return Err(self.bad("a list that is gone")) };
        match (&mut *list, small) {
            (List::Small(numbers), Some(more)) => numbers.extend(more),
            (List::Any(items), _) => items.extend_from_slice(values),
            (List::Small(numbers), None) => {
                let mut items: Vec<Value<'a>> = numbers.iter().map(|n| Value::Int(i64::from(*n))).collect();
                items.extend_from_slice(values);
                *list = List::Any(items);
            }
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[Value<'a>]) -> Result<()> {
        let Value::Dict(id) = self.top()? else {
            return Err(self.bad("sets entries of something that is not a dictionary"));
        };
        let (pairs, rest) = pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.bad("a key without a value"));
        }
        self.room(pairs.len() * 2, pairs.len() * 2)?;
        let Some(dict) = self.heap.dicts.get_mut(id as usize) else {
            return Err(self.bad("a dictionary that is gone"));
        };
        dict.extend(pairs.iter().map(|[k, v]| (*k, *v)));
        Ok(())
    }

    fn remember(&mut self, index: u64) -> Result<()> {
        let index = usize::try_from(index).ok().filter(|i| *i < MAX_MEMO);
        let index = index.ok_or_else(|| self.bad(format!("remembers a value beyond place {MAX_MEMO}")))?;
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        let value = self.top()?;
        if let Some(place) = self.memo.get_mut(index) {
            *place = Some(value);
        }
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<()> {
        let value = usize::try_from(index).ok().and_then(|i| self.memo.get(i).copied().flatten());
        let value = value.ok_or_else(|| self.bad(format!("nothing is remembered at place {index}")))?;
        self.push(value)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(512).position(|b| *b == b'\n').ok_or_else(|| self.bad("its line does not end"))?;
        let line = self.bytes(end + 1)?;
        self.utf8(line.get(..end).unwrap_or_default())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let Some(global) = global::find(module, name) else {
            let name = format!("{}.{}", shown(module), shown(name));
            return Err(FormatError::PickleGlobal { file: self.file.into(), name, offset: self.base + self.start });
        };
        self.push(Value::Global(global))
    }

    /// Runs to `STOP` and gives the value.
    ///
    /// # Errors
    /// [`FormatError::PickleOp`], [`FormatError::PickleGlobal`].
    pub(super) fn run(&mut self) -> Result<Value<'a>> {
        loop {
            self.start = self.at;
            self.op = *self.data.get(self.at).ok_or_else(|| {
                let why = "the pickle ends without a STOP".into();
                FormatError::PickleOp { file: self.file.into(), op: "end".into(), offset: self.base + self.at, why }
            })?;
            self.at += 1;
            if self.op == b'.' {
                let value = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(self.bad("values are left on the stack"));
                }
                return Ok(value);
            }
            self.step()?;
        }
    }

    fn step(&mut self) -> Result<()> {
        match self.op {
            0x80 => match self.number::<1>()? {
                2..=5 if self.start == 0 => Ok(()),
                n => Err(self.bad(format!("protocol {n}, or a protocol in the middle; 2 to 5 are read"))),
            },
            0x95 => match self.number::<8>()? {
                n if n <= (self.data.len() - self.at) as u64 => Ok(()),
                n => Err(self.bad(format!("a frame of {n} bytes leaves the pickle"))),
            },
            b'(' => {
                if self.marks.len() >= MAX_STACK {
                    return Err(self.bad(format!("more than {MAX_STACK} marks")));
                }
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let n = self.number::<4>()?;
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_possible_wrap,
                    reason = "BININT is signed, 4 bytes"
                )]
                self.push(Value::Int(i64::from(n as u32 as i32)))
            }
            b'K' => self.number::<1>().and_then(|n| self.push(Value::Int(n.cast_signed()))),
            b'M' => self.number::<2>().and_then(|n| self.push(Value::Int(n.cast_signed()))),
            0x8a => {
                let bytes = self.counted::<1>()?;
                if bytes.len() > 8 {
                    return Err(self.bad(format!("a number of {} bytes; 8 at most are read", bytes.len())));
                }
                let mut wide = [if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }; 8];
                wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                self.push(Value::Int(i64::from_le_bytes(wide)))
            }
            b'G' => self.bytes(8).and_then(|_| self.push(Value::Float)),
            b'X' => self.counted::<4>().and_then(|b| self.utf8(b)).and_then(|t| self.push(Value::Text(t))),
            0x8c => self.counted::<1>().and_then(|b| self.utf8(b)).and_then(|t| self.push(Value::Text(t))),
            0x8d => self.counted::<8>().and_then(|b| self.utf8(b)).and_then(|t| self.push(Value::Text(t))),
            // Python 2's texts.
            b'T' => self.counted::<4>().and_then(|b| self.utf8(b)).and_then(|t| self.push(Value::Text(t))),
            b'U' => self.counted::<1>().and_then(|b| self.utf8(b)).and_then(|t| self.push(Value::Text(t))),
            b'B' => self.counted::<4>().and_then(|b| self.push(Value::Bytes(b))),
            b'C' => self.counted::<1>().and_then(|b| self.push(Value::Bytes(b))),
            b'}' => {
                self.room(0, 0)?;
                let id = put(&mut self.heap.dicts, Vec::new());
                self.push(Value::Dict(id))
            }
            b']' => {
                self.room(0, 0)?;
                let id = put(&mut self.heap.lists, List::Small(Vec::new()));
                self.push(Value::List(id))
            }
            b')' => self.tuple(Vec::new()),
            b't' => self.since_mark().and_then(|items| self.tuple(items)),
            0x85 => self.tuple_of(1),
            0x86 => self.tuple_of(2),
            0x87 => self.tuple_of(3),
            b'a' => {
                let value = self.pop()?;
                self.append(&[value])
            }
            b'e' => self.since_mark().and_then(|values| self.append(&values)),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])
            }
            b'u' => self.since_mark().and_then(|pairs| self.set(&pairs)),
            b'q' => self.number::<1>().and_then(|i| self.remember(i)),
            b'r' => self.number::<4>().and_then(|i| self.remember(i)),
            0x94 => self.remember(self.memo.len() as u64),
            b'h' => self.number::<1>().and_then(|i| self.recall(i)),
            b'j' => self.number::<4>().and_then(|i| self.recall(i)),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module, name) {
                    (Value::Text(module), Value::Text(name)) => self.global(module, name),
                    _ => Err(self.bad("a global whose name is not text")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let value = self.persistent(id)?;
                self.push(value)
            }
            b'R' => {
                let (args, function) = (self.pop()?, self.pop()?);
                let (Value::Global(function), Value::Tuple(args)) = (function, args) else {
                    return Err(self.bad("calls something that is not a global, or without a tuple of arguments"));
                };
                let value = self.apply(function, args)?;
                self.push(value)
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)
            }
            _ => Err(self.bad("this opcode is not one that builds tensors")),
        }
    }
}

/// An opcode's name, as `pickletools` has it, for those that a message is likely to be about.
fn opcode(op: u8) -> String {
    let name = match op {
        b'.' => "STOP",
        b'(' => "MARK",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        b'R' => "REDUCE",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'a' => "APPEND",
        b'b' => "BUILD",
        b'c' => "GLOBAL",
        b'e' => "APPENDS",
        b'g' => "GET",
        b'h' => "BINGET",
        b'i' => "INST",
        b'j' => "LONG_BINGET",
        b'o' => "OBJ",
        b'p' => "PUT",
        b'q' => "BINPUT",
        b'r' => "LONG_BINPUT",
        b's' => "SETITEM",
        b'u' => "SETITEMS",
        b'X' => "BINUNICODE",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8a => "LONG1",
        0x8b => "LONG4",
        0x8f => "ADDITEMS",
        0x90 => "FROZENSET",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return format!("{op:#04x}"),
    };
    name.into()
}
