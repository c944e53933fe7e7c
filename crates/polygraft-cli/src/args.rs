//! The grammar of the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use polygraft::Compose;
use polygraft_formats::combine::{Kind, Majority};
use std::path::PathBuf;

/// Many adapters, one small model: inspect, run, measure and convert.
#[derive(Debug, Parser)]
#[command(name = "polygraft", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What a file or folder is: base, adapter or index; its tensors, and what is unused.
    Inspect(Inspect),
    /// Token ids of each line of a text file, as JSON arrays.
    Tokenize(Tokenize),
    /// Hidden states and logits for rows of token ids, or images: the conformance interface.
    Forward(Forward),
    /// L2-normalised sentence embeddings of each line of a text file.
    Embed(Embed),
    /// Rank passages (one a line) by their relevance to a query.
    Rerank(Rerank),
    /// Make a language vector from unlabelled passages (one a line).
    Center(Center),
    /// Ranking quality on a BEIR folder: corpus.jsonl, queries.jsonl, qrels/test.tsv.
    Eval(Eval),
    /// What runs, layer by layer: for which rows, from which adapter, at what cost.
    Explain(Explain),
    /// Convert a base to 4, 8 or 16 bits.
    Quantize(Quantize),
    /// Write a base with a composition merged into its weights.
    Merge(Merge),
    /// Make one adapter of several: PEFT's weighted combinations, and averages.
    Combine(Combine),
    /// Make one small file of an adapter's folder: its matrices in codes of 1, 2, 4 or 8 bits.
    Pack(Pack),
    /// Give back the folder of a packed adapter, for PEFT or AdapterHub to load.
    Unpack(Unpack),
}

/// Where numbers are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// Naive f32: the oracle.
    Reference,
    /// SIMD.
    Cpu,
    /// WebGPU's native twin.
    Gpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionName {
    /// f32 activations.
    Exact,
    /// 8-bit activations into quantized layers.
    Fast,
}

/// How to compute.
#[derive(Debug, Clone, Args)]
pub(crate) struct Compute {
    /// Where numbers are computed; without that backend the command fails, it never takes another.
    #[arg(long, value_enum, default_value = "cpu")]
    pub(crate) backend: BackendName,
    /// exact: f32 activations (default for float bases and on `reference`); fast: 8-bit (default for quantized bases).
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
}

