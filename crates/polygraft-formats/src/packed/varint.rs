//! Whole numbers as the steps between them, each in as few bytes as it needs: places in ascending order, as sparse updates
//! have them, take one byte each where they lie less than 64 apart.
//!
//! A step is zigzag coded (0, −1, 1, −2, … → 0, 1, 2, 3, …) and written in groups of seven bits, lowest first, the highest
//! bit of a byte saying that another follows (LEB128, as in Protocol Buffers).

/// Appends `values` to `out`.
pub(super) fn write(values: &[i64], out: &mut Vec<u8>) {
    let mut before = 0i64;
    for value in values {
        let step = value.wrapping_sub(before);
        let mut left = ((step << 1) ^ (step >> 63)).cast_unsigned();
        before = *value;
        while left >= 0x80 {
            out.push(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        out.push(left.to_le_bytes()[0]);
    }
}

/// The first `count` numbers of `bytes`, and how many bytes they take.
///
/// # Errors
/// Why there are not as many.
pub(super) fn read(bytes: &[u8], count: usize) -> Result<(Vec<i64>, usize), &'static str> {
    // A number has a byte at least: a lying count asks for no memory.
    if count > bytes.len() {
        return Err("has more numbers than there are bytes left: it is cut off");
    }
    let mut values = Vec::with_capacity(count);
    let (mut before, mut at) = (0i64, 0);
    for _ in 0..count {
        let (mut left, mut shift) = (0u64, 0);
        loop {
            let byte = bytes.get(at).ok_or("ends in the middle of a number: it is cut off")?;
            let part = u64::from(byte & 0x7f);
            if shift > 63 || part << shift >> shift != part {
                return Err("has a number beyond 64 bits");
            }
            left |= part << shift;
            (at, shift) = (at + 1, shift + 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let step = (left >> 1).cast_signed() ^ -(left & 1).cast_signed();
        before = before.wrapping_add(step);
        values.push(before);
    }
    Ok((values, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let values = [0, 5, 5, 68, 70, -1, i64::MAX, i64::MIN, 3, -3];
        let mut bytes = Vec::new();
        write(&values, &mut bytes);
        assert_eq!(read(&bytes, values.len()), Ok((values.to_vec(), bytes.len())));
        bytes.push(9);
        assert_eq!(read(&bytes, values.len()).unwrap().1, bytes.len() - 1);
        let mut near = Vec::new();
        write(&[10, 20, 83, 147], &mut near);
        assert_eq!(near, [20, 20, 126, 0x80, 1]);
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        assert!(read(&[0x80], 1).unwrap_err().contains("middle"));
        assert!(read(&[1], usize::MAX).unwrap_err().contains("more numbers"));
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], 1).unwrap_err().contains("64 bits"));
        assert!(read(&[0x80; 12], 1).unwrap_err().contains("64 bits"));
        assert_eq!(read(&[], 0), Ok((Vec::new(), 0)));
    }
}
