//! WaveFT: the update's wavelet transform has few numbers that are not 0, at places drawn by chance.

use super::config::bad;
use super::family::{Family, Packing, Reader};
use super::fourierft::spectrum;
use super::reading::Reading;
use crate::error::{Result, shown};
use crate::maths::wavelet::Wavelet;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["random_loc_seed", "scaling", "use_idwt", "wavelet_family"],
    // How many there are is seen from the file.
    silent: &["init_weights", "n_frequency", "n_frequency_pattern", "proportional_parameters"],
    markers: &[".waveft_"],
    base: false,
    packing: Packing { places: &[], vectors: &["waveft_spectrum"], mask: None },
    reader: Reader::Load(load),
    ..Family::new("WAVEFT", "waveft", "WaveFT (Bilican et al. 2025, arXiv 2505.12532)")
};

#[allow(clippy::cast_possible_truncation, reason = "the scale is f32 in torch")]
fn load(r: &mut Reading<'_>) -> Result<()> {
    let (seed, scale) = (r.config.seed("random_loc_seed", 777)?, r.config.number("scaling", 25.0)? as f32);
    let name = r.config.text("wavelet_family", "db1")?;
    let wavelet = if r.config.flag("use_idwt", true)? {
        let Some(wavelet) = Wavelet::named(name) else {
            let known = "db1 to db10, sym2 to sym10, coif1 to coif4";
            return Err(bad("wavelet_family", format!("PEFT can compute {known}; it fails with {:?}", shown(name))));
        };
        Some(wavelet)
    } else {
        None
    };
    for t in r.targets()? {
        let Some(spectrum) = spectrum(r, &t, "waveft_spectrum", seed)? else { continue };
        r.adds(&t, 3 * spectrum.len(), move |layer| {
            if let Some(wavelet) = wavelet {
                let delta = wavelet.inverse(layer.rows, layer.cols, &spectrum);
                layer.add(&delta.ok_or("its places do not fit the layer")?, scale);
            } else {
                for (row, col, x) in &spectrum {
                    layer.weight[row * layer.cols + col] += scale * x;
                }
            }
            Ok(())
        });
    }
    Ok(())
}
