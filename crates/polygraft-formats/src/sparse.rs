//! Sparse fine-tunings as composable-sft saves them (LT-SFT): one file, `pytorch_diff.bin`, with what is added to some
//! elements of the base's parameters, and the parameters that stand for the base's: a head.
//!
//! Several add up on the base's own weights, a language's and a task's, in any order.

use crate::adapter::{AdapterOptions, HeadForm};
use crate::bag::TensorBag;
use crate::change::Change;
use crate::container::torch::{self, Diff, Diffs};
use crate::error::{FormatError, Result, shown};
use crate::names::{self, Param, Part};
use crate::packed;
use polygraft::ir::{
    AdapterIr, BaseClaim, Dense, LinearSite, Meeting, Norm, NormSite, Op, Patch, Reweight, Reword, Rewording,
    RowChange, Site,
};
use polygraft::model::{HeadSpec, HeadTask, ModelSpec};
use std::collections::BTreeMap;

/// The file's name.
pub const FILE: &str = "pytorch_diff.bin";

/// What the documents and reports say of it.
pub struct Family {
    /// Its name in reports.
    pub name: &'static str,
    /// Method and paper.
    pub paper: &'static str,
    /// The patches that it becomes.
    pub ops: &'static str,
    /// Whether it can be folded into the base's weights.
    pub merges: bool,
}

/// The only format of the library.
pub const FAMILY: Family = Family {
    name: "lt-sft",
    paper: "LT-SFT (Ansell et al. 2022, arXiv 2110.07560), composable-sft",
    ops: "change of weights, change of embeddings, head",
    merges: false,
};

/// Reads `file`, whose bytes are `data`, for the base `spec`; `None` when it is something else that torch saved.
///
/// The language model's head of a language's fine-tuning is left out on a base that has none, as the library does
/// (`with_abs=False`).
///
/// # Errors
/// [`FormatError::AdapterKeys`], [`FormatError::AdapterShape`], [`FormatError::NotFinite`], and what the file is refused for.
pub(crate) fn load(file: &str, data: Vec<u8>, spec: &ModelSpec, options: &AdapterOptions) -> Result<Option<AdapterIr>> {
    let Some(Contents { diffs, abs, bag }) = contents(file, data)? else { return Ok(None) };
    let mut reading = Reading { spec, bag, patches: Vec::new() };
    for diff in &diffs {
        reading.diff(diff)?;
    }
    let names: Vec<&str> = abs.iter().map(String::as_str).collect();
    let (head, missing) = reading.head(&names, options)?;
    let Reading { bag, mut patches, .. } = reading;
    patches.sort_by_key(|p| p.site);
    let left = bag.finish(options.strict, missing)?;
    if patches.is_empty() && options.strict {
        return Err(FormatError::NotAModel { why: format!("{file} changes nothing of this base") });
    }
    Ok(Some(AdapterIr {
        family: FAMILY.name,
        base: BaseClaim::default(),
        patches,
        head,
        language: None,
        made_under: None,
        chains: false,
        fuses: None,
        rows: RowChange::default(),
        copies: None,
        unused: left.extra,
        missing: left.missing,
    }))
}

/// What a sparse fine-tuning holds, whatever its container.
pub(crate) struct Contents {
    /// The differences.
    pub(crate) diffs: Vec<Diff<()>>,
    /// The names of the parameters that stand for the base's.
    pub(crate) abs: Vec<String>,
    /// The values of both, by the parameters' names.
    pub(crate) bag: TensorBag,
}

fn contents(file: &str, data: Vec<u8>) -> Result<Option<Contents>> {
    if !torch::is_torch(&data) {
        return packed::read_diffs(file, data);
    }
    let Some(Diffs { diffs, abs }) = torch::diffs(file, &data)? else { return Ok(None) };
    if let Some(twin) = diffs.iter().find(|d| abs.iter().any(|(name, _)| *name == d.name)) {
        return Err(FormatError::Duplicate { file: file.into(), name: shown(&twin.name) });
    }
    let names = abs.iter().map(|(name, _)| name.clone()).collect();
    let values = diffs.iter().map(|d| (d.name.clone(), d.values.clone()));
    let bag = TensorBag::of(file, data, values.chain(abs));
    let diffs = diffs.into_iter().map(|Diff { name, size, places, .. }| Diff { name, size, places, values: () });
    Ok(Some(Contents { diffs: diffs.collect(), abs: names, bag }))
}

