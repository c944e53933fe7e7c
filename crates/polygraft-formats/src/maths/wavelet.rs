//! Orthogonal wavelets (Daubechies 1992) and one level of their inverse transform in two dimensions.

/// Low-pass reconstruction filters in f32, as PEFT took them from PyWavelets; those of coiflets times √2.
///
/// PEFT's `coif4` is not orthonormal, and its numbers are what adapters were trained with. Its `coif5` has 48 numbers
/// where it reckons with 30, and fails whenever it is used.
#[rustfmt::skip]
const FILTERS: &[(&str, &[f32])] = &[
    ("db1", &[0.70710677, 0.70710677]),
    ("db2", &[0.4829629, 0.8365163, 0.22414386, -0.12940952]),
    ("db3", &[0.33267054, 0.8068915, 0.4598775, -0.13501102, -0.08544128, 0.035226293]),
    ("db4", &[0.23037781, 0.71484655, 0.6308808, -0.02798377, -0.18703482, 0.030841382, 0.03288301, -0.010597402]),
    ("db5", &[0.1601024, 0.60382926, 0.72430855, 0.13842815, -0.2422949, -0.03224487, 0.0775715, -0.00624149, -0.012580752, 0.0033357253]),
    ("db6", &[0.11154074, 0.4946239, 0.7511339, 0.31525034, -0.2262647, -0.12976687, 0.097501606, 0.027522866, -0.03158204, 0.0005538422, 0.0047772573, -0.0010773011]),
    ("db7", &[0.077852055, 0.39653933, 0.7291321, 0.4697823, -0.143906, -0.22403619, 0.07130922, 0.08061261, -0.038029935, -0.016574541, 0.0125509985, 0.00042957798, -0.0018016407, 0.0003537138]),
    ("db8", &[0.05441584, 0.3128716, 0.67563075, 0.5853547, -0.015829105, -0.28401554, 0.00047248456, 0.12874743, -0.0173693, -0.044088256, 0.0139810275, 0.008746094, -0.004870353, -0.00039174038, 0.0006754494, -0.00011747678]),
    ("db9", &[0.038077947, 0.24383467, 0.6048231, 0.6572881, 0.13319738, -0.29327378, -0.096840784, 0.14854075, 0.030725682, -0.06763283, 0.0002509471, 0.022361662, -0.0047232048, -0.0042815036, 0.0018476469, 0.00023038576, -0.00025196318, 3.934732e-05]),
    ("db10", &[0.026670057, 0.1881768, 0.5272012, 0.68845904, 0.28117234, -0.24984643, -0.19594628, 0.12736934, 0.093057364, -0.071394145, -0.029457537, 0.033212673, 0.0036065537, -0.010733175, 0.0013953517, 0.0019924054, -0.0006858567, -0.00011646686, 9.358867e-05, -1.3264203e-05]),
    ("sym4", &[0.0322231, -0.012603967, -0.099219546, 0.2978578, 0.8037388, 0.49761868, -0.029635528, -0.075765714]),
    ("sym5", &[0.019538883, -0.021101834, -0.17532809, 0.016602106, 0.63397896, 0.7234077, 0.19939753, -0.03913425, 0.02951949, 0.027333068]),
    ("sym6", &[-0.0078007085, 0.0017677118, 0.0447249, -0.021060292, -0.07263752, 0.33792943, 0.78764117, 0.49105594, -0.048311744, -0.117990114, 0.003490712, 0.015404109]),
    ("sym7", &[0.010268177, 0.0040102447, -0.10780824, -0.14004724, 0.28862962, 0.76776433, 0.53610194, 0.017441256, -0.049552836, 0.06789269, 0.030515512, -0.012636303, -0.0010473849, 0.0026818146]),
    ("sym8", &[0.0018899504, -0.00030292053, -0.014952258, 0.003808752, 0.04913718, -0.02721903, -0.05194584, 0.3644419, 0.77718574, 0.48135966, -0.06127336, -0.14329425, 0.0076074875, 0.031695087, -0.00054213236, -0.003382416]),
    ("sym9", &[0.00106949, -0.0004731545, -0.010264064, 0.008859267, 0.06207779, -0.01823377, -0.19155084, 0.035272487, 0.6173385, 0.71789706, 0.23876092, -0.054568958, 0.00058346277, 0.030224878, -0.01152821, -0.013271968, 0.0006197809, 0.0014009156]),
    ("sym10", &[-0.00045932943, 5.7036083e-05, 0.0045931735, -0.0008043589, -0.02035494, 0.005764912, 0.04999497, -0.03199006, -0.03553674, 0.38382676, 0.76951003, 0.47169065, -0.07088053, -0.15949428, 0.011609894, 0.045927238, -0.0014653826, -0.008641299, 9.563267e-05, 0.0007701598]),
    ("coif1", &[-0.07273262, 0.33789766, 0.852572, 0.38486484, -0.07273262, -0.015655728]),
    ("coif2", &[0.016387336, -0.041464936, -0.06737255, 0.38611007, 0.81272364, 0.41700518, -0.0764886, -0.059434418, 0.023680173, 0.005611435, -0.0018232089, -0.00072054943]),
    ("coif3", &[-0.003793513, 0.0077825966, 0.023452695, -0.06577191, -0.06112339, 0.4051769, 0.7937772, 0.4284835, -0.07179982, -0.08230193, 0.03455503, 0.015880546, -0.009007976, -0.0025745176, 0.0011175188, 0.00046621697, -7.0983304e-05, -3.4599772e-05]),
    ("coif4", &[0.0008923139, -0.0016294924, -0.007346168, 0.016066782, 0.026792362, -0.0731429, -0.048770767, 0.4274779, 0.7842492, 0.43546134, -0.061553657, -0.09176542, 0.02811566, 0.024945239, -0.010417175, -0.003270273, 0.0020166775, 0.0006600113, -0.00017960623, -0.00015988198, 4.311039e-05, 1.7914477e-05, -2.2414247e-06, -1.5895026e-06]),
];
/// Two symlets are Daubechies wavelets.
const SAME: &[(&str, &str)] = &[("sym2", "db2"), ("sym3", "db3")];

