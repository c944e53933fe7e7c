//! `tokenize`: a JSON array of ids a line, special tokens included; no prompt, no cutting.

use crate::args::Tokenize;
use crate::error::Result;
use crate::{files, load};
use polygraft::text;
use std::io::Write;

pub(crate) fn run(args: &Tokenize) -> Result<()> {
    let (spec, tokenizer) = load::tokenizer(&args.base)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in files::lines(&args.input)? {
        let row = text::single(&spec, &tokenizer, &line, usize::MAX)?.row;
        let ids: Vec<String> = row.ids.iter().map(ToString::to_string).collect();
        writeln!(out, "[{}]", ids.join(", ")).map_err(files::io("stdout".as_ref()))?;
    }
    out.flush().map_err(files::io("stdout".as_ref()))
}