struct Reading<'a> {
    spec: &'a ModelSpec,
    bag: TensorBag,
    patches: Vec<Patch>,
}

impl Reading<'_> {
    /// What is added to some elements of one parameter; what the base does not have is left in the bag.
    fn diff(&mut self, diff: &Diff<()>) -> Result<()> {
        let Some((part, param)) = names::tensor(self.spec.arch, &diff.name) else { return Ok(()) };
        let Some((site, rows, cols)) = self.place(part) else { return Ok(()) };
        let shape = if param == Param::Weight && cols > 1 { vec![rows, cols] } else { vec![rows] };
        let wrong = |expected: String, found: String| FormatError::AdapterShape {
            file: self.bag.file().to_owned(),
            tensor: shown(&diff.name),
            expected,
            found,
        };
        if diff.size != shape {
            return Err(wrong(format!("{shape:?}"), format!("{:?}", diff.size)));
        }
        let count = diff.places.len();
        let numel = rows as u64 * if shape.len() == 2 { cols as u64 } else { 1 };
        if let Some(beyond) = diff.places.iter().find(|p| **p >= numel) {
            return Err(wrong(format!("indexes below {numel}"), beyond.to_string()));
        }
        let Some(values) = self.bag.take(&diff.name, &[count])? else { return Ok(()) };
        // Stored with the first dimension fastest; a matrix here has its last one fastest.
        let split = |p: u64| (u32::try_from(p % rows as u64).unwrap_or(u32::MAX), (p / rows as u64) as usize);
        let entries = diff.places.iter().map(|p| split(*p)).zip(values).map(|((row, col), v)| Entry { row, col, v });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by_key(|e| (e.row, e.col));
        if self.spec.table(site).is_some() {
            if site == Site::Word && self.tied() {
                // The language model's output layer is the same table, and moves with it.
                self.adds(Site::Linear(LinearSite::HeadOutput), (rows, cols), Param::Weight, entries.clone());
            }
            self.patches
                .push(Patch { site, op: Op::Rewording(Rewording::new(Words { shape: (rows, cols), entries })) });
        } else {
            self.adds(site, (rows, cols), param, entries);
        }
        Ok(())
    }

    /// The base's module, as rows and columns of its weight; a norm has one column.
    fn place(&self, part: Part) -> Option<(Site, usize, usize)> {
        let spec = self.spec;
        let shape = |id| (spec.weight(id).rows, spec.weight(id).cols);
        match part {
            Part::Linear(site) => {
                let (rows, cols) = shape(spec.linears.get(&site)?.weight);
                Some((Site::Linear(site), rows, cols))
            }
            Part::Norm(site) => Some((Site::Norm(site), spec.weight(spec.norms.get(&site)?.gamma).cols, 1)),
            Part::Word | Part::Position | Part::TokenType | Part::Relative => {
                let site = part.table()?;
                let (rows, cols) = shape(spec.table(site)?);
                Some((site, rows, cols))
            }
        }
    }

    fn tied(&self) -> bool {
        let output = self.spec.linears.get(&LinearSite::HeadOutput);
        output.is_some_and(|l| l.weight == self.spec.embeddings.word)
    }

    fn adds(&mut self, site: Site, shape: (usize, usize), param: Param, entries: Vec<Entry>) {
        let held = 4 * entries.len();
        let apply = move |layer: &mut polygraft::ir::Layer, _: &polygraft::ir::Layer| {
            // A task's own output layer has another shape than the base's tied one, and is not that.
            if (layer.rows, layer.cols) == shape {
                let cols = layer.cols;
                for e in &entries {
                    let row = e.row as usize;
                    match param {
                        Param::Weight => layer.weight[row * cols + e.col] += e.v,
                        Param::Bias => layer.bias_mut()[row] += e.v,
                    }
                }
            }
            Ok(())
        };
        let changes_weight = param == Param::Weight;
        let change = Change { family: FAMILY.name, shape, meeting: Meeting::Adds, changes_weight, held, apply };
        self.patches.push(Patch { site, op: Op::Reweight(Reweight::new(change)) });
    }

    /// The head among the parameters `names` that stand for the base's, with what it lacks.
    fn head(&mut self, names: &[&str], options: &AdapterOptions) -> Result<(Option<HeadSpec>, Vec<String>)> {
        let spec = self.spec;
        let said = options.head.map(|form| match form {
            HeadForm::Sequence => HeadTask::Sequence,
            HeadForm::Token => HeadTask::Token,
        });
        let hint = said.or(spec.head.as_ref().map(|h| h.task));
        let Some(task) = names::head_task(spec.arch, names.iter().copied(), hint) else {
            return Ok((None, Vec::new()));
        };
        let Some(kind) = spec.head_kinds.get(&task).copied() else { return Ok((None, Vec::new())) };
        let parts = || names.iter().filter_map(|n| Some((*n, names::tensor(spec.arch, n)?)));
        let output = Part::Linear(LinearSite::HeadOutput);
        let words = task == HeadTask::MaskedLm;
        if words && spec.head.as_ref().is_none_or(|h| h.task != task) {
            for (name, (part, _)) in parts() {
                if !part.of_backbone() && part != Part::Linear(LinearSite::Pooler) {
                    self.bag.ignore(name);
                }
            }
            return Ok((None, Vec::new()));
        }
        let own = parts().find(|(_, found)| *found == (output, Param::Weight)).and_then(|(n, _)| self.bag.shape(n));
        let labels = if words { Some(spec.vocab) } else { own.and_then(|s| s.first().copied()) };
        let Some(labels) = labels else { return Ok((None, Vec::new())) };
        let mut linears: BTreeMap<LinearSite, Dense> = BTreeMap::new();
        let mut norms: BTreeMap<NormSite, Norm> = BTreeMap::new();
        for (name, (part, param)) in parts() {
            match part {
                Part::Linear(site) => {
                    let shape = kind.shape(site, labels, spec.hidden);
                    let Some((rows, cols)) = shape.or_else(|| spec.linear_shape(site)) else { continue };
                    let dense = linears.entry(site).or_insert(Dense { weight: None, bias: None });
                    match param {
                        Param::Weight => dense.weight = self.bag.matrix(name, rows, cols)?,
                        Param::Bias => dense.bias = self.bag.take(name, &[rows])?,
                    }
                }
                Part::Norm(site @ NormSite::HeadDense(_)) if kind.has(Site::Norm(site)) => {
                    let norm = norms.entry(site).or_insert(Norm { gamma: None, beta: None });
                    let values = self.bag.take(name, &[kind.width as usize])?;
                    *(if param == Param::Weight { &mut norm.gamma } else { &mut norm.beta }) = values;
                }
                _ => {}
            }
        }
        let mut missing = Vec::new();
        for site in kind.linears().filter(|s| !words && *s != LinearSite::Pooler) {
            if linears.get(&site).is_none_or(|d| d.weight.is_none()) {
                missing.push(format!("{}.weight", names::path(spec.arch, Some(task), Part::Linear(site))));
            }
        }
        let linear = |(site, op)| Patch { site: Site::Linear(site), op: Op::ReplaceLinear(op) };
        self.patches.extend(linears.into_iter().map(linear));
        let norm = |(site, op)| Patch { site: Site::Norm(site), op: Op::ReplaceNorm(op) };
        self.patches.extend(norms.into_iter().map(norm));
        let labels = u32::try_from(labels).unwrap_or(u32::MAX);
        let names = Vec::new();
        let head = HeadSpec { kind, task, labels, uncouples: false, label_names: names, score_activation: None };
        Ok((Some(head), missing))
    }
}

/// An element that changes.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: u32,
    col: usize,
    v: f32,
}

/// A change of some numbers of an embedding table.
#[derive(Debug)]
struct Words {
    shape: (usize, usize),
    /// By row.
    entries: Vec<Entry>,
}

impl Reword for Words {
    fn apply(&self, id: u32, row: &mut [f32]) {
        let start = self.entries.partition_point(|e| e.row < id);
        for e in self.entries.iter().skip(start).take_while(|e| e.row == id) {
            if let Some(x) = row.get_mut(e.col) {
                *x += e.v;
            }
        }
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
    }
}
