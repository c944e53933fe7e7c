//! Images as rows: what a vision base reads, and how it is cut into patches.

/// What a vision base reads: one image a row, as numbers that the model's image processor has already normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Colours.
    pub channels: usize,
    /// Height and width, in pixels.
    pub size: [usize; 2],
    /// Height and width of a patch, in pixels.
    pub patch: [usize; 2],
}

impl Image {
    /// Numbers of an image: channels × height × width, row major.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.channels * self.size[0] * self.size[1]
    }

    /// Whole patches in each direction; a rest at the lower and right edges is not seen, as in a strided convolution.
    fn grid(&self) -> [usize; 2] {
        [self.size[0] / self.patch[0], self.size[1] / self.patch[1]]
    }

    /// Patches of an image.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.grid().iter().product()
    }

    /// Numbers of a patch: channels × height × width, in this order, as the convolution's weight has them.
    #[must_use]
    pub fn width(&self) -> usize {
        self.channels * self.patch[0] * self.patch[1]
    }

    /// Appends the patches of `pixels` to `out`, row by row from the upper left: `[patches, width]`.
    ///
    /// # Panics
    /// When `pixels` are not [`Image::numbers`] numbers.
    pub fn unfold(&self, pixels: &[f32], out: &mut Vec<f32>) {
        let ([height, width], [tall, wide], [down, across]) = (self.size, self.patch, self.grid());
        for at in 0..down * across {
            let (top, left) = (at / across * tall, at % across * wide);
            for line in (0..self.channels).flat_map(|c| (0..tall).map(move |y| c * height + top + y)) {
                out.extend_from_slice(&pixels[line * width + left..][..wide]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_go_from_the_upper_left_and_a_rest_is_left_out() {
        let image = Image { channels: 2, size: [2, 5], patch: [2, 2] };
        let pixels: Vec<f32> = (0..20u8).map(f32::from).collect();
        let mut out = Vec::new();
        image.unfold(&pixels, &mut out);
        assert_eq!((image.patches(), image.width(), image.numbers()), (2, 8, 20));
        assert_eq!(out, [0., 1., 5., 6., 10., 11., 15., 16., 2., 3., 7., 8., 12., 13., 17., 18.]);
    }
}
