//! MiSS, once called Bone: inputs are summed in groups of the rank, `ΔW[o, i] = M[i mod r, o]`; `mini` repeats `M` along
//! the outputs; `bat` lets blocks of the weight multiply what is added, `W ← W + W B + B`.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::{Reading, Target};
use crate::dense::product;
use crate::error::{Result, shown};
use crate::json::Json;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["init_weights", "mini_r", "r"],
    silent: &["miss_dropout"],
    markers: &[".miss_"],
    ops: "low-rank, change of weights (bat)",
    reader: Reader::Load(load),
    ..Family::new("MISS", "miss", "MiSS (Kang and Yin 2024, arXiv 2409.15371)")
};

/// The row of files that PEFT wrote before 0.17, under the method's old name.
pub(super) const BONE: Family = Family {
    reads: &["init_weights", "r"],
    silent: &[],
    markers: &[".bone_"],
    reader: Reader::Load(load_bone),
    ..Family { peft_type: "BONE", name: "bone", paper: "Bone, the first version of MiSS", ..FAMILY }
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    read(r, "miss_block")
}

fn load_bone(r: &mut Reading<'_>) -> Result<()> {
    read(r, "bone_block")
}

fn read(r: &mut Reading<'_>, name: &str) -> Result<()> {
    let (rank, mini) = (r.config.count("r", 64)?, r.config.count("mini_r", 1)?);
    // The name of an initialisation, and of the form.
    let form = match r.config.get("init_weights") {
        None | Some(Json::Bool(_)) => "miss",
        Some(Json::Text(text)) if text == "mini" || text == "bat" => text,
        Some(other) => return Err(bad("init_weights", format!("{} is not a form of MiSS", shown(&other.brief())))),
    };
    for t in r.targets()? {
        if form == "bat" {
            bat(r, &t, name, rank)?;
            continue;
        }
        let width = if form == "mini" { mini } else { t.rows };
        if !t.rows.is_multiple_of(width) {
            return Err(bad("mini_r", format!("{mini} does not divide the {} outputs of {}", t.rows, t.path)));
        }
        let Some(m) = r.take(&t, name, &[rank, width])? else { continue };
        let a = (0..rank * t.cols).map(|i| if i % t.cols % rank == i / t.cols { 1.0 } else { 0.0 }).collect();
        let b = (0..t.rows * rank).map(|i| m[i % rank * width + i / rank % width]).collect();
        r.low_rank(&t, a, b, None, 1.0);
    }
    Ok(())
}

fn bat(r: &mut Reading<'_>, t: &Target, name: &str, rank: usize) -> Result<()> {
    if !t.rows.is_multiple_of(rank) || !t.cols.is_multiple_of(rank) {
        return Err(bad("r", format!("{rank} does not divide the {} × {} of {}", t.rows, t.cols, t.path)));
    }
    let Some(blocks) = r.take(t, name, &[t.rows / rank, rank, rank])? else { return Ok(()) };
    r.follows(t, blocks.len(), move |layer| {
        let band = rank * layer.cols;
        for (band, b) in layer.weight.chunks_exact_mut(band).zip(blocks.chunks_exact(rank * rank)) {
            // Each row of the band is a row of blocks: the product of all of them with B at once.
            let moved = product(band, b, rank, rank);
            let width = layer.cols;
            for (i, (w, moved)) in band.iter_mut().zip(&moved).enumerate() {
                *w += moved + b[i / width * rank + i % width % rank];
            }
        }
        Ok(())
    });
    Ok(())
}
