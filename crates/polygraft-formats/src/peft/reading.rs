//! The reading of one adapter: what every family's reader works with.

use super::config::Config;
use super::family::{Family, Reader};
use super::keys::{Keys, ROOT, SHARED};
use super::{CONFIG, biases, head, replication};
use crate::adapter::AdapterOptions;
use crate::bag::TensorBag;
use crate::error::{FormatError, Result};
use crate::json::Json;
use crate::names::{self, Part};
use polygraft::ir::{AdapterIr, BaseClaim, LinearSite, NormSite, Op, Patch, Site, Stands};
use polygraft::model::{HeadInput, HeadSpec, HeadTask, ModelSpec, RelativeTerms};
use polygraft::tensor::Matrix;

/// A linear layer that the configuration targets.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its path in the base, without the backbone's prefix.
    pub(super) path: String,
    /// Its path in the model that was wrapped, which the configuration's patterns are about.
    pub(super) module: String,
    /// Where it is.
    pub(super) site: LinearSite,
    /// Outputs.
    pub(super) rows: usize,
    /// Inputs.
    pub(super) cols: usize,
}

/// Another module that the configuration targets: an embedding table, or a norm.
#[derive(Debug, Clone)]
pub(super) struct Module {
    /// Its path in the base, without the backbone's prefix.
    pub(super) path: String,
    /// Its path in the model that was wrapped.
    pub(super) module: String,
    /// Where it is.
    pub(super) site: Site,
    /// Rows of a table.
    pub(super) rows: usize,
    /// Width.
    pub(super) cols: usize,
}

/// What has tensors in the file.
pub(super) trait Named {
    /// Its path in the base, without the backbone's prefix.
    fn path(&self) -> &str;
    /// Its path in the model that was wrapped.
    fn module(&self) -> &str;
    /// Whether the library has a convolution there: its tensors have more dimensions than a matrix.
    fn is_convolution(&self) -> bool {
        false
    }
}

impl Named for Target {
    fn path(&self) -> &str {
        &self.path
    }
    fn module(&self) -> &str {
        &self.module
    }
    fn is_convolution(&self) -> bool {
        self.site == LinearSite::Patches
    }
}

impl Named for Module {
    fn path(&self) -> &str {
        &self.path
    }
    fn module(&self) -> &str {
        &self.module
    }
}

/// One adapter, half read.
pub(super) struct Reading<'a> {
    pub(super) config: Config<'a>,
    pub(super) spec: &'a ModelSpec,
    copies: Option<Vec<u16>>,
    pub(super) options: &'a AdapterOptions,
    pub(super) family: &'static Family,
    keys: Keys,
    bag: TensorBag,
    head: Option<HeadSpec>,
    pub(super) patches: Vec<Patch>,
    missing: Vec<String>,
    /// Updates of the pooler of a base without one: nothing can read them.
    unread: Vec<String>,
    changed: Vec<Target>,
    /// What it makes of a row's shape.
    pub(super) rows: polygraft::ir::RowChange,
}

/// Reads an adapter of `family`.
pub(super) fn read(
    family: &'static Family,
    json: &Json,
    mut bag: TensorBag,
    spec: &ModelSpec,
    options: &AdapterOptions,
) -> Result<AdapterIr> {
    let load = match family.reader {
        Reader::Load(load) => load,
        Reader::Refused(why) => {
            let file = format!("{CONFIG}: {}", family.peft_type);
            return Err(FormatError::Unsupported { file, why: why.into() });
        }
    };
    let config = Config::parse(json, family, spec.arch)?;
    let copies = replication::copies(&config, spec)?;
    let replicated = copies.as_ref().map(|copies| spec.replicated(copies));
    let spec = replicated.as_ref().unwrap_or(spec);
    let mut keys = Keys::new(&bag, spec, &config, family);
    keys.twins.iter().for_each(|name| bag.ignore(name));
    let head = head::own(&keys, &bag, spec);
    let unread = head::unread_pooler(&mut keys, &mut bag, head.as_ref(), spec);
    let (patches, missing, changed, rows) = Default::default();
    let mut reading =
        Reading { config, spec, copies, options, family, keys, bag, head, patches, missing, unread, changed, rows };
    load(&mut reading)?;
    reading.finish()
}

