//! `pack` and `unpack`: an adapter's folder as one file of a few bits a number, and back.

use crate::args::{Pack, Unpack};
use crate::error::{Error, Result};
use crate::files::{self, Disk};
use crate::load;
use polygraft::quant::codes::{Book, Group};
use polygraft_formats::Files;
use polygraft_formats::packed::{self, Options};
use serde_json::{Map, Value, json};

pub(crate) fn pack(args: &Pack) -> Result<()> {
    if args.output.exists() && !args.force {
        let why = "it exists; name another file, or write over it with --force";
        return Err(Error::Content { path: args.output.clone(), why: why.into() });
    }
    let format = |source| Error::Format { path: args.source.clone(), source };
    let disk = Disk::open(&args.source)?;
    let spec = load::base(&args.base, |_, _| Ok(()))?;
    let options = Options {
        bits: args.bits.parse().map_err(|_| Error::Usage(format!("--bits {}: 1, 2, 4, 8 or 16", args.bits)))?,
        group: match args.per.as_str() {
            "tensor" => Group::Tensor,
            "row" => Group::Row,
            block => Group::Block(block.parse().map_err(|_| Error::Usage(format!("--per {block}: 32 or 64")))?),
        },
        book: if args.levels == "median" { Book::Median } else { Book::LeastSquares },
        floats: args.rest == "32",
        heads: args.heads,
    };
    let (bytes, report) = packed::pack(&disk, &spec, &options).map_err(format)?;
    // What does not fit the base is found here, not by whoever receives the file.
    let ir = load::adapter_ir(&spec, &args.source, &given(&args.options)?)?;
    polygraft::ir::check("adapter", &ir, &spec, polygraft::ir::Graft::default())?;
    files::write_whole(&args.output, |out| out.write_all(&bytes).map_err(files::io(&args.output)))?;
    let before: u64 = disk.names().iter().filter_map(|n| disk.len(n).ok()).sum();
    let mean = report.packed.iter().fold(0.0, |sum, p| sum + p.error) / report.packed.len().max(1) as f64;
    if args.json {
        let tensors: Vec<Value> =
            report.packed.iter().map(|p| json!({"name": p.name, "shape": p.shape, "error": p.error})).collect();
        println!(
            "{}",
            json!({"bytes": bytes.len(), "before": before, "tensors": tensors, "left": report.left, "error": mean})
        );
        return Ok(());
    }
    for p in &report.packed {
        println!("{:<90} {:>14} off by {:.3}", p.name, format!("{:?}", p.shape), p.error);
    }
    report.left.iter().for_each(|name| println!("{name:<90} {:>14}", format!("left at {}", args.rest)));
    eprintln!(
        "polygraft: wrote {}: {:.1} KB of {:.1} KB; {} matrices at {} bit{} a number, off by {mean:.3} of their size on average; {} tensors left",
        args.output.display(),
        bytes.len() as f64 / 1e3,
        before as f64 / 1e3,
        report.packed.len(),
        args.bits,
        if args.bits == "1" { "" } else { "s" },
        report.left.len()
    );
    Ok(())
}

fn given(options: &[String]) -> Result<Map<String, Value>> {
    let entry = |text: &String| {
        let split = text.split_once('=').map(|(key, value)| {
            (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned())))
        });
        split.ok_or_else(|| Error::Usage(format!("--option {text}: write KEY=VALUE")))
    };
    options.iter().map(entry).collect()
}

pub(crate) fn unpack(args: &Unpack) -> Result<()> {
    let format = |source| Error::Format { path: args.source.clone(), source };
    let disk = Disk::open(&args.source)?;
    let names = disk.names();
    let [name] = names.as_slice() else {
        return Err(Error::Content { path: args.source.clone(), why: "it is a folder; name a packed file".into() });
    };
    let bytes = disk.read(name, polygraft_formats::source::ADAPTER).map_err(format)?;
    let folder = packed::unpack(name, &bytes).map_err(format)?;
    files::folder_whole(&args.output, |dir| {
        folder
            .iter()
            .try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).map_err(files::io(&args.output)))
    })?;
    let total: usize = folder.iter().map(|(_, bytes)| bytes.len()).sum();
    eprintln!("polygraft: wrote {}: {:.1} KB, every number in 32 bits", args.output.display(), total as f64 / 1e3);
    Ok(())
}
