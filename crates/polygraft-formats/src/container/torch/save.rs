//! Writes what composable-sft saves, as `torch.save` does: a pickle of protocol 2 in a zip archive that is not compressed.

use super::diff::Diff;
use super::zip::crc32;

/// What is saved: differences with their values, and parameters that stand for the base's with their shapes.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) diffs: Vec<(Diff<()>, Vec<f32>)>,
    pub(crate) abs: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Saved {
    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut pickle = Pickle { out: vec![0x80, 2], storages: Vec::new() };
        pickle.dict(["diffs", "abs"], |p, key| {
            p.text(key);
            if key == "abs" {
                p.dict(&self.abs, |p, (name, shape, values)| {
                    p.text(name);
                    p.tensor(shape, values);
                });
                return;
            }
            p.dict(&self.diffs, |p, (diff, values)| {
                p.text(&diff.name);
                p.dict(["size", "index_steps", "values"], |p, part| {
                    p.text(part);
                    match part {
                        "size" => p.size(&diff.size),
                        "index_steps" => p.steps(&diff.places),
                        _ => p.tensor(&[values.len()], values),
                    }
                });
            });
        });
        pickle.out.push(b'.');
        let mut zip = Zip::default();
        zip.member("archive/data.pkl", &pickle.out);
        zip.member("archive/byteorder", b"little");
        for (i, storage) in pickle.storages.iter().enumerate() {
            zip.member(&format!("archive/data/{i}"), storage);
        }
        zip.member("archive/version", b"3\n");
        zip.end()
    }
}

/// A pickle being written, and the numbers of its tensors.
struct Pickle {
    out: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Pickle {
    fn dict<T: Copy>(&mut self, entries: impl IntoIterator<Item = T>, entry: impl Fn(&mut Self, T)) {
        self.out.extend(b"}(");
        entries.into_iter().for_each(|e| entry(self, e));
        self.out.push(b'u');
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'X');
        self.out.extend((text.len() as u32).to_le_bytes());
        self.out.extend(text.as_bytes());
    }

    fn whole(&mut self, n: u64) {
        match (u8::try_from(n), i32::try_from(n)) {
            (Ok(n), _) => self.out.extend([b'K', n]),
            (_, Ok(n)) => {
                self.out.push(b'J');
                self.out.extend(n.to_le_bytes());
            }
            // LONG1: its bytes with room for the sign.
            _ => {
                self.out.extend([0x8a, 9]);
                self.out.extend(n.to_le_bytes());
                self.out.push(0);
            }
        }
    }

    /// A tuple of whole numbers.
    fn tuple(&mut self, numbers: &[usize]) {
        self.out.push(b'(');
        numbers.iter().for_each(|n| self.whole(*n as u64));
        self.out.push(b't');
    }

    fn size(&mut self, size: &[usize]) {
        self.out.extend(b"ctorch\nSize\n");
        self.tuple(size);
        self.out.extend(b"\x85R");
    }

    fn steps(&mut self, places: &[u64]) {
        self.out.extend(b"](");
        let mut before = 0;
        for place in places {
            self.whole(place - before);
            before = *place;
        }
        self.out.push(b'e');
    }

    fn tensor(&mut self, shape: &[usize], values: &[f32]) {
        let key = self.storages.len().to_string();
        self.storages.push(crate::numbers::f32_bytes(values));
        self.out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.out.extend(b"ctorch\nFloatStorage\n");
        self.text(&key);
        self.text("cpu");
        self.whole(values.len() as u64);
        self.out.extend(b"tQK\0");
        self.tuple(shape);
        let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        self.tuple(&strides);
        // requires_grad: false; no hooks.
        self.out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
}

/// An archive being written; nothing in it is compressed.
#[derive(Default)]
struct Zip {
    out: Vec<u8>,
    directory: Vec<u8>,
    members: u16,
}

impl Zip {
    fn member(&mut self, name: &str, data: &[u8]) {
        let start = self.out.len() as u32;
        let mut fields = Vec::new();
        // Version 2.0, no flags, stored, no date, checksum, sizes, length of the name, no extra field.
        fields.extend([20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
        fields.extend(crc32(data).to_le_bytes());
        fields.extend((data.len() as u32).to_le_bytes());
        fields.extend((data.len() as u32).to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0, 0]);
        self.out.extend(b"PK\x03\x04");
        self.out.extend(&fields);
        self.out.extend(name.as_bytes());
        self.out.extend(data);
        self.directory.extend(b"PK\x01\x02\x14\0");
        self.directory.extend(&fields);
        self.directory.extend([0; 10]);
        self.directory.extend(start.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.members += 1;
    }

    fn end(mut self) -> Vec<u8> {
        let (start, len) = (self.out.len() as u32, self.directory.len() as u32);
        self.out.extend(&self.directory);
        self.out.extend(b"PK\x05\x06\0\0\0\0");
        self.out.extend(self.members.to_le_bytes());
        self.out.extend(self.members.to_le_bytes());
        self.out.extend(len.to_le_bytes());
        self.out.extend(start.to_le_bytes());
        self.out.extend([0, 0]);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::torch::{Diffs, diffs};

    #[test]
    fn what_is_saved_is_read() {
        let diff =
            Diff { name: "a.weight".into(), size: vec![2, 70_000], places: vec![1, 1, 300, 139_999], values: () };
        let saved = Saved {
            diffs: vec![(diff, vec![1.0, 2.0, 3.0, 4.0])],
            abs: vec![("b".into(), vec![2, 1], vec![5.0, 6.0])],
        };
        let bytes = saved.bytes();
        let Diffs { diffs, abs } = diffs("f", &bytes).unwrap().unwrap();
        assert_eq!(
            (diffs[0].size.as_slice(), diffs[0].places.as_slice()),
            (&[2, 70_000][..], &[1, 1, 300, 139_999][..])
        );
        assert_eq!((diffs[0].values.shape.as_slice(), abs[0].1.shape.as_slice()), (&[4][..], &[2, 1][..]));
        let at = |offset: usize, n: usize| {
            crate::numbers::floats(crate::container::Dtype::F32, &bytes[offset..offset + 4 * n])
        };
        assert_eq!(at(diffs[0].values.offset, 4).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(at(abs[0].1.offset, 2).unwrap(), [5.0, 6.0]);
    }
}
