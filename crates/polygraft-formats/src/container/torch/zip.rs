//! The zip archives that torch writes: stored members, read from the central directory, which must agree with every
//! local header and leave room for nothing else.
//!
//! Readers that disagree about an archive are how one is passed off as another (picklescan's bypasses): here there is
//! one way to read it or none. A comment, a second end record, bytes before, between or after the members, a name
//! that could leave a folder, compression and encryption are refused.

use crate::error::{FormatError, Result, shown};
use std::collections::BTreeMap;
use std::ops::Range;

/// Most members: torch writes one a tensor.
const MAX_MEMBERS: u64 = 200_000;
/// Longest name.
const MAX_NAME: usize = 1024;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";

/// Sizes come after the data, in a descriptor.
const DEFERRED: u16 = 1 << 3;
/// The name is UTF-8.
const UTF8: u16 = 1 << 11;

/// Where each member's bytes lie, by name.
///
/// # Errors
/// [`FormatError::Zip`].
pub(super) fn members(file: &str, data: &[u8]) -> Result<BTreeMap<String, Range<usize>>> {
    let archive = Archive { file, data };
    let (entries, directory) = archive.end()?;
    let mut out = BTreeMap::new();
    let mut spans = Vec::with_capacity(entries.len());
    for entry in entries {
        let (range, span) = archive.local(&entry, directory.start)?;
        spans.push(span);
        let name = shown(&entry.name);
        if out.insert(entry.name, range).is_some() {
            return Err(archive.bad(format!("member {name:?} occurs twice")));
        }
    }
    spans.sort_by_key(|s| s.start);
    let mut at = 0;
    for span in spans {
        if span.start != at {
            let kind = if span.start < at { "overlap" } else { "leave a hole" };
            return Err(archive.bad(format!("its members {kind} at byte {}", span.start.min(at))));
        }
        at = span.end;
    }
    if at != directory.start {
        return Err(archive.bad(format!("{} bytes before its directory belong to no member", directory.start - at)));
    }
    Ok(out)
}

struct Archive<'a> {
    file: &'a str,
    data: &'a [u8],
}

/// A row of the central directory.
struct Entry {
    name: String,
    flags: u16,
    crc: u32,
    size: usize,
    offset: usize,
}

/// A record's fields in order; past the end everything reads as nothing, which no check accepts.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|b| u16::from_le_bytes(*b))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|b| u32::from_le_bytes(*b))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|b| u64::from_le_bytes(*b))
    }
}

/// Size, compressed size and offset of a member, from 32-bit fields and the zip64 extra field that overrides those
/// which are all ones.
fn wide(mut fields: [u64; 3], extra: &[u8]) -> Option<[u64; 3]> {
    const ONES: u64 = u32::MAX as u64;
    if !fields.contains(&ONES) {
        return Some(fields);
    }
    let mut extra = Fields(extra);
    loop {
        let (id, len) = (extra.u16()?, extra.u16()?);
        let mut body = Fields(extra.take(usize::from(len))?);
        if id == 1 {
            for field in fields.iter_mut().filter(|f| **f == ONES) {
                *field = body.u64()?;
            }
            return Some(fields);
        }
    }
}

impl<'a> Archive<'a> {
    fn bad(&self, why: impl Into<String>) -> FormatError {
        FormatError::Zip { file: self.file.into(), why: why.into() }
    }