/// A wavelet, by its low-pass reconstruction filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wavelet(&'static [f32]);

impl Wavelet {
    /// `db1` (Haar) to `db10`, `sym2` to `sym10`, `coif1` to `coif4`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = SAME.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
        FILTERS.iter().find(|(known, _)| *known == name).map(|(_, filter)| Self(filter))
    }

    /// Length of its filters: even.
    #[must_use]
    pub fn length(self) -> usize {
        self.0.len()
    }

    /// The high-pass filter at `i`: the low-pass one backwards, with alternating signs.
    fn high(self, i: usize) -> f32 {
        let x = self.0.get(self.length() - 1 - i).copied().unwrap_or_default();
        if i.is_multiple_of(2) { x } else { -x }
    }

    /// What `coefficients` say of a matrix `[rows, cols]`, given as (row, column, value) in a matrix of the same size that
    /// is framed by as much on every side as the filters take away, and whose four quarters are the four bands.
    ///
    /// That is PEFT's arrangement: the lower left quarter passes high along the columns, the upper right one along the
    /// rows, where PyWavelets has it the other way round. `None` for a coefficient beyond the matrix.
    #[must_use]
    pub fn inverse(self, rows: usize, cols: usize, coefficients: &[(usize, usize, f32)]) -> Option<Vec<f32>> {
        let mut out = vec![0.0; rows.checked_mul(cols)?];
        if out.is_empty() {
            return coefficients.is_empty().then_some(out);
        }
        let (down, right) = (Axis::new(self, rows), Axis::new(self, cols));
        for (row, col, value) in coefficients {
            if *row >= rows || *col >= cols {
                return None;
            }
            let (i, lower) = down.place(*row);
            let (j, righter) = right.place(*col);
            // Each band is named by the other axis's filter.
            let columns: Vec<(usize, f32)> = right.touched(j, lower).collect();
            for (y, f) in down.touched(i, righter) {
                let line = out.get_mut(y * cols..(y + 1) * cols)?;
                for (x, g) in &columns {
                    line[*x] += value * f * g;
                }
            }
        }
        Some(out)
    }
}

/// One axis of the transform.
struct Axis {
    wavelet: Wavelet,
    /// Numbers that come out.
    size: usize,
    /// Coefficients of a band.
    half: usize,
    /// Coefficients that frame those which a matrix of this size has, before its first.
    frame: usize,
}

impl Axis {
    fn new(wavelet: Wavelet, size: usize) -> Self {
        let extra = wavelet.length() - 2;
        let half = (size + extra).div_ceil(2);
        Self { wavelet, size, half, frame: (2 * half - size) / 2 }
    }

