//! Rows × compositions → a packed batch: rows sorted by composition, `cu_seqlens`, and one table a step that adapters share.

use crate::compose::{Resolved, SplitPart};
use crate::error::{Error, Result};
use crate::ir::{How, LayerLinear, LinearSite, NormSite, Op, Payload, Positions, RowChange, Site};
use crate::model::{Image, ModelSpec, RelativeTerms};
use crate::program::{Extent, OpKind, Program, Purpose, Relative, Segment, Table, TableDesc, Tables};
use crate::steps::NO_WORD;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// One sequence of a batch: token ids as they are run, special tokens included, or an image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types; all 0 when empty.
    pub token_types: Vec<u32>,
    /// An image, [`Image::numbers`](crate::model::Image::numbers) numbers; empty for text. Its tokens are the class token and its patches.
    pub pixels: Vec<f32>,
}

impl Row {
    /// An image's row on `spec`: the class token, then a token a patch, which is no word.
    #[must_use]
    pub fn image(pixels: Vec<f32>, spec: &ModelSpec) -> Self {
        let patches = spec.image.map_or(0, |image| image.patches());
        let ids = std::iter::once(0).chain(std::iter::repeat_n(NO_WORD, patches)).collect();
        Self { ids, token_types: Vec::new(), pixels }
    }
}

impl From<Vec<u32>> for Row {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }
}

/// Checks that the model can run `row` as it is.
///
/// # Errors
/// An empty row, an id or type outside its table, more tokens than positions.
pub fn check_row(index: usize, row: &Row, spec: &ModelSpec, vocabulary: usize) -> Result<()> {
    let bad = |why: String| Err(Error::Row { row: index, why });
    match (spec.image, row.pixels.as_slice()) {
        (Some(image), pixels) => {
            check_image(pixels, image, spec).or_else(bad)?;
            let own = row.ids == Row::image(Vec::new(), spec).ids && row.token_types.is_empty();
            return if own { Ok(()) } else { bad("it is an image with other tokens than its patches".into()) };
        }
        (None, []) => {}
        (None, _) => {
            return bad(format!("it is an image, and this base ({}) reads text: give token ids", spec.arch.name()));
        }
    }
    if row.ids.is_empty() {
        return bad("it has no token; a row needs at least one".into());
    }
    if row.ids.len() > spec.max_positions {
        return Err(Error::TooLong { row: index, tokens: row.ids.len(), limit: spec.max_positions });
    }
    if let Some((at, id)) = row.ids.iter().enumerate().find(|(_, id)| **id as usize >= vocabulary) {
        return bad(format!(
            "token {at} has id {id}; the vocabulary has {vocabulary} entries (0 to {})",
            vocabulary - 1
        ));
    }
    if !row.token_types.is_empty() && row.token_types.len() != row.ids.len() {
        return bad(format!("{} token types for {} tokens", row.token_types.len(), row.ids.len()));
    }
    let types = spec.token_types.max(1);
    if let Some(t) = row.token_types.iter().find(|t| **t as usize >= types) {
        return bad(format!("token type {t}; the model has {types} (0 to {})", types - 1));
    }
    Ok(())
}

/// Checks that `pixels` are what the base reads.
fn check_image(pixels: &[f32], image: Image, spec: &ModelSpec) -> Result<(), String> {
    let Image { channels, size: [height, width], .. } = image;
    let want = format!("{channels} × {height} × {width} numbers (channels, height, width)");
    if pixels.is_empty() {
        return Err(format!("this base ({}) reads images: give `pixels`, {want} a row", spec.arch.name()));
    }
    if pixels.len() != image.numbers() {
        return Err(format!(
            "its image has {} numbers, this base reads {want}: resize it to the base's size and give all channels",
            pixels.len()
        ));
    }
    match pixels.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(format!("number {at} of its image is {}: give finite numbers", pixels[at])),
        None => Ok(()),
    }
}

/// The order in which rows are packed, and the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `order[p]` is the caller's index of packed row `p`.
    pub order: Vec<usize>,
    /// Which composition packed row `p` takes.
    pub compositions: Vec<usize>,
}

impl Layout {
    /// Sorts rows by composition, keeping the caller's order inside each.
    #[must_use]
    pub fn new(compositions: &[usize]) -> Self {
        let mut order: Vec<usize> = (0..compositions.len()).collect();
        order.sort_by_key(|&row| compositions[row]);
        let compositions = order.iter().map(|&row| compositions[row]).collect();
        Self { order, compositions }
    }

    /// Where the caller's row `row` is packed.
    #[must_use]
    pub fn packed(&self) -> Vec<usize> {
        let mut at = vec![0; self.order.len()];
        for (packed, &row) in self.order.iter().enumerate() {
            at[row] = packed;
        }
        at
    }
}