    fn at(&self, start: u64) -> Fields<'a> {
        Fields(usize::try_from(start).ok().and_then(|s| self.data.get(s..)).unwrap_or_default())
    }

    /// The central directory: its rows and where it lies.
    fn end(&self) -> Result<(Vec<Entry>, Range<usize>)> {
        let cut = || self.bad("it has no end record in its last 22 bytes: cut off, or followed by something else");
        let mut end = self.data.len().checked_sub(22).ok_or_else(cut)?;
        let mut record = self.at(end as u64);
        if record.take(4) != Some(END) || self.data.get(end + 20..) != Some(&[0, 0]) {
            return Err(cut());
        }
        let disks = (record.u16(), record.u16());
        let mut counts = [record.u16().map(u64::from), record.u16().map(u64::from)];
        let mut size = record.u32().map(u64::from);
        let mut offset = record.u32().map(u64::from);
        if disks != (Some(0), Some(0)) {
            return Err(self.bad("it is one part of an archive in several files"));
        }
        let locator = end.checked_sub(20).filter(|l| self.at(*l as u64).take(4) == Some(LOCATOR64));
        if let Some(locator) = locator {
            // The 64-bit end record lies right before its locator, and says so.
            let start = locator.checked_sub(56).ok_or_else(cut)?;
            let mut l = self.at(locator as u64 + 4);
            let mut r = self.at(start as u64);
            let placed = (l.u32(), l.u64(), l.u32()) == (Some(0), Some(start as u64), Some(1));
            if !placed || r.take(4) != Some(END64) || r.u64() != Some(44) {
                return Err(self.bad("its 64-bit end record is not where its locator says"));
            }
            let disks = (r.take(4), r.u32(), r.u32());
            if (disks.1, disks.2) != (Some(0), Some(0)) {
                return Err(self.bad("it is one part of an archive in several files"));
            }
            let wide = ([r.u64(), r.u64()], r.u64(), r.u64());
            let agrees = |narrow: Option<u64>, wide: Option<u64>, ones: u64| narrow == Some(ones) || narrow == wide;
            let same = agrees(counts[0], wide.0[0], 0xffff)
                && agrees(counts[1], wide.0[1], 0xffff)
                && agrees(size, wide.1, u64::from(u32::MAX))
                && agrees(offset, wide.2, u64::from(u32::MAX));
            if !same {
                return Err(self.bad("its two end records disagree"));
            }
            (counts, size, offset) = wide;
            end = start;
        }
        let (Some(size), Some(offset)) = (size, offset) else { return Err(cut()) };
        let directory =
            usize::try_from(offset).ok().filter(|s| offset.checked_add(size) == Some(end as u64) && *s <= end);
        let start = directory.ok_or_else(|| {
            self.bad(format!(
                "its directory of {size} bytes at byte {offset} does not end at its end record, byte {end}"
            ))
        })?;
        let count = match counts {
            [Some(a), Some(b)] if a == b && a <= MAX_MEMBERS => a,
            _ => return Err(self.bad(format!("it claims {} members; at most {MAX_MEMBERS}", counts[0].unwrap_or(0)))),
        };
        let mut rows = Fields(self.data.get(start..end).unwrap_or_default());
        let mut entries = Vec::new();
        for i in 0..count {
            let entry = self.entry(&mut rows)?;
            entries.push(entry.ok_or_else(|| self.bad(format!("its directory is damaged at member {i} of {count}")))?);
        }
        if !rows.0.is_empty() {
            return Err(self.bad(format!("{} bytes of its directory belong to no member", rows.0.len())));
        }
        Ok((entries, start..end))
    }

    fn entry(&self, rows: &mut Fields<'a>) -> Result<Option<Entry>> {
        let Some(raw) = row(rows) else { return Ok(None) };
        let Some(name) = std::str::from_utf8(raw.name).ok().filter(|n| usable(n)) else {
            let name = shown(&String::from_utf8_lossy(raw.name));
            return Err(self.bad(format!("the member name {name:?} is not one that is read")));
        };
        let bad = |why: String| self.bad(format!("member {:?} {why}", shown(name)));
        if raw.method != 0 {
            return Err(bad(format!("is compressed (method {}); torch stores its members as they are", raw.method)));
        }
        if raw.flags & !(DEFERRED | UTF8) != 0 {
            return Err(bad(format!("is encrypted or of an unknown kind (flags {:#06x})", raw.flags)));
        }
        let Some([size, packed, offset]) = wide(raw.sizes, raw.extra) else {
            return Err(bad("lacks its 64-bit sizes".into()));
        };
        if size != packed {
            return Err(bad(format!("takes {packed} bytes for {size}, though it is stored as it is")));
        }
        let inside = |n: u64| usize::try_from(n).ok().filter(|n| *n <= self.data.len());
        let (Some(size), Some(offset)) = (inside(size), inside(offset)) else {
            return Err(bad(format!(
                "of {size} bytes at byte {offset} is not in the file, which has {}",
                self.data.len()
            )));
        };
        Ok(Some(Entry { name: name.into(), flags: raw.flags, crc: raw.crc, size, offset }))
    }

    /// A member's data, and everything from its header to the next member.
    fn local(&self, entry: &Entry, directory: usize) -> Result<(Range<usize>, Range<usize>)> {
        let bad = |why: &str| self.bad(format!("member {:?} {why}", shown(&entry.name)));
        let Some(raw) = local_header(&mut self.at(entry.offset as u64)) else {
            return Err(bad("has no header where the directory says"));
        };
        if raw.name != entry.name.as_bytes() || raw.method != 0 || raw.flags != entry.flags {
            return Err(bad("has a header that disagrees with the directory"));
        }
        let size = entry.size as u64;
        let deferred = entry.flags & DEFERRED != 0;
        let sizes = wide([raw.sizes[0], raw.sizes[1], 0], raw.extra);
        let agree = match sizes {
            Some([0, 0, _]) if deferred => true,
            Some([a, b, _]) => a == size && b == size && raw.crc == entry.crc,
            None => false,
        };
        if !agree {
            return Err(bad("has a header that disagrees with the directory"));
        }
        let start = entry.offset + 30 + raw.name.len() + raw.extra.len();
        let end =
            start.checked_add(entry.size).filter(|e| *e <= directory).ok_or_else(|| bad("runs into the directory"))?;
        // torch can be told not to compute checksums, and then writes 0.
        let body = self.data.get(start..end).unwrap_or_default();
        if entry.crc != 0 && crc32(body) != entry.crc {
            return Err(bad("is damaged: its checksum is not the one that was stored"));
        }
        let after =
            if deferred { self.descriptor(entry, end).ok_or_else(|| bad("has a wrong data descriptor"))? } else { end };
        Ok((start..end, entry.offset..after))
    }

    /// Where a member's data descriptor ends: with or without its signature, in 32 or 64 bits.
    fn descriptor(&self, entry: &Entry, start: usize) -> Option<usize> {
        for (signed, wide) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut fields = self.at(start as u64);
            if signed && fields.take(4) != Some(DESCRIPTOR) {
                continue;
            }
            let size = |fields: &mut Fields<'_>| if wide { fields.u64() } else { fields.u32().map(u64::from) };
            let crc = fields.u32();
            let sizes = (size(&mut fields), size(&mut fields));
            let next = self.data.len() - fields.0.len();
            // What follows tells the two widths apart.
            let follows = fields.0.starts_with(LOCAL) || fields.0.starts_with(CENTRAL);
            if follows && crc == Some(entry.crc) && sizes == (Some(entry.size as u64), Some(entry.size as u64)) {
                return Some(next);
            }
        }
        None
    }
}

