//! Word embeddings of an adapter's own (`save_embeddings`): `embedding.pt`, one table, and `tokenizer/` where the tokenizer was
//! saved with it. The library makes the table the model's input embeddings; a language model's output layer stays.
//!
//! Rows of the table are numbered by the adapter's tokenizer, and a base has one tokenizer here: its texts are for tables of
//! the base's own size that no tokenizer lies beside, or of which an option says that it is the base's. Rows of ids run on
//! every table.

use super::reading::Reading;
use crate::adapter::{AdapterOptions, TokenizerForm};
use crate::bag::TensorBag;
use crate::change::OwnTable;
use crate::container::torch;
use crate::error::{FormatError, Result};
use crate::source::{ADAPTER, Files};
use polygraft::ir::{Op, Rewording, Site};

/// The file.
pub(crate) const FILE: &str = "embedding.pt";
const TOKENIZER: &str = "tokenizer/";

/// Reads the table of a folder, if it has one.
pub(super) fn read(r: &mut Reading<'_>, files: &dyn Files, options: &AdapterOptions) -> Result<()> {
    let same = options.tokenizer == Some(TokenizerForm::Base);
    let argument = |why: String| Err(FormatError::Argument { what: "tokenizer".into(), why });
    if !files.has(FILE) {
        return if same {
            argument(format!("this adapter has no words of its own ({FILE}): leave the option out"))
        } else {
            Ok(())
        };
    }
    let bad = |why: String| FormatError::Header { file: FILE.into(), why };
    if r.spec.image.is_some() {
        return Err(bad("these are embeddings of words, and the base reads images".into()));
    }
    let data = files.read(FILE, ADAPTER)?;
    let table = torch::tensor(FILE, &data)?;
    let mut bag = TensorBag::of(FILE, data, [(FILE.to_owned(), table)]);
    let Some(&[rows, width]) = bag.shape(FILE) else {
        return Err(bad("it is no table: save_embeddings writes one of a row a word".into()));
    };
    if rows == 0 || width != r.spec.embedding {
        let why = format!("it has {rows} words of {width} numbers, the base's have {}", r.spec.embedding);
        return Err(bad(why));
    }
    if same && rows != r.spec.vocab {
        return argument(format!(
            "the base's numbers {} words, and {FILE} has {rows}: leave the option out",
            r.spec.vocab
        ));
    }
    r.rows.own_words = rows != r.spec.vocab || (!same && files.names().iter().any(|n| n.starts_with(TOKENIZER)));
    if let Some(matrix) = bag.matrix(FILE, rows, width)? {
        r.patch(Site::Word, Op::Rewording(Rewording::new(OwnTable(matrix))));
    }
    Ok(())
}
