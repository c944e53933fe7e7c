//! Texts to rows: special tokens, prompts, cutting, pairs and windows. The tokenizer itself is behind a trait.

use crate::batch::Row;
use crate::error::Result;
use crate::model::ModelSpec;

/// Text to token ids, without special tokens around it.
pub trait Tokenizer {
    /// Encodes `text` as it is: no prompt, no cutting.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
}

/// The tokenizer of a base that reads images: it refuses every text.
#[derive(Debug, Clone, Copy)]
pub struct Wordless;

impl Tokenizer for Wordless {
    fn encode(&self, _text: &str) -> Result<Vec<u32>> {
        let why = "this base reads images and no text: give it pixels".into();
        Err(crate::Error::Argument { what: "text".into(), why })
    }
}

/// A row made from text.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// What is run.
    pub row: Row,
    /// Tokens that did not fit.
    pub dropped: usize,
    /// Whether some of them were the first text's of two.
    pub first_cut: bool,
}

/// One text with special tokens, cut to `limit` tokens: `<s> A </s>`, `[CLS] A [SEP]`.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn single(spec: &ModelSpec, tokenizer: &dyn Tokenizer, text: &str, limit: usize) -> Result<Cut> {
    let ids = tokenizer.encode(text)?;
    let keep = ids.len().min(limit.saturating_sub(2));
    Ok(Cut { row: wrap(spec, &ids[..keep]), dropped: ids.len() - keep, first_cut: false })
}

/// Two texts in one row, cut to `limit` tokens from whichever is longer: `<s> A </s></s> B </s>`, `[CLS] A [SEP] B [SEP]`.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn pair(spec: &ModelSpec, tokenizer: &dyn Tokenizer, a: &str, b: &str, limit: usize) -> Result<Cut> {
    let (a, b) = (tokenizer.encode(a)?, tokenizer.encode(b)?);
    let separators = spec.pair.separators;
    let room = limit.saturating_sub(2 + separators);
    let (keep_a, keep_b) = longest_first(a.len(), b.len(), room);
    let dropped = a.len() + b.len() - keep_a - keep_b;
    Ok(Cut { row: join(spec, &a[..keep_a], &b[..keep_b]), dropped, first_cut: keep_a < a.len() })
}

/// One text in as many rows as it needs: each repeats `prompt` and shares a quarter of its text with the one before.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn windows(
    spec: &ModelSpec,
    tokenizer: &dyn Tokenizer,
    prompt: &str,
    text: &str,
    limit: usize,
) -> Result<Vec<Row>> {
    let whole = single(spec, tokenizer, &format!("{prompt}{text}"), limit)?;
    if whole.dropped == 0 {
        return Ok(vec![whole.row]);
    }
    let prompt = tokenizer.encode(prompt)?;
    let spans = spans(tokenizer.encode(text)?, limit.saturating_sub(2 + prompt.len()));
    Ok(spans.iter().map(|span| wrap(spec, &[prompt.as_slice(), span].concat())).collect())
}

/// A pair in as many rows as the passage needs; the query is kept whole, up to half of the row, and whether it was cut.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn pair_windows(
    spec: &ModelSpec,
    tokenizer: &dyn Tokenizer,
    a: &str,
    b: &str,
    limit: usize,
) -> Result<(Vec<Row>, bool)> {
    let room = limit.saturating_sub(2 + spec.pair.separators);
    let mut a = tokenizer.encode(a)?;
    let cut = a.len() > room / 2;
    a.truncate(room / 2);
    let spans = spans(tokenizer.encode(b)?, room - a.len());
    Ok((spans.iter().map(|span| join(spec, &a, span)).collect(), cut))
}

/// How many tokens each side keeps: only the longer is cut while the other fits in half, as `tokenizers` does it.
fn longest_first(a: usize, b: usize, room: usize) -> (usize, usize) {
    if a + b <= room {
        return (a, b);
    }
    let short = a.min(b);
    let (short, long) = if short <= room / 2 { (short, room - short) } else { (room / 2, room / 2 + room % 2) };
    if a > b { (long, short) } else { (short, long) }
}

fn spans(ids: Vec<u32>, size: usize) -> Vec<Vec<u32>> {
    let size = size.max(1);
    let step = (size - size / 4).max(1);
    let mut out = Vec::new();
    let mut start = 0;
    loop {
        let end = (start + size).min(ids.len());
        out.push(ids[start..end].to_vec());
        if end == ids.len() {
            return out;
        }
        start += step;
    }
}

fn wrap(spec: &ModelSpec, ids: &[u32]) -> Row {
    let mut out = Vec::with_capacity(ids.len() + 2);
    out.push(spec.special.first);
    out.extend(ids);
    out.push(spec.special.separator);
    out.into()
}

fn join(spec: &ModelSpec, a: &[u32], b: &[u32]) -> Row {
    let Row { mut ids, .. } = wrap(spec, a);
    let first = ids.len();
    ids.extend(std::iter::repeat_n(spec.special.separator, spec.pair.separators - 1));
    ids.extend(b);
    ids.push(spec.special.separator);
    let types = (0..ids.len()).map(|i| u32::from(i >= first));
    let token_types = if spec.pair.types { types.collect() } else { Vec::new() };
    Row { ids, token_types, pixels: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_cut_from_the_longer_side() {
        for (a, b, room, want) in [
            (3, 4, 10, (3, 4)),
            (3, 40, 10, (3, 7)),
            (40, 3, 10, (7, 3)),
            (40, 40, 10, (5, 5)),
            (40, 40, 11, (5, 6)),
            (41, 40, 11, (6, 5)),
            (5, 6, 10, (5, 5)),
        ] {
            assert_eq!(longest_first(a, b, room), want, "{a} {b} {room}");
        }
    }

    #[test]
    fn windows_cover_everything() {
        let ids: Vec<u32> = (0..100).collect();
        let spans = spans(ids.clone(), 16);
        assert_eq!(spans.first().unwrap()[0], 0);
        assert_eq!(*spans.last().unwrap().last().unwrap(), 99);
        assert!(spans.windows(2).all(|w| w[1][0] <= *w[0].last().unwrap()));
        assert_eq!(super::spans(Vec::new(), 16), vec![Vec::<u32>::new()]);
    }
}