    /// Where coefficient `at` stands in its band, and whether that is the high one.
    fn place(&self, at: usize) -> (usize, bool) {
        let at = at + self.frame;
        if at < self.half { (at, false) } else { (at - self.half, true) }
    }

    /// The numbers that the `i`-th coefficient of a band touches, with their weights.
    fn touched(&self, i: usize, high: bool) -> impl Iterator<Item = (usize, f32)> {
        let (length, size, wavelet) = (self.wavelet.length(), self.size, self.wavelet);
        // The transposed convolution is cut by as much at its start.
        (0..length).filter_map(move |k| {
            let at = (2 * i + k).checked_sub(length - 2).filter(|at| *at < size)?;
            Some((at, if high { wavelet.high(k) } else { *wavelet.0.get(k)? }))
        })
    }
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "the numbers are as Python printed them")]
#[allow(clippy::cast_precision_loss, reason = "small sizes")]
mod tests {
    use super::*;
    use crate::maths::torch_random::TorchRandom;

    /// The tables are of peft 0.21.2: `python tests/golden/maths.py wavelet`.
    #[test]
    fn inverse_transforms_are_pefts() {
        let tables: [(&str, usize, usize, [f32; 4], f64); 6] = [
            (
                "db1",
                6,
                4,
                [0.2708333134651184, -0.0208333320915699, 0.041666656732559204, -0.0833333283662796],
                1.1284721131540059,
            ),
            (
                "db3",
                7,
                9,
                [0.057741403579711914, 0.10842330753803253, -0.1704109013080597, 0.1817631870508194],
                1.4709991607334776,
            ),
            (
                "sym8",
                10,
                5,
                [-0.0013008569367229939, -0.04035474732518196, 0.000504951982293278, 0.00030766698182560503],
                0.00262588729837933,
            ),
            (
                "sym2",
                5,
                8,
                [0.01961739920079708, -0.06221551448106766, 0.3034014105796814, 0.12229367345571518],
                1.1124206268358816,
            ),
            (
                "coif4",
                9,
                12,
                [0.01862054504454136, -1.008922845358029e-05, 3.118918903055601e-05, 4.273166268831119e-05],
                0.1074552053896137,
            ),
            (
                "db10",
                30,
                41,
                [0.20425744354724884, -0.03278375416994095, 0.04458761215209961, 0.05257823318243027],
                27.72137166001146,
            ),
        ];
        for (name, rows, cols, some, square) in tables {
            let n = rows * cols;
            let places = TorchRandom::new(1).permutation(n as u64, n / 2).unwrap();
            let places = places.iter().map(|p| (*p as usize / cols, *p as usize % cols)).zip(1..);
            let coefficients: Vec<_> = places.map(|((i, j), k)| (i, j, k as f32 / n as f32)).collect();
            let out = Wavelet::named(name).unwrap().inverse(rows, cols, &coefficients).unwrap();
            let at = [0, cols - 1, rows / 2 * cols + cols / 2, (rows - 1) * cols + 1];
            at.iter()
                .zip(some)
                .for_each(|(i, want)| assert!((out[*i] - want).abs() < 1e-6, "{name}: {} {want}", out[*i]));
            let sum: f64 = out.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((sum - square).abs() < 1e-5 * square, "{name}: {sum} {square}");
        }
    }

    #[test]
    fn filters_are_orthonormal() {
        for (name, filter) in FILTERS.iter().filter(|(name, _)| *name != "coif4") {
            for shift in (0..filter.len()).step_by(2) {
                let sum: f64 = filter.iter().zip(&filter[shift..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((sum - if shift == 0 { 1.0 } else { 0.0 }).abs() < 1e-6, "{name} {shift}: {sum}");
            }
        }
    }

    #[test]
    fn what_is_not_known_or_does_not_fit_is_refused() {
        assert!(Wavelet::named("coif5").is_none() && Wavelet::named("haar").is_none() && Wavelet::named("").is_none());
        let haar = Wavelet::named("db1").unwrap();
        assert!(haar.inverse(2, 2, &[(2, 0, 1.0)]).is_none());
        assert!(haar.inverse(0, 5, &[]).unwrap().is_empty() && haar.inverse(0, 5, &[(0, 0, 1.0)]).is_none());
        assert!(haar.inverse(usize::MAX, 2, &[]).is_none());
        assert!(haar.inverse(usize::MAX, 0, &[]).unwrap().is_empty());
        assert_eq!(Wavelet::named("sym2"), Wavelet::named("db2"));
    }
}
