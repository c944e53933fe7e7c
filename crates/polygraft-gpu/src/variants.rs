//! The kernel table: which shaders there are, what they cover, and which one runs.
//!
//! A row here is all that a variant needs: tests, tuning and `explain` walk the table.

use crate::device::DeviceInfo;

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    Read,
    Write,
}

use Access::{Read, Write};

/// What a kernel computes, in canonical steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Covers {
    /// `Linear`, or `Linear` and `Activate`.
    Linear,
    /// `Attention` that knows of no places.
    Attention,
    /// `Attention`.
    Placed,
    /// `Copy`, `Gate`, `Rotate` or `Unfold`.
    Columns,
    /// `LayerNorm`, or `Add` and `LayerNorm`; norms in `Bottleneck`.
    Norm,
    /// `Add`, `Activate` or `Copy`; sums in `Bottleneck`.
    Pointwise,
    /// `Linear`, or `Linear` and `Activate`, on rounded activations: the second half, after `Round`.
    Packed,
    /// `Linear`, or `Linear` and `Activate`, with both factors in 16 bits.
    Half,
    /// The activations of `Packed`, rounded.
    Round,
    /// The first half of `LowRank`.
    Shrink,
    /// The second half of `LowRank`; the layers that run in `Bottleneck`, `Couple`, `Reft` and `MixedLowRank`.
    Project,
    /// The gates of `Bottleneck` and `MixedLowRank`.
    Mean,
    /// The fusions of `Bottleneck`.
    Attend,
    /// `Insert`, and the prefixes of `Attention`.
    Gather,
    /// `Offset`.
    Offset,
    /// `Pool`.
    Pool,
    /// `Normalize`.
    Normalize,
}

/// A kernel with its constants.
#[derive(Debug)]
pub(crate) struct Variant {
    /// What `explain` and errors call it.
    pub(crate) name: &'static str,
    pub(crate) covers: Covers,
    /// Files that make it up, in order.
    pub(crate) sources: &'static [&'static str],
    /// Constants that are set in the text.
    pub(crate) constants: &'static [(&'static str, u32)],
    /// Storage bindings 1, 2, ….
    pub(crate) access: &'static [Access],
    /// Numbers along a head that it reads at once: the head's width must be a multiple, and is counted in them.
    pub(crate) reads: u32,
    /// Rows and columns (of four) that a workgroup makes.
    pub(crate) tile: (u32, u32),
    /// Whether invocations of a workgroup wait for each other, which software devices pay dearly for.
    pub(crate) barriers: bool,
}

#[cfg(target_arch = "wasm32")]
use crate::bare;

/// A file of `shaders/`; in WebAssembly, which is downloaded, without its comments.
macro_rules! shader {
    ($file:literal) => {{
        const TEXT: &str = include_str!(concat!("../../../shaders/", $file));
        #[cfg(target_arch = "wasm32")]
        {
            const BARE: [u8; bare::length(TEXT)] = bare::text(TEXT);
            bare::checked(&BARE)
        }
        #[cfg(not(target_arch = "wasm32"))]
        TEXT
    }};
}

static LINEAR: &str = shader!("linear.wgsl");
static ACTIVATION: &str = shader!("activation.wgsl");
static TILE: &str = shader!("linear_tile.wgsl");
static FULL: &[&str] = &[LINEAR, ACTIVATION, shader!("linear_full.wgsl"), TILE];
// What enables a feature comes first.
static HALF: &[&str] = &[shader!("linear_half.wgsl"), LINEAR, ACTIVATION, TILE];
static WEIGHTS: &str = shader!("weights.wgsl");
static NORM: &str = shader!("norm.wgsl");
const LINEAR_ACCESS: &[Access] = &[Read, Read, Read, Read, Write];