/// Position ids: BERT counts tokens; RoBERTa counts the tokens that are not padding, from its offset, and gives a
/// padding id inside a row the padding's own position (`create_position_ids_from_input_ids`).
pub(crate) fn positions(ids: &[u32], spec: &ModelSpec) -> Vec<u32> {
    let Some(pad) = spec.position_offset.checked_sub(1) else { return (0..ids.len() as u32).collect() };
    let mut next = spec.position_offset;
    let place = |id: &u32| {
        if *id == pad {
            return pad;
        }
        next += 1;
        next - 1
    };
    ids.iter().map(place).collect()
}

/// A row as it runs: virtual tokens in their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// Token ids; the padding's for virtual tokens.
    pub ids: Vec<u32>,
    /// Position ids.
    pub positions: Vec<u32>,
    /// Token types.
    pub types: Vec<u32>,
    /// Which are virtual.
    pub virtuals: Range<usize>,
}

/// Lays `row` out as `change` says.
#[must_use]
pub fn lay(row: &Row, change: RowChange, spec: &ModelSpec) -> Laid {
    let n = change.virtual_tokens as usize;
    let at = usize::from(change.after_first).min(row.ids.len());
    let own = positions(&row.ids, spec);
    let start = spec.position_offset;
    let plain = row.token_types.is_empty() || change.drops_types;
    let mut types = if plain { vec![0; row.ids.len()] } else { row.token_types.clone() };
    let mut ids = row.ids.clone();
    let mut positions = match change.positions {
        Positions::Own => own,
        Positions::Shifted(by) => {
            // A padding id inside a row keeps the padding's own position.
            let pad = start.checked_sub(1);
            own.into_iter().map(|p| if Some(p) == pad { p } else { p + by }).collect()
        }
        Positions::Sequence => (start..).take(row.ids.len() + n).collect(),
    };
    if change.positions != Positions::Sequence {
        positions.splice(at..at, std::iter::repeat_n(start, n));
    }
    ids.splice(at..at, std::iter::repeat_n(spec.special.pad.min(spec.vocab as u32 - 1), n));
    types.splice(at..at, std::iter::repeat_n(0, n));
    Laid { ids, positions, types, virtuals: at..at + n }
}

/// Checks that `row` has room for what its composition adds.
///
/// # Errors
/// More positions than the model has.
pub fn check_room(index: usize, row: &Row, change: RowChange, spec: &ModelSpec) -> Result<()> {
    let tokens = row.ids.len() + change.places();
    if tokens > spec.max_positions {
        return Err(Error::TooLong { row: index, tokens, limit: spec.max_positions });
    }
    Ok(())
}

/// Fills the tables of one call.
///
/// `resolved[layout.compositions[p]]` is what packed row `p` takes. Rows must have passed [`check_row`].
#[must_use]
pub fn fill(program: &Program, spec: &ModelSpec, rows: &[Row], layout: &Layout, resolved: &[&Resolved]) -> Tables {
    let mut out = Tables { cu_seqlens: vec![0], ..Tables::default() };
    let mut virtuals = Vec::with_capacity(rows.len());
    for (&index, &composition) in layout.order.iter().zip(&layout.compositions) {
        let laid = lay(&rows[index], resolved[composition].rows, spec);
        let start = out.ids.len();
        if let Some(image) = spec.image {
            // Patches are the last tokens of a row; those before them are none, and have zeros.
            let own = laid.ids.len() - image.patches();
            let pixels = out.pixels.get_or_insert_default();
            pixels.resize((start + own) * image.width(), 0.0);
            image.unfold(&rows[index].pixels, pixels);
        }
        virtuals.push(start + laid.virtuals.start..start + laid.virtuals.end);
        out.ids.extend(laid.ids);
        out.positions.extend(laid.positions);
        out.token_types.extend(laid.types);
        out.cu_seqlens.push(out.ids.len() as u32);
    }
    let mut payloads = Payloads::default();
    let entries: Vec<HashMap<Purpose, Vec<Entry>>> = resolved.iter().map(|r| entries(r, &mut payloads)).collect();
    let parts = Parts { spec, order: &layout.order, rows, virtuals: &virtuals };
    out.relative = relative(program, spec, &out, layout);
    out.tables = program.tables.iter().map(|desc| table(desc, &out, layout, &entries, &parts)).collect();
    out.payloads = payloads.list;
    out
}

#[derive(Default)]
struct Payloads {
    list: Vec<Arc<Payload>>,
    by_id: HashMap<crate::ir::PayloadId, u32>,
}