/// A base with adapters.
#[derive(Debug, Clone, Args)]
pub(crate) struct Model {
    /// The base model's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: PathBuf,
    /// An adapter to load, by the name that compositions use. Repeatable.
    #[arg(long = "adapter", value_name = "NAME=PATH")]
    pub(crate) adapters: Vec<String>,
    /// An option of an adapter, such as rank.allow_base_mismatch=true. Repeatable.
    #[arg(long = "adapter-option", value_name = "NAME.KEY=VALUE")]
    pub(crate) adapter_options: Vec<String>,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

/// Compositions for the two sides of a ranking.
#[derive(Debug, Clone, Args)]
pub(crate) struct SideArgs {
    /// Composition for queries and passages: a name, stack(hu, rank), sum(a:0.5, b:0.5), base …
    #[arg(long, value_name = "C")]
    pub(crate) compose: Option<Compose>,
    /// Composition for the query alone.
    #[arg(long, value_name = "C", conflicts_with = "compose")]
    pub(crate) query_compose: Option<Compose>,
    /// Composition for the passages alone.
    #[arg(long, value_name = "C", conflicts_with = "compose")]
    pub(crate) doc_compose: Option<Compose>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A folder or a single file.
    pub(crate) path: PathBuf,
    /// The base that an adapter is for: shows what it changes, layer by layer, and what of it is unused.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tokenize {
    /// The base model's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: PathBuf,
    /// One text a line; lines end in LF only, an empty line is a row.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// JSON: base, adapters, compose, row_compose, rows, token_types or pixels; paths are relative to it.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: PathBuf,
    /// A safetensors file: last_hidden_state.I and logits.I for row I.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) compute: Compute,
}

#[derive(Debug, Args)]
pub(crate) struct Embed {
    #[command(flatten)]
    pub(crate) model: Model,
    /// One text a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Put before each text, such as "query: ".
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Composition for all texts.
    #[arg(long, value_name = "C")]
    pub(crate) compose: Option<Compose>,
    /// A safetensors file with the tensor `embeddings` [n, H].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Rerank {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) sides: SideArgs,
    /// The query, without a prompt: the base's own is put before it.
    #[arg(long)]
    pub(crate) query: String,
    /// One passage a line; `index` counts from 0.
    #[arg(long, value_name = "FILE")]
    pub(crate) passages: PathBuf,
    /// How many results.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
    /// Split long passages into windows and take the best, instead of cutting them.
    #[arg(long)]
    pub(crate) windows: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Center {
    #[command(flatten)]
    pub(crate) model: Model,
    /// The composition that the vector will stand beside, without language vectors.
    #[arg(long, value_name = "C")]
    pub(crate) compose: Option<Compose>,
    /// Passages in the language, one a line; a hundred do.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The language's BCP 47 tag.
    #[arg(long, value_name = "TAG")]
    pub(crate) lang: String,
    /// Passages in the pivot language, onto whose mean the language is shifted: its own texts then need no adapter.
    /// Without it every language, also that of the queries, is centred by a vector of its own.
    #[arg(long, value_name = "FILE")]
    pub(crate) pivot: Option<PathBuf>,
    /// The adapter to write: one file of 2 KB, or of 3 KB without a pivot.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Eval {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) sides: SideArgs,
    /// A BEIR folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) collection: PathBuf,
    /// JSON {"hu": "hu", "en": "base"}: composition by a row's `lang`, for queries and passages alike.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compose", "query_compose", "doc_compose"])]
    pub(crate) by_lang: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A forward request; or give --base and a composition.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["base", "adapters", "compose"])]
    pub(crate) request: Option<PathBuf>,
    /// The base model's folder.
    #[arg(long, value_name = "DIR", required_unless_present = "request")]
    pub(crate) base: Option<PathBuf>,
    /// An adapter to load. Repeatable.
    #[arg(long = "adapter", value_name = "NAME=PATH")]
    pub(crate) adapters: Vec<String>,
    /// An option of an adapter. Repeatable.
    #[arg(long = "adapter-option", value_name = "NAME.KEY=VALUE")]
    pub(crate) adapter_options: Vec<String>,
    /// Composition of one row; repeat it for a batch of several.
    #[arg(long, value_name = "C")]
    pub(crate) compose: Vec<Compose>,
    /// Tokens a row.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tokens: u32,
    /// Run it as well, and say where the time goes: by kernel and by layer.
    #[arg(long)]
    pub(crate) time: bool,
    /// What --time runs it on. Default: cpu. On gpu, the device's own clock tells.
    #[arg(long, value_enum, requires = "time")]
    pub(crate) backend: Option<BackendName>,
    /// How --time runs it. Default: on cpu fast for quantized bases, else exact.
    #[arg(long, value_enum, requires = "time")]
    pub(crate) precision: Option<PrecisionName>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Quantize {
    /// 4 or 8 bits in blocks of 32, or 16 (f16).
    #[arg(long, value_parser = ["4", "8", "16"])]
    pub(crate) bits: String,
    /// A Hugging Face or Sentence-Transformers folder, or one with e5-small-q4.bin and tokenizer.json.
    pub(crate) source: PathBuf,
    /// The folder to write; it must not exist or be empty.
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    #[command(flatten)]
    pub(crate) model: Model,
    /// What to merge.
    #[arg(long, value_name = "C")]
    pub(crate) compose: Compose,
    /// The folder to write; it must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Combine {
    /// An adapter to combine, by the name that the other options use. Repeatable.
    #[arg(long = "adapter", value_name = "NAME=PATH", required = true)]
    pub(crate) adapters: Vec<String>,
    /// Its weight, which may be negative. For average all may be left out. Repeatable.
    #[arg(long = "weight", value_name = "NAME=W", allow_hyphen_values = true)]
    pub(crate) weights: Vec<String>,
    /// How: linear, cat, svd, ties, ties_svd, magnitude_prune, magnitude_prune_svd as PEFT names them, or average.
    #[arg(long = "type", value_name = "TYPE", default_value = "svd", value_parser = kind())]
    pub(crate) kind: Kind,
    /// The new rank, for the types that decompose. Default: the largest of the adapters'.
    #[arg(long, value_name = "N")]
    pub(crate) rank: Option<usize>,
    /// The share of numbers that ties and magnitude_prune keep, 0 to 1.
    #[arg(long, value_name = "D")]
    pub(crate) density: Option<f64>,
    /// Whose sign ties elects: total, that of the sum (default), or frequency, that of most.
    #[arg(long, value_name = "HOW", value_parser = majority())]
    pub(crate) majority_sign: Option<Majority>,
    /// The adapter whose modules_to_save, such as a head, travel with the result.
    #[arg(long, value_name = "NAME")]
    pub(crate) modules_of: Option<String>,
    /// The folder to write; it must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(|(name, _)| name))
        .map(|given| Kind::ALL.into_iter().find(|(name, _)| *name == given).map_or(Kind::Svd, |(_, kind)| kind))
}

fn majority() -> impl TypedValueParser<Value = Majority> {
    PossibleValuesParser::new(["total", "frequency"])
        .map(|given| if given == "total" { Majority::Total } else { Majority::Frequency })
}

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The adapter's folder, of PEFT or AdapterHub.
    pub(crate) source: PathBuf,
    /// The file to write.
    pub(crate) output: PathBuf,
    /// The base that the adapter is for; the file then refuses others.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: PathBuf,
    /// Bits a number of its matrices. 16: half precision, no codes.
    #[arg(long, value_parser = ["1", "2", "4", "8", "16"])]
    pub(crate) bits: String,
    /// The levels of 1, 2 and 4 bits: those of the least absolute error on normal numbers, or of the least squared error.
    #[arg(long, default_value = "median", value_parser = ["median", "least-squares"])]
    pub(crate) levels: String,
    /// What shares a mean and a deviation, 8 bytes: a matrix, an output (row), or 32 or 64 numbers of one.
    #[arg(long, default_value = "tensor", value_parser = ["tensor", "row", "32", "64"])]
    pub(crate) per: String,
    /// Bits of what is not coded: biases, norms, scales.
    #[arg(long, default_value = "16", value_parser = ["16", "32"])]
    pub(crate) rest: String,
    /// Code heads and modules that are saved whole, too.
    #[arg(long)]
    pub(crate) heads: bool,
    /// Write over a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// An option of the adapter, such as reft=direft, for reading it once before it is packed. Repeatable.
    #[arg(long = "option", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unpack {
    /// A packed adapter.
    pub(crate) source: PathBuf,
    /// The folder to write; it must not exist or be empty.
    pub(crate) output: PathBuf,
}