/// A header's fields, central or local.
struct Raw<'a> {
    flags: u16,
    method: u16,
    crc: u32,
    /// Size, compressed size, offset.
    sizes: [u64; 3],
    name: &'a [u8],
    extra: &'a [u8],
}

fn row<'a>(f: &mut Fields<'a>) -> Option<Raw<'a>> {
    if f.take(4)? != CENTRAL {
        return None;
    }
    f.take(4)?;
    let (flags, method) = (f.u16()?, f.u16()?);
    f.take(4)?;
    let crc = f.u32()?;
    let (packed, size) = (f.u32()?, f.u32()?);
    let (name, extra, comment, disk) = (f.u16()?, f.u16()?, f.u16()?, f.u16()?);
    f.take(6)?;
    let offset = f.u32()?;
    let (name, extra) = (f.take(usize::from(name))?, f.take(usize::from(extra))?);
    if comment != 0 || disk != 0 {
        return None;
    }
    Some(Raw { flags, method, crc, sizes: [size, packed, offset].map(u64::from), name, extra })
}

fn local_header<'a>(f: &mut Fields<'a>) -> Option<Raw<'a>> {
    if f.take(4)? != LOCAL {
        return None;
    }
    f.take(2)?;
    let (flags, method) = (f.u16()?, f.u16()?);
    f.take(4)?;
    let crc = f.u32()?;
    let (packed, size) = (f.u32()?, f.u32()?);
    let (name, extra) = (f.u16()?, f.u16()?);
    let (name, extra) = (f.take(usize::from(name))?, f.take(usize::from(extra))?);
    Some(Raw { flags, method, crc, sizes: [u64::from(size), u64::from(packed), 0], name, extra })
}

/// A relative path that stays where it is.
fn usable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.contains(['\\', ':', '\0'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// CRC-32 (ISO 3309), four bytes at a time.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const TABLES: [[u32; 256]; 4] = tables();
    let look = |t: usize, word: u32, shift: u32| TABLES[t][(word >> shift & 0xff) as usize];
    let (words, rest) = bytes.as_chunks::<4>();
    let crc = words.iter().fold(u32::MAX, |crc, w| {
        let x = crc ^ u32::from_le_bytes(*w);
        look(3, x, 0) ^ look(2, x, 8) ^ look(1, x, 16) ^ look(0, x, 24)
    });
    !rest.iter().fold(crc, |crc, b| look(0, crc ^ u32::from(*b), 0) ^ (crc >> 8))
}

const fn tables() -> [[u32; 256]; 4] {
    let mut out = [[0; 256]; 4];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (if crc & 1 == 1 { 0xedb8_8320 } else { 0 });
            bit += 1;
        }
        out[0][i] = crc;
        i += 1;
    }
    // Table t: a byte followed by t zeros.
    let mut i = 256;
    while i < 4 * 256 {
        let before = out[i / 256 - 1][i % 256];
        out[i / 256][i % 256] = out[0][(before & 0xff) as usize] ^ (before >> 8);
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_known_ones() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
