//! A base whose tensors are all at hand, from a format that is not safetensors.

use super::assemble::{self, Placed};
use super::config::EncoderConfig;
use super::layout::{self, Slot};
use super::lineage::Lineage;
use super::sentence::SentenceFolder;
use crate::error::{FormatError, Result};
use crate::names::{self, Param, Part};
use polygraft::model::{Fingerprint, ModelSpec, SentenceSpec, SpecialTokens, WeightId, WeightInfo};
use polygraft::tensor::Matrix;
use std::collections::BTreeMap;

/// Asks `get` for every tensor that the configuration needs, by module, parameter, rows and columns.
///
/// # Errors
/// What `get` says; [`FormatError::ModelKeys`]; [`FormatError::NotFinite`].
pub(crate) fn place_all(
    config: EncoderConfig,
    spec: SentenceSpec,
    special: SpecialTokens,
    get: impl Fn(Part, Param, usize, usize) -> Result<Option<Matrix>>,
) -> Result<(ModelSpec, Vec<(WeightId, Matrix)>)> {
    let folder = SentenceFolder { spec, transformer: String::new(), dense: Vec::new() };
    let mut lineage = Lineage::default();
    let (mut weights, mut out, mut placed) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (part, _) in assemble::needed(&config, &folder, None) {
        for param in [Param::Weight, Param::Bias] {
            let slot = Slot { part, param };
            let (rows, cols) = layout::shape(&config, &[], None, slot);
            let vector = slot.is_vector();
            let rows = rows.unwrap_or_default();
            let (r, c) = if vector { (1, rows) } else { (rows, cols) };
            let Some(matrix) = get(part, param, r, c)? else { continue };
            let name = names::tensor_name(config.arch, None, part, param);
            if let Some(index) = matrix.first_not_finite() {
                return Err(FormatError::NotFinite { file: config.file.clone(), tensor: name, index });
            }
            if vector {
                lineage.add(&name, &matrix.to_f32());
            }
            let id = WeightId(u32::try_from(weights.len()).unwrap_or(u32::MAX));
            weights.push(WeightInfo { name, rows: r, cols: c, scheme: matrix.scheme() });
            placed.insert(slot, Placed { id, rows });
            out.push((id, matrix));
        }
    }
    let missing = assemble::missing(&config, &folder, None, &placed);
    if !missing.is_empty() {
        return Err(FormatError::ModelKeys { file: config.file, missing, extra: Vec::new() });
    }
    let fingerprint = Fingerprint { name: config.name.clone().unwrap_or_default(), lineage: Some(lineage.finish()) };
    let spec = assemble::spec(config, folder.spec, None, special, weights, &placed, fingerprint)?;
    Ok((spec, out))
}
