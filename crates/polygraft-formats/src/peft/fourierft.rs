//! FourierFT: the update's Fourier transform has few numbers that are not 0, at places drawn by chance.

use super::config::bad;
use super::family::{Family, Packing, Reader};
use super::reading::{Reading, Target};
use crate::error::Result;
use crate::maths::fourier::inverse_real;
use crate::maths::torch_random::TorchRandom;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["random_loc_seed", "scaling"],
    // How many there are is seen from the file.
    silent: &["init_weights", "n_frequency", "n_frequency_pattern"],
    markers: &[".fourierft_"],
    base: false,
    packing: Packing { places: &[], vectors: &["fourierft_spectrum"], mask: None },
    reader: Reader::Load(load),
    ..Family::new("FOURIERFT", "fourierft", "FourierFT (Gao et al. 2024, arXiv 2405.03003)")
};

#[allow(clippy::cast_possible_truncation, reason = "the scale is f32 in torch")]
fn load(r: &mut Reading<'_>) -> Result<()> {
    let (seed, scale) = (r.config.seed("random_loc_seed", 777)?, r.config.number("scaling", 150.0)? as f32);
    for t in r.targets()? {
        let Some(spectrum) = spectrum(r, &t, "fourierft_spectrum", seed)? else { continue };
        r.adds(&t, 3 * spectrum.len(), move |layer| {
            let delta = inverse_real(layer.rows, layer.cols, &spectrum).ok_or("its places do not fit the layer")?;
            layer.add(&delta, scale);
            Ok(())
        });
    }
    Ok(())
}

/// The numbers of `name` as (row, column, value): at the first places of a random permutation of all.
pub(super) fn spectrum(
    r: &mut Reading<'_>,
    t: &Target,
    name: &str,
    seed: u64,
) -> Result<Option<Vec<(usize, usize, f32)>>> {
    let count = r.shape(t, name).and_then(|s| s.first().copied()).unwrap_or_default();
    let Some(values) = r.take(t, name, &[count])? else { return Ok(None) };
    let Some(places) = TorchRandom::new(seed).permutation(t.rows as u64 * t.cols as u64, count) else {
        return Err(bad("n_frequency", format!("{count} are more than the numbers of {}", t.module)));
    };
    #[allow(clippy::cast_possible_truncation, reason = "a place in a matrix that is held in memory")]
    let place = |(at, x): (u64, f32)| (at as usize / t.cols, at as usize % t.cols, x);
    Ok(Some(places.into_iter().zip(values).map(place).collect()))
}