impl Reading<'_> {
    /// The linear layers that get an update: those that the configuration means and the encoder has, and those outside
    /// the encoder (poolers, heads) for which there are tensors.
    pub(super) fn targets(&mut self) -> Result<Vec<Target>> {
        let mut out = Vec::new();
        for (path, part) in self.parts()? {
            let Part::Linear(site) = part else { continue };
            match self.linear_shape(site) {
                Some((rows, cols)) => {
                    out.push(Target { module: self.keys.wrapped(&path), path, site, rows, cols });
                }
                None => self.missing.push(format!("{path} (the base has no such layer)")),
            }
        }
        self.changed.clone_from(&out);
        Ok(out)
    }

    /// As [`Reading::targets`], and the pooler of the wrapped model even when there is nothing for it in the file: all
    /// that PEFT counts, in the order in which it does.
    pub(super) fn every_target(&mut self) -> Result<Vec<Target>> {
        let mut out = self.targets()?;
        let path = names::path(self.spec.arch, None, Part::Linear(LinearSite::Pooler));
        let module = self.keys.wrapped(&path);
        let has_one = match self.config.task {
            Some("SEQ_CLS") => {
                let kind = self.spec.head_kinds.get(&HeadTask::Sequence);
                kind.is_some_and(|k| matches!(k.input, HeadInput::Pooled(_)))
            }
            Some("TOKEN_CLS" | "QUESTION_ANS") => false,
            _ => true,
        };
        let there = path.is_empty() || out.iter().any(|t| t.site == LinearSite::Pooler);
        if has_one && !there && !self.is_saved(&module) && self.config.targets.contains(&module)? {
            let (rows, cols) = (self.spec.hidden, self.spec.hidden);
            out.push(Target { path, module, site: LinearSite::Pooler, rows, cols });
        }
        out.sort_by_key(|t| Site::Linear(t.site).is_head());
        Ok(out)
    }

    /// Whether the base or the adapter's own head has the target's layer.
    pub(super) fn is_there(&self, target: &Target) -> bool {
        self.linear_shape(target.site).is_some()
    }

    /// Whether the module at `path` in the wrapped model is saved whole, or lies in one that is.
    fn is_saved(&self, path: &str) -> bool {
        self.config.modules_to_save.iter().chain(&self.keys.automatic).any(|entry| inside(path, entry))
    }

    /// The embedding tables that get an update: those that the configuration means and for which there are tensors.
    pub(super) fn tables(&mut self) -> Result<Vec<Module>> {
        let mut out = Vec::new();
        for (path, part) in self.parts()? {
            match self.table(path, part) {
                Some(table) if self.is_run(table.site) => out.push(table),
                Some(table) => self.ignore_all(&table, ""),
                None => {}
            }
        }
        Ok(out)
    }

    /// Whether the library runs the module of a table, and with it what wraps it: DeBERTa takes the numbers of its relative
    /// positions out of theirs.
    fn is_run(&self, site: Site) -> bool {
        site != Site::Relative || self.spec.relative.is_some_and(|r| r.terms == RelativeTerms::Bias)
    }

    /// The embedding table that `part` is, if it is one, with the rows that the adapter's own has.
    pub(super) fn table(&self, path: String, part: Part) -> Option<Module> {
        let site = part.table()?;
        let base = self.spec.weight(self.spec.table(site)?);
        let own = self.keys.original(&format!("{path}.weight")).and_then(|o| self.bag.shape(o)?.first().copied());
        let rows = own.filter(|n| site == Site::Word && *n > base.rows).unwrap_or(base.rows);
        Some(Module { module: self.keys.wrapped(&path), path, site, rows, cols: base.cols })
    }

    /// A language model's output layer, at `path`.
    pub(super) fn output(&self, path: String, (rows, cols): (usize, usize)) -> Target {
        Target { module: self.keys.wrapped(&path), path, site: LinearSite::HeadOutput, rows, cols }
    }

    /// Every module that the configuration targets, as [`Reading::targets`].
    pub(super) fn parts(&self) -> Result<Vec<(String, Part)>> {
        let mut out = Vec::new();
        for (path, part) in self.modules() {
            if self.config.targets.contains(&self.keys.wrapped(&path))? {
                out.push((path, part));
            }
        }
        Ok(out)
    }

    /// Every module that is not saved whole, or is and has an update, too: of the encoder, and those outside it for which there
    /// are tensors.
    pub(super) fn modules(&self) -> Vec<(String, Part)> {
        let mut paths: Vec<String> = names::modules(self.spec).into_iter().map(|(path, _)| path).collect();
        let outside = |m: &&str| names::part(self.spec.arch, m).is_some_and(|p| !p.of_backbone());
        paths.extend(self.keys.modules().filter(outside).map(str::to_owned));
        // PEFT up to 0.14 trains an update inside a module that is saved whole, and the file has both.
        paths.retain(|path| self.keys.has_module(path) || !self.is_saved(&self.keys.wrapped(path)));
        let part = |path: String| names::part(self.spec.arch, &path).map(|part| (path, part));
        paths.into_iter().filter_map(part).collect()
    }

    /// `[outputs, inputs]` of a linear layer under the adapter.
    pub(super) fn linear_shape(&self, site: LinearSite) -> Option<(usize, usize)> {
        let unread = site == LinearSite::Pooler && !self.unread.is_empty();
        head::shape(site, self.head.as_ref(), self.spec).filter(|_| !unread)
    }

    /// Takes `name` of the target's module; `None`, and a line in the list of what is missing, when it is not there.
    pub(super) fn take(
        &mut self,
        target: &(impl Named + ?Sized),
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<f32>>> {
        let taken = self.optional(target, name, shape)?;
        if taken.is_none() {
            self.missing(target, name);
        }
        Ok(taken)
    }

    /// Takes `name` of the target's module as a matrix, in codes where the file has codes.
    pub(super) fn matrix(&mut self, target: &Target, name: &str, rows: usize, cols: usize) -> Result<Option<Matrix>> {
        if target.is_convolution() {
            return Ok(self.take(target, name, &[rows, cols])?.and_then(|values| Matrix::dense(rows, cols, values)));
        }
        let original = self.keys.at(target.path(), name);
        let taken = original.map_or(Ok(None), |original| self.bag.matrix(original, rows, cols))?;
        if taken.is_none() {
            self.missing(target, name);
        }
        Ok(taken)
    }

    /// Notes that `name` of the target's module is not there.
    pub(super) fn missing(&mut self, target: &(impl Named + ?Sized), name: &str) {
        self.missing.push(format!("{ROOT}{}.{name}", target.module()));
    }

    /// Takes `name` of the target's module, if it is there.
    pub(super) fn optional(
        &mut self,
        target: &(impl Named + ?Sized),
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<f32>>> {
        let original = self.keys.at(target.path(), name);
        let Some(original) = original else { return Ok(None) };
        let own = self.bag.shape(original).filter(|own| target.is_convolution() && unfolds(own, shape));
        let shape = own.map_or_else(|| shape.to_vec(), <[usize]>::to_vec);
        self.bag.take(original, &shape)
    }

    /// Takes `name` of the target's module as whole numbers, as [`Reading::take`] does floats.
    pub(super) fn ints(
        &mut self,
        target: &(impl Named + ?Sized),
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<i64>>> {
        let original = self.keys.at(target.path(), name);
        let taken = original.map_or(Ok(None), |original| self.bag.take_ints(original, shape))?;
        if taken.is_none() {
            self.missing(target, name);
        }
        Ok(taken)
    }

    /// Takes `name` of the target's module as places: whole numbers, stored as such or (SHiRA on Windows) as floats.
    pub(super) fn places(
        &mut self,
        target: &(impl Named + ?Sized),
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<usize>>> {
        let original = self.keys.at(target.path(), name);
        let floats = original.is_some_and(|o| self.bag.is_float(o));
        #[allow(clippy::cast_possible_truncation, reason = "what is cut off is refused below")]
        let whole = |v: Vec<f32>| v.into_iter().map(|x| if x.fract() == 0.0 { x as i64 } else { -1 }).collect();
        let taken = if floats { self.take(target, name, shape)?.map(whole) } else { self.ints(target, name, shape)? };
        let Some(numbers) = taken else { return Ok(None) };
        let places: std::result::Result<Vec<usize>, _> = numbers.into_iter().map(usize::try_from).collect();
        places.map(Some).map_err(|_| self.wrong(target, name, "whole numbers of 0 or more", "others"))
    }

    /// An error about the numbers in `name` of the target's module.
    pub(super) fn wrong(&self, target: &(impl Named + ?Sized), name: &str, expected: &str, found: &str) -> FormatError {
        let tensor = format!("{ROOT}{}.{name}", target.module());
        let file = self.bag.file().to_owned();
        FormatError::AdapterShape { file, tensor, expected: expected.into(), found: found.into() }
    }

    /// Whether the base's layer has a bias; a head that the adapter brings has one.
    pub(super) fn has_bias(&self, target: &Target) -> bool {
        biases::of_linear(self.spec, target.site)
    }

    /// Whether the base's norm has a shift; in a head it depends on the base's heads.
    pub(super) fn norm_has_bias(&self, site: NormSite) -> bool {
        biases::of_norm(self.spec, site)
    }

    /// Takes `name`, which is of no module.
    pub(super) fn own(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let taken = if self.keys.has_own(name) { self.bag.take(name, shape)? } else { None };
        if taken.is_none() {
            self.missing.push(name.to_owned());
        }
        Ok(taken)
    }

    /// The task that the wrapped model was made for, by `task_type`.
    pub(super) fn head_task(&self) -> Option<HeadTask> {
        self.keys.task
    }

    /// The head that the file brings.
    pub(super) fn head(&self) -> Option<&HeadSpec> {
        self.head.as_ref()
    }

    /// The path in the model that was wrapped.
    pub(super) fn wrapped(&self, path: &str) -> String {
        self.keys.wrapped(path)
    }

    /// Drops all of the target's module's own tensors whose names begin with `start`, which are known to do nothing.
    pub(super) fn ignore_all(&mut self, target: &(impl Named + ?Sized), start: &str) {
        let start = format!("{}.{start}", target.path());
        let own = self.keys.all().filter(|(bare, _)| bare.starts_with(&start));
        own.for_each(|(_, original)| self.bag.ignore(original));
    }

    /// Drops `name` of the target's module, which is known to do nothing.
    pub(super) fn ignore(&mut self, target: &(impl Named + ?Sized), name: &str) {
        if let Some(original) = self.keys.at(target.path(), name) {
            self.bag.ignore(original);
        }
    }

    /// The shape of `name` of the target's module.
    pub(super) fn shape(&self, target: &(impl Named + ?Sized), name: &str) -> Option<Vec<usize>> {
        let original = self.keys.at(target.path(), name)?;
        self.bag.shape(original).map(<[usize]>::to_vec)
    }

    /// Takes `name` of what the whole adapter shares (`base_model.NAME`); noted as missing when it is not there.
    pub(super) fn shared(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(original) = self.shared_original(name) else {
            self.shared_missing(name);
            return Ok(None);
        };
        self.bag.take(&original, shape)
    }

    /// Takes whole numbers as [`Reading::shared`].
    pub(super) fn shared_ints(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<i64>>> {
        let Some(original) = self.shared_original(name) else {
            self.shared_missing(name);
            return Ok(None);
        };
        self.bag.take_ints(&original, shape)
    }

    /// The shape of `name` of what the whole adapter shares.
    pub(super) fn shared_shape(&self, name: &str) -> Option<Vec<usize>> {
        self.bag.shape(&self.shared_original(name)?).map(<[usize]>::to_vec)
    }

    /// Drops `name` of what the whole adapter shares.
    pub(super) fn ignore_shared(&mut self, name: &str) {
        if let Some(original) = self.shared_original(name) {
            self.bag.ignore(&original);
        }
    }

    /// An error about the numbers in `name` of what the whole adapter shares.
    pub(super) fn shared_wrong(&self, name: &str, expected: &str, found: &str) -> FormatError {
        let (file, tensor) = (self.bag.file().to_owned(), format!("{SHARED}{name}"));
        FormatError::AdapterShape { file, tensor, expected: expected.into(), found: found.into() }
    }

    /// Notes that `name` of what the whole adapter shares is not there.
    pub(super) fn shared_missing(&mut self, name: &str) {
        self.missing.push(format!("{SHARED}{name}"));
    }

    fn shared_original(&self, name: &str) -> Option<String> {
        self.keys.original(&format!("{SHARED}{name}")).map(str::to_owned)
    }

    fn finish(mut self) -> Result<AdapterIr> {
        if self.changed.is_empty() && self.patches.is_empty() && self.keys.plain().next().is_none() {
            let (arch, layers) = (self.spec.arch.name(), self.spec.layers);
            let why = format!("it matches no layer of this base ({arch}, {layers} layers)");
            return Err(FormatError::AdapterConfig { file: CONFIG.into(), key: "target_modules".into(), why });
        }
        let Self { config, keys, head, bag, spec, patches, missing, changed, .. } = &mut self;
        head::overrides(config, keys, head.as_ref(), bag, spec, patches, missing)?;
        let promised = biases::promised(config, keys, changed, spec, patches);
        self.missing.extend(promised.required);
        self.patches.sort_by_key(|p| {
            let whole = match &p.op {
                Op::ReplaceLinear(_) => true,
                Op::Rewording(change) => change.0.stands_for() == Stands::Table,
                _ => false,
            };
            (p.site, !whole)
        });
        let left = self.bag.finish(self.options.strict, self.missing)?;
        Ok(AdapterIr {
            family: self.family.name,
            base: BaseClaim { name: self.config.base_name.map(str::to_owned), lineage: None },
            patches: self.patches,
            head: self.head,
            language: None,
            made_under: None,
            chains: false,
            fuses: None,
            rows: self.rows,
            copies: self.copies,
            unused: [left.extra, self.unread].concat(),
            missing: [left.missing, promised.lost].concat(),
        })
    }
}

/// Whether a convolution's tensor has the numbers of a matrix of shape `flat` in its order: dimensions of 1 more or less,
/// and the last ones side by side.
fn unfolds(own: &[usize], flat: &[usize]) -> bool {
    let many = |s: &[usize]| s.iter().copied().filter(|n| *n != 1).collect::<Vec<usize>>();
    let (own, flat) = (many(own), many(flat));
    let Some((last, first)) = flat.split_last() else { return own.is_empty() };
    own.strip_prefix(first).is_some_and(|rest| rest.iter().product::<usize>() == *last)
}

/// `(^|.*\.)ENTRY($|\..*)`: at or below a module that is saved whole.
fn inside(path: &str, entry: &str) -> bool {
    path.match_indices(entry).any(|(at, _)| {
        let (before, after) = (&path[..at], &path[at + entry.len()..]);
        (before.is_empty() || before.ends_with('.')) && (after.is_empty() || after.starts_with('.'))
    })
}
