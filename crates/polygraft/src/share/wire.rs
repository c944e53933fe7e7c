//! Numbers as little-endian bytes, lists with their length in front.

use crate::error::{Error, Result};

/// Writes a message.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, value: f32) {
        self.0.extend(value.to_le_bytes());
    }

    /// A length or an index: no message comes near 2³² of anything.
    pub(super) fn size(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.size(items.len());
        items.iter().for_each(|item| each(self, item));
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, each: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            each(self, value);
        }
    }

    pub(super) fn bytes(&mut self, values: &[u8]) {
        self.size(values.len());
        self.0.extend(values);
    }

    pub(super) fn u16s(&mut self, values: &[u16]) {
        self.size(values.len());
        self.0.reserve(values.len() * 2);
        values.iter().for_each(|v| self.u16(*v));
    }

    pub(super) fn u32s(&mut self, values: &[u32]) {
        self.size(values.len());
        self.0.reserve(values.len() * 4);
        values.iter().for_each(|v| self.u32(*v));
    }

    pub(super) fn f32s(&mut self, values: &[f32]) {
        self.size(values.len());
        let start = self.0.len();
        self.0.resize(start + values.len() * 4, 0);
        let (places, _) = self.0[start..].as_chunks_mut::<4>();
        places.iter_mut().zip(values).for_each(|(place, v)| *place = v.to_le_bytes());
    }
}

/// Reads a message; nothing in it is trusted.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*first)
    }

    fn values<const N: usize, T>(&mut self, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let count = self.count(N)?;
        let (here, rest) = self.rest.split_at(count * N);
        self.rest = rest;
        let (chunks, _) = here.as_chunks::<N>();
        Ok(chunks.iter().map(|c| read(*c)).collect())
    }

    /// A list's length, when what is left can hold as many items of at least `size` bytes.
    fn count(&mut self, size: usize) -> Result<usize> {
        let count = self.size()?;
        if count > self.rest.len() / size.max(1) { Err(cut()) } else { Ok(count) }
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(broken(&format!("{} bytes too many", self.rest.len()))) }
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(broken(&format!("a flag is {other}"))),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> Result<f32> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn size(&mut self) -> Result<usize> {
        Ok(self.u32()? as usize)
    }

    /// Items of at least `size` bytes each.
    pub(super) fn list<T>(&mut self, size: usize, mut each: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count(size)?;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(each(self)?);
        }
        Ok(out)
    }

    pub(super) fn option<T>(&mut self, each: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.flag()? { each(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>> {
        self.values(|[b]: [u8; 1]| b)
    }

    pub(super) fn u16s(&mut self) -> Result<Vec<u16>> {
        self.values(u16::from_le_bytes)
    }

    pub(super) fn u32s(&mut self) -> Result<Vec<u32>> {
        self.values(u32::from_le_bytes)
    }

    pub(super) fn f32s(&mut self) -> Result<Vec<f32>> {
        self.values(f32::from_le_bytes)
    }
}

/// A message that is not one: both ends are of this library, so it is a defect.
pub(super) fn broken(why: &str) -> Error {
    Error::Program(format!("a message between threads cannot be read: {why}"))
}

fn cut() -> Error {
    broken("it ends early")
}
