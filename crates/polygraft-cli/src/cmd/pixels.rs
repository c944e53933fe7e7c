//! The images of a request: `pixel_values`, `[images, channels, height, width]`, in a safetensors file, as transformers'
//! image processors give them: resized and normalised.

use crate::error::{Error, Result};
use crate::files::Disk;
use polygraft::model::{Image, ModelSpec};
use polygraft_formats::{Files, bag::TensorBag, source};
use std::path::{Path, PathBuf};

/// The tensor's name.
const TENSOR: &str = "pixel_values";

/// Images of one shape.
pub(crate) struct Pixels {
    path: PathBuf,
    /// Channels, height, width.
    shape: [usize; 3],
    /// One after the other.
    pub(crate) images: Vec<Vec<f32>>,
}

/// Reads the images at `path`: at least one.
pub(crate) fn read(path: &Path) -> Result<Pixels> {
    let disk = Disk::open(path)?;
    let [name] = &disk.names()[..] else {
        return Err(Error::Content { path: path.into(), why: format!("it is a folder; give a file with `{TENSOR}`") });
    };
    let format = |source| Error::Format { path: path.into(), source };
    let bad = |why: String| Error::Content { path: path.into(), why };
    let bytes = disk.read(name, source::ADAPTER).map_err(format)?;
    let mut bag = TensorBag::open(name, bytes).map_err(format)?;
    let Some(shape) = bag.shape(TENSOR).map(<[usize]>::to_vec) else {
        return Err(bad(format!("it has no tensor {TENSOR:?}: give [images, channels, height, width] floats")));
    };
    let (&[count, channels, height, width], false) = (&shape[..], shape.contains(&0)) else {
        return Err(bad(format!("{TENSOR} is {shape:?}; give [images, channels, height, width], none of them 0")));
    };
    let values = bag.take(TENSOR, &shape).map_err(format)?.unwrap_or_default();
    bag.finish(true, Vec::new()).map_err(format)?;
    let images = values.chunks_exact(values.len() / count).map(<[f32]>::to_vec).collect();
    Ok(Pixels { path: path.into(), shape: [channels, height, width], images })
}

impl Pixels {
    /// Checks that `spec` reads images of this shape.
    pub(crate) fn check(&self, spec: &ModelSpec) -> Result<()> {
        let Some(Image { channels, size: [height, width], .. }) = spec.image else { return Ok(()) };
        if self.shape == [channels, height, width] {
            return Ok(());
        }
        let [c, h, w] = self.shape;
        let why = format!(
            "{TENSOR} has {c} channels of {h} × {w}, this base reads {channels} of {height} × {width}: \
             have its image processor make them"
        );
        Err(Error::Content { path: self.path.clone(), why })
    }
}