impl Payloads {
    fn index(&mut self, payload: &Arc<Payload>) -> u32 {
        // What a blend is made of comes along: backends pack it by its own identity.
        if let Op::Blend(blend) = &payload.op {
            blend.payloads().for_each(|p| {
                self.index(p);
            });
        }
        *self.by_id.entry(payload.id).or_insert_with(|| {
            self.list.push(payload.clone());
            self.list.len() as u32 - 1
        })
    }
}

#[derive(Clone, PartialEq)]
struct Entry {
    payload: Option<u32>,
    scale: f32,
    part: Vec<SplitPart>,
}

/// What cuts rows into the parts of a split.
struct Parts<'a> {
    spec: &'a ModelSpec,
    order: &'a [usize],
    rows: &'a [Row],
    /// Virtual tokens of each packed row.
    virtuals: &'a [Range<usize>],
}

impl Parts<'_> {
    /// The patches of the image whose tokens are `row`.
    fn patches(&self, row: Range<usize>) -> Range<usize> {
        row.end - self.spec.image.map_or(0, |image| image.patches())..row.end
    }

    /// The part of packed row `packed`, whose tokens are `row`.
    fn of(&self, packed: usize, row: Range<usize>, part: &[SplitPart]) -> Range<usize> {
        let ids = &self.rows[self.order[packed]].ids;
        let mut out = row.clone();
        for step in part {
            // Nested splits cut what the outer one left.
            let at = out.start - row.start;
            let local = &ids[at.min(ids.len())..(at + out.len()).min(ids.len())];
            let cut = step.range(out.len(), local, self.spec.special.separator).unwrap_or(0..0);
            out = out.start + cut.start..out.start + cut.end;
        }
        out
    }
}

/// What a composition puts into each kind of table.
fn entries(resolved: &Resolved, payloads: &mut Payloads) -> HashMap<Purpose, Vec<Entry>> {
    let mut out: HashMap<Purpose, Vec<Entry>> = HashMap::new();
    let rows = || vec![Entry { payload: None, scale: 1.0, part: Vec::new() }];
    for placed in &resolved.placed {
        let payload = Some(payloads.index(&placed.payload));
        let entry = Entry { payload, scale: placed.scale, part: placed.part.clone() };
        out.entry(placed.purpose()).or_default().push(entry);
        if placed.site == Site::Pooled {
            out.insert(Purpose::Shifted, rows());
        }
    }
    out.extend(resolved.unnormed.iter().map(|site| (Purpose::Unnormed(*site), rows())));
    out.insert(Purpose::Stack(resolved.stack.as_ref().map_or(0, |s| s.first)), rows());
    out.insert(Purpose::Image, rows());
    if let Some(head) = &resolved.head {
        out.insert(Purpose::Head(head.key()), rows());
    }
    out
}

fn table(
    desc: &TableDesc,
    tables: &Tables,
    layout: &Layout,
    entries: &[HashMap<Purpose, Vec<Entry>>],
    parts: &Parts<'_>,
) -> Table {
    let mut segments: Vec<Segment> = Vec::new();
    for (packed, &composition) in layout.compositions.iter().enumerate() {
        let Some(entries) = entries[composition].get(&desc.purpose) else { continue };
        let mut ranges: Vec<(Range<usize>, &Entry)> = entries
            .iter()
            .map(|entry| match desc.extent {
                Extent::Tokens if is_prompt(desc.purpose) => (parts.virtuals[packed].clone(), entry),
                Extent::Tokens if desc.purpose == Purpose::Image => (parts.patches(tables.row(packed)), entry),
                Extent::Tokens => (parts.of(packed, tables.row(packed), &entry.part), entry),
                Extent::Rows => (packed..packed + 1, entry),
                Extent::Positions => (tables.relative.as_ref().map_or(0..0, |r| own_block(r, packed)), entry),
            })
            .filter(|(range, _)| !range.is_empty())
            .collect();
        ranges.sort_by_key(|(range, _)| range.start);
        for (part, (range, entry)) in ranges.into_iter().enumerate() {
            match segments.last_mut() {
                // Rows of one segment stay apart in the steps; parts of a row would not, and gates are means over them.
                Some(last)
                    if part == 0
                        && last.range.end == range.start
                        && last.payload == entry.payload
                        && last.scale == entry.scale =>
                {
                    last.range.end = range.end;
                }
                _ => segments.push(Segment { range, payload: entry.payload, scale: entry.scale }),
            }
        }
    }
    Table { segments }
}

/// The places of packed row `packed`'s block, said once: by the block's first row.
fn own_block(relative: &Relative, packed: usize) -> Range<usize> {
    let block = relative.blocks[packed];
    let first = packed == 0 || relative.blocks[packed - 1] != block;
    if first { relative.block(block as usize) } else { 0..0 }
}