/// `linear_tile` of `8 y` rows and `8 x` outputs.
macro_rules! tile {
    ($name:literal, $covers:expr, $sources:expr, $x:literal, $y:literal) => {
        Variant {
            name: $name,
            covers: $covers,
            sources: $sources,
            constants: &[("X", $x), ("Y", $y)],
            access: LINEAR_ACCESS,
            reads: 1,
            tile: (8 * $y, 2 * $x),
            barriers: true,
        }
    };
}

/// Every variant of every kernel. Of several that cover the same, [`choose`] picks.
pub(crate) static VARIANTS: &[Variant] = &[
    Variant {
        name: "linear direct 4×4",
        covers: Covers::Linear,
        sources: &[LINEAR, ACTIVATION, shader!("linear_direct.wgsl")],
        constants: &[("X", 16), ("Y", 4)],
        access: LINEAR_ACCESS,
        reads: 1,
        tile: (16, 16),
        barriers: false,
    },
    tile!("linear tile 64×64", Covers::Linear, FULL, 8, 8),
    tile!("linear tile 32×128", Covers::Linear, FULL, 16, 4),
    tile!("linear tile 128×64", Covers::Linear, FULL, 8, 16),
    tile!("linear tile 128×128", Covers::Linear, FULL, 16, 16),
    tile!("linear half 64×64", Covers::Half, HALF, 8, 8),
    tile!("linear half 32×128", Covers::Half, HALF, 16, 4),
    tile!("linear half 128×64", Covers::Half, HALF, 8, 16),
    tile!("linear half 128×128", Covers::Half, HALF, 16, 16),
    Variant {
        name: "linear packed 64×64",
        covers: Covers::Packed,
        sources: &[ACTIVATION, shader!("linear_packed.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Write, Read],
        reads: 1,
        tile: (64, 16),
        barriers: true,
    },
    Variant {
        name: "round",
        covers: Covers::Round,
        sources: &[shader!("round.wgsl")],
        constants: &[],
        access: &[Read, Write, Write],
        reads: 1,
        tile: (1, 64),
        barriers: false,
    },
    Variant {
        name: "attention direct",
        covers: Covers::Attention,
        sources: &[shader!("attention_direct.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Write],
        reads: 4,
        tile: (32, 0),
        barriers: false,
    },
    Variant {
        name: "attention scalar",
        covers: Covers::Attention,
        sources: &[shader!("attention_scalar.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Write],
        reads: 1,
        tile: (32, 0),
        barriers: false,
    },
    Variant {
        name: "attention placed",
        covers: Covers::Placed,
        sources: &[shader!("attention_placed.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Write, Read, Read, Read],
        reads: 1,
        tile: (32, 0),
        barriers: false,
    },
    Variant {
        name: "columns",
        covers: Covers::Columns,
        sources: &[ACTIVATION, shader!("columns.wgsl")],
        constants: &[],
        access: &[Read, Read, Write],
        reads: 1,
        tile: (1, 64),
        barriers: false,
    },
    Variant {
        name: "norm by row",
        covers: Covers::Norm,
        sources: &[NORM, shader!("norm_direct.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Write],
        reads: 1,
        tile: (32, 0),
        barriers: false,
    },
    Variant {
        name: "norm by workgroup",
        covers: Covers::Norm,
        sources: &[NORM, shader!("norm_group.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Write],
        reads: 1,
        tile: (1, 0),
        barriers: true,
    },
    Variant {
        name: "pointwise",
        covers: Covers::Pointwise,
        sources: &[ACTIVATION, shader!("pointwise.wgsl")],
        constants: &[],
        access: &[Read, Read, Write],
        reads: 1,
        tile: (1, 64),
        barriers: false,
    },
    Variant {
        name: "shrink",
        covers: Covers::Shrink,
        sources: &[WEIGHTS, shader!("shrink.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Write],
        reads: 1,
        tile: (8, 8),
        barriers: false,
    },
    Variant {
        name: "project",
        covers: Covers::Project,
        sources: &[ACTIVATION, WEIGHTS, shader!("project.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Read, Read, Write],
        reads: 1,
        tile: (32, 8),
        barriers: false,
    },
    Variant {
        name: "mean",
        covers: Covers::Mean,
        sources: &[shader!("mean.wgsl")],
        constants: &[],
        access: &[Read, Read, Write],
        reads: 1,
        tile: (0, 1),
        barriers: false,
    },
    Variant {
        name: "attend",
        covers: Covers::Attend,
        sources: &[shader!("attend.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Write, Write],
        reads: 1,
        tile: (32, 0),
        barriers: false,
    },
    Variant {
        name: "gather",
        covers: Covers::Gather,
        sources: &[shader!("gather.wgsl")],
        constants: &[],
        access: &[Read, Read, Read, Write],
        reads: 1,
        tile: (0, 64),
        barriers: false,
    },
    Variant {
        name: "offset",
        covers: Covers::Offset,
        sources: &[shader!("offset.wgsl")],
        constants: &[],
        access: &[Read, Read, Write],
        reads: 1,
        tile: (1, 64),
        barriers: false,
    },
    Variant {
        name: "pool",
        covers: Covers::Pool,
        sources: &[shader!("pool.wgsl")],
        constants: &[],
        access: &[Read, Read, Write],
        reads: 1,
        tile: (1, 64),
        barriers: false,
    },
    Variant {
        name: "normalize",
        covers: Covers::Normalize,
        sources: &[shader!("normalize.wgsl")],
        constants: &[],
        access: &[Write],
        reads: 1,
        tile: (32, 0),
        barriers: false,
    },
];

/// A step's size, as far as a choice depends on it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// Rows it makes.
    pub(crate) rows: u32,
    /// Width of an attention head.
    pub(crate) head: u32,
}

/// Rows from which a tile is not mostly empty.
pub(crate) const TALL: u32 = 16;

/// Which variants run on this device.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    software: bool,
    /// Tests run every variant: this one wherever it fits.
    pub(crate) only: Option<&'static str>,
    /// What quantized linear layers run on in fast precision: `Linear`, or what is there and measured to be faster.
    pub(crate) fast: Covers,
    /// The tile for tall products: the fastest, once it has been measured.
    pub(crate) tall: (u32, u32),
}

impl Tuning {
    pub(crate) fn new(info: &DeviceInfo) -> Self {
        Self { software: info.software, only: None, fast: Covers::Linear, tall: (64, 16) }
    }
}

impl Variant {
    fn fits(&self, shape: Shape) -> bool {
        shape.head.is_multiple_of(self.reads)
    }

    /// Whether [`choose`] could pick it on this device for some shape like this one.
    pub(crate) fn usable(&self, shape: Shape, tuning: &Tuning) -> bool {
        self.fits(shape) && (self.worth(shape, tuning) || !self.barriers && self.covers == Covers::Linear)
    }

    /// Whether the choice is worth it: a tile that is mostly empty is not.
    fn worth(&self, shape: Shape, tuning: &Tuning) -> bool {
        match self.covers {
            Covers::Linear if self.barriers => !tuning.software && shape.rows >= TALL && tuning.tall == self.tile,
            Covers::Half => tuning.tall == self.tile,
            Covers::Norm => self.barriers != tuning.software,
            _ => true,
        }
    }
}

/// The variant that runs a step of this shape.
pub(crate) fn choose(covers: Covers, shape: Shape, tuning: &Tuning) -> Option<&'static Variant> {
    let fitting = || VARIANTS.iter().filter(move |v| v.covers == covers && v.fits(shape));
    if let Some(name) = tuning.only
        && let Some(variant) = fitting().find(|v| v.name == name)
    {
        return Some(variant);
    }
    match covers {
        Covers::Linear => {
            let tile = fitting().find(|v| v.barriers && v.worth(shape, tuning));
            tile.or_else(|| fitting().next())
        }
        _ => fitting().find(|v| v.worth(shape, tuning)).or_else(|| fitting().next()),
    }
}
