//! The uniform block of each kernel: one struct here, one `struct Params` in its shader. A test holds the two together.

/// Bytes between two blocks: WebGPU's default alignment of dynamic uniform offsets.
pub(crate) const STRIDE: usize = 256;

/// A vector or weight that is not there.
pub(crate) const NONE: u32 = u32::MAX;

/// A block as 32-bit words.
pub(crate) trait Params {
    fn words(&self) -> Vec<u32>;
}

trait Word {
    #[cfg(test)]
    const WGSL: &'static str;
    fn word(self) -> u32;
}

impl Word for u32 {
    #[cfg(test)]
    const WGSL: &'static str = "u32";
    fn word(self) -> u32 {
        self
    }
}

impl Word for f32 {
    #[cfg(test)]
    const WGSL: &'static str = "f32";
    fn word(self) -> u32 {
        self.to_bits()
    }
}

macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq)]
            pub(crate) struct $name { $(pub(crate) $field: $type),* }

            impl Params for $name {
                fn words(&self) -> Vec<u32> {
                    vec![$(Word::word(self.$field)),*]
                }
            }
        )*

        /// Name and fields of every block, as its shader writes them.
        #[cfg(test)]
        pub(crate) fn all() -> Vec<(&'static str, Vec<String>)> {
            vec![$((stringify!($name), vec![$(format!("{}: {}", stringify!($field), <$type as Word>::WGSL)),*])),*]
        }
    };
}

blocks! {
    /// `linear.wgsl`.
    Linear { first: u32, rows: u32, x_stride: u32, y_stride: u32, groups: u32, columns: u32, weight: u32, bias: u32, column: u32, activation: u32 }
    /// `round.wgsl`.
    Round { first: u32, rows: u32, x_stride: u32, blocks: u32, width: u32 }
    /// `attention_*.wgsl`.
    Attention { stride: u32, items: u32, scale: f32 }
    /// `attention_placed.wgsl`.
    Placed { stride: u32, items: u32, scale: f32, window: u32, terms: u32, places: u32, middle: u32, p_stride: u32, b_stride: u32 }
    /// `columns.wgsl`.
    Columns { first: u32, x_stride: u32, y_stride: u32, width: u32, column: u32, kind: u32, size: u32, items: u32 }
    /// `norm_*.wgsl`.
    Norm { first: u32, rows: u32, stride: u32, width: u32, terms: u32, gamma: u32, beta: u32, own: u32, owns: u32, eps: f32 }
    /// `pointwise.wgsl`.
    Pointwise { first: u32, count: u32, width: u32, terms: u32, activation: u32, left: f32 }
    /// `shrink.wgsl`.
    Shrink { x_stride: u32, h_stride: u32, groups: u32, items: u32 }
    /// `project.wgsl`.
    Project { x_stride: u32, y_stride: u32, r_stride: u32, g_stride: u32, items: u32, add: u32, gate: u32, activation: u32 }
    /// `mean.wgsl`.
    Mean { stride: u32, items: u32 }
    /// `attend.wgsl`.
    Attend { first: u32, rows: u32, stride: u32, width: u32, place: u32, temperature: f32 }
    /// `gather.wgsl`.
    Gather { stride: u32, items: u32 }
    /// `offset.wgsl`.
    Offset { stride: u32, width: u32, items: u32 }
    /// `pool.wgsl`.
    Pool { x_stride: u32, y_stride: u32, width: u32, pooling: u32, items: u32 }
    /// `normalize.wgsl`.
    Normalize { first: u32, rows: u32, stride: u32, width: u32 }
}