/// Relative positions as far as this batch reaches; a block a composition where adapters change what they give.
fn relative(program: &Program, spec: &ModelSpec, tables: &Tables, layout: &Layout) -> Option<Relative> {
    let own = spec.relative?.buckets;
    let longest = (0..tables.rows()).map(|row| tables.row(row).len()).max().unwrap_or(1);
    let reach = i32::try_from(longest).unwrap_or(i32::MAX) - 1;
    let rows: Vec<u32> = (-reach..=reach).map(|distance| own.row(distance)).collect();
    let patched = |d: &TableDesc| d.extent == Extent::Positions;
    let whole = |d: &TableDesc| matches!(d.purpose, Purpose::Patches { op: OpKind::MixedLowRank, .. });
    // A gate is a mean over all positions.
    let buckets: Vec<u32> = if program.tables.iter().any(|d| patched(d) && whole(d)) {
        (0..own.rows()).collect()
    } else {
        rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let places = rows.iter().filter_map(|row| buckets.binary_search(row).ok()?.try_into().ok()).collect();
    let mut blocks = vec![0; tables.rows()];
    if program.tables.iter().any(patched) {
        for row in 1..blocks.len() {
            blocks[row] = blocks[row - 1] + u32::from(layout.compositions[row] != layout.compositions[row - 1]);
        }
    }
    Some(Relative { buckets, blocks, places, embedded: None })
}

fn is_prompt(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Patches { op: OpKind::Prompt, .. })
}

/// Checks that the splits of `resolved` cut `row`.
///
/// # Errors
/// A row shorter than its parts, or without the separator that a split looks for.
pub fn check_splits(index: usize, row: &Row, resolved: &Resolved, spec: &ModelSpec) -> Result<()> {
    for placed in &resolved.placed {
        if !placed.part.is_empty() && gives_positions(placed.site, spec) {
            let why = format!(
                "{} splits it at {}, where this base reads relative positions, which are of no part",
                resolved.text, placed.site
            );
            return Err(Error::Row { row: index, why });
        }
        let mut ids = row.ids.as_slice();
        for step in &placed.part {
            let cut = step.range(ids.len(), ids, spec.special.separator).map_err(|why| Error::ComposeUndefined {
                text: resolved.text.clone(),
                why: format!("it cannot split row {index}: {why}"),
            })?;
            ids = &ids[cut];
        }
        check_blend(&placed.payload, ids).map_err(|why| Error::ComposeUndefined {
            text: resolved.text.clone(),
            why: format!("it cannot split row {index}: {why}"),
        })?;
    }
    Ok(())
}

/// Checks that the splits inside a blend cut `ids`.
fn check_blend(payload: &Payload, ids: &[u32]) -> std::result::Result<(), String> {
    let Op::Blend(blend) = &payload.op else { return Ok(()) };
    for (index, part) in blend.parts.iter().enumerate() {
        let own = match &blend.how {
            How::Split { shares, separator } => {
                &ids[SplitPart { shares: shares.clone(), index }.range(ids.len(), ids, *separator)?]
            }
            _ => ids,
        };
        part.chain.iter().try_for_each(|(member, _)| check_blend(member, own))?;
    }
    Ok(())
}

/// Checks that `row` is long enough for interventions at its end that count its own tokens alone.
///
/// # Errors
/// Fewer tokens than that: the library looks for positions before the first and stops.
pub fn check_interventions(index: usize, row: &Row, resolved: &Resolved) -> Result<()> {
    for placed in &resolved.placed {
        let Op::Reft(own) = &placed.payload.op else { continue };
        let tokens = row.ids.len();
        if own.uncounted > 0 && tokens < own.suffix as usize {
            let why = format!(
                "it has {tokens} tokens, and {} intervenes in its last {} beside {} virtual tokens, which the library cannot on a row that short",
                placed.adapter, own.suffix, own.uncounted
            );
            return Err(Error::Row { row: index, why });
        }
    }
    Ok(())
}

/// Whether what stands at `site` changes what relative positions give.
fn gives_positions(site: Site, spec: &ModelSpec) -> bool {
    if site == Site::Relative {
        return true;
    }
    let Some(RelativeTerms::Projected { shared, .. }) = spec.relative.map(|r| r.terms) else { return false };
    match site {
        Site::Norm(NormSite::Positions) => true,
        Site::Linear(LinearSite::Layer(_, LayerLinear::Key | LayerLinear::Query)) => shared,
        Site::Linear(LinearSite::Layer(_, LayerLinear::PositionKey | LayerLinear::PositionQuery)) => true,
        _ => false,
    }
}
