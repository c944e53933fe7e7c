//! The boundary to JavaScript: convert, call, convert. What is behind it (`engine`, `loading`) knows no JavaScript type
//! and is tested natively.
//!
//! Nothing here waits: a job is advanced for some milliseconds at a time, so that whoever calls gets back to its event
//! loop. Failures are thrown as `Error` with a stable `code`. A panic is a defect and stops the instance for good: it is a
//! trap without a message, whose text and formatting would be 3 % of the download; `scripts/where.mjs` names the functions
//! of its stack. So is memory that cannot be had, which [`refused_bytes`] tells from it.

#![cfg_attr(all(target_arch = "wasm32", target_feature = "relaxed-simd"), feature(asm_experimental_arch))]

mod disk;
mod duo;
mod engine;
mod failure;
mod folder;
mod loading;
mod requests;
mod satellite;
#[cfg(test)]
mod tests;

use failure::Failure;
use js_sys::Promise;
use polygraft::backend::Poll;
use sha2::{Digest, Sha256};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

polygraft_cpu::assembly!();

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Error)]
    type JsError;
    #[wasm_bindgen(constructor, js_class = "Error")]
    fn new(message: &str) -> JsError;
    #[wasm_bindgen(method, setter, js_class = "Error")]
    fn set_code(this: &JsError, code: &str);
    #[wasm_bindgen(method, getter, js_class = "Error")]
    fn message(this: &JsError) -> String;

    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn now() -> f64;
}

/// As JavaScript sees a failure.
fn throw(failure: Failure) -> JsValue {
    // Whoever asked for too much has been told.
    REFUSED.store(0, Ordering::Relaxed);
    let error = JsError::new(&failure.message);
    error.set_code(failure.code);
    error.into()
}

/// The standard allocator, which remembers what it had no memory for: a trap for want of memory looks like any other.
struct Remembering;

static REFUSED: AtomicUsize = AtomicUsize::new(0);

impl Remembering {
    fn noted(pointer: *mut u8, bytes: usize) -> *mut u8 {
        if pointer.is_null() {
            REFUSED.store(bytes, Ordering::Relaxed);
        }
        pointer
    }
}

// SAFETY: every call is passed on as it is, and its result returned.
unsafe impl GlobalAlloc for Remembering {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        Self::noted(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        Self::noted(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        Self::noted(unsafe { System.realloc(pointer, layout, bytes) }, bytes)
    }
}

#[global_allocator]
static ALLOCATOR: Remembering = Remembering;

/// Bytes of the allocation that failed last, if no failure was thrown since; 0 when a trap had another reason.
#[wasm_bindgen(js_name = refusedBytes)]
#[must_use]
pub fn refused_bytes() -> f64 {
    REFUSED.load(Ordering::Relaxed) as f64
}

/// Bytes of the WebAssembly memory.
#[wasm_bindgen(js_name = memoryBytes)]
#[must_use]
pub fn memory_bytes() -> f64 {
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size(0);
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0usize;
    pages as f64 * 65536.0
}

/// SHA-256 over bytes as they arrive: `crypto.subtle` wants them all at once.
#[wasm_bindgen]
#[derive(Default)]
pub struct Hasher(Sha256);

#[wasm_bindgen]
impl Hasher {
    /// An empty hash.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A folder of files: a model's or an adapter's.
#[wasm_bindgen]
#[derive(Default)]
pub struct Folder(folder::Folder);

#[wasm_bindgen]
impl Folder {
    /// An empty folder.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with its bytes.
    pub fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.0.add(name, bytes);
    }

    /// Adds a weight file of `length` bytes that will be streamed.
    pub fn announce(&mut self, name: String, length: f64) {
        self.0.announce(name, length as u64);
    }
}

#[wasm_bindgen]
extern "C" {
    /// A folder that is read and one that is written, without waiting: Node's.
    pub type Disk;
    /// Names of the files that can be read.
    #[wasm_bindgen(method)]
    fn names(this: &Disk) -> Vec<String>;
    /// The length of one of them.
    #[wasm_bindgen(method)]
    fn length(this: &Disk, name: &str) -> f64;
    #[wasm_bindgen(method, catch)]
    fn range(this: &Disk, name: &str, offset: f64, length: f64) -> Result<Vec<u8>, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn append(this: &Disk, name: &str, bytes: &[u8]) -> Result<(), JsValue>;
}

impl disk::Disk for Disk {
    // Exact: files end far below 2⁵³ bytes, and JavaScript has no other number.
    fn range(&self, name: &str, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        Disk::range(self, name, offset as f64, len as f64).map_err(said)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        Disk::append(self, name, bytes).map_err(said)
    }
}

/// What JavaScript threw, as the system's word.
fn said(thrown: JsValue) -> io::Error {
    io::Error::other(thrown.unchecked_into::<JsError>().message())
}

/// Converts the base model on `disk` to `bits` (4, 8 or 16), and writes it there; `name` is for a model that has none.
/// Gives the bytes written.
///
/// # Errors
/// Thrown with the codes of `FormatError`.
#[wasm_bindgen]
pub fn convert(disk: &Disk, bits: &str, name: &str) -> Result<f64, JsValue> {
    let lengths = disk.names().into_iter().map(|name| (name.clone(), disk.length(&name) as u64)).collect();
    disk::convert(disk, lengths, bits, name).map(|bytes| bytes as f64).map_err(throw)
}

/// Streams a base model in: for each of `shards`, `begin` with its header, then for each plan
/// `expect`, `part` as often as need be and `tensor`; then `finish`.
#[wasm_bindgen]
pub struct Loader(loading::Loading);

#[wasm_bindgen]
impl Loader {
    /// Reads the small files.
    ///
    /// # Errors
    /// Thrown with the codes of `FormatError`, here and in every other method.
    #[wasm_bindgen(constructor)]
    pub fn new(files: Folder) -> Result<Self, JsValue> {
        loading::Loading::to_run(files.0).map(Self).map_err(throw)
    }

    /// The weight files, in the order in which they are wanted.
    #[must_use]
    pub fn shards(&self) -> Vec<String> {
        self.0.shards()
    }

    /// Bytes of a weight file's header, the length field included, from the file's first 16.
    ///
    /// # Errors
    /// Thrown when the file does not start as a safetensors file does.
    #[wasm_bindgen(js_name = headerLength)]
    pub fn header_length(shard: &str, first: &[u8]) -> Result<f64, JsValue> {
        loading::Loading::header_length(shard, first).map(|n| n as f64).map_err(throw)
    }

    /// Takes a header; gives `index, offset, bytes` of each tensor that is wanted, one after the other, by offset.
    ///
    /// # Errors
    /// Thrown when the tensors are not the model's.
    pub fn begin(&mut self, shard: &str, header: &[u8], file_length: f64) -> Result<Vec<f64>, JsValue> {
        self.0.begin(shard, header, file_length as u64).map_err(throw)
    }

    /// Makes room for a tensor: an embedding table as a whole would be in JavaScript's memory a second time.
    pub fn expect(&mut self, bytes: usize) {
        self.0.expect(bytes);
    }

    /// Takes the next bytes of the tensor.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.part(bytes);
    }

    /// The tensor has passed.
    ///
    /// # Errors
    /// Thrown for numbers that are not finite and for calls out of order.
    pub fn tensor(&mut self, shard: &str, index: usize) -> Result<(), JsValue> {
        self.0.tensor(shard, index).map_err(throw)
    }

    /// The model, once every tensor has passed; `precision` is `fast` or `exact`.
    ///
    /// # Errors
    /// Thrown when tensors are still to come, or the tokenizer cannot be read.
    pub fn finish(self, precision: &str) -> Result<Model, JsValue> {
        self.0.finish(precision).map(Model).map_err(throw)
    }
}

/// What a job gave. Each getter hands its value over, once.
#[wasm_bindgen]
pub struct Output(engine::Output);

#[wasm_bindgen]
impl Output {
    /// The answer, as JSON.
    #[wasm_bindgen(js_name = takeJson)]
    pub fn take_json(&mut self) -> String {
        std::mem::take(&mut self.0.json)
    }

    /// A file; empty where there is none.
    #[wasm_bindgen(js_name = takeBytes)]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0.bytes)
    }

    /// Embeddings, row major; empty where there are none.
    #[wasm_bindgen(js_name = takeFloats)]
    pub fn take_floats(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.0.floats)
    }
}

/// A GPU that has passed the test of known answers.
#[wasm_bindgen]
pub struct GpuDevice(polygraft_gpu::Gpu);

#[wasm_bindgen]
impl GpuDevice {
    /// Opens the best one; `software` lets one in that is a program on the CPU.
    ///
    /// # Errors
    /// Thrown when there is none (`GPU_UNAVAILABLE`), or it computes wrong numbers (`GPU_WRONG`).
    pub async fn open(software: bool) -> Result<Self, JsValue> {
        duo::open(software, &now).await.map(Self).map_err(throw)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.device().info().name.clone()
    }
}

/// A base with its adapters.
#[wasm_bindgen]
pub struct Model(engine::Core);

#[wasm_bindgen]
impl Model {
    /// What the model is, as JSON.
    #[must_use]
    pub fn info(&self) -> String {
        self.0.info().to_string()
    }

    /// Bytes held for weights and packed adapters.
    #[must_use]
    pub fn weights(&self) -> f64 {
        self.0.weights() as f64
    }

    /// Loads an adapter under `name`; gives the report as JSON. All or nothing.
    ///
    /// # Errors
    /// Thrown when the adapter cannot be read or does not fit.
    #[wasm_bindgen(js_name = loadAdapter)]
    pub fn load_adapter(&mut self, name: &str, files: &Folder, options: &str) -> Result<String, JsValue> {
        self.0.load_adapter(name, &files.0, options).map_err(throw)
    }

    /// Unloads an adapter.
    ///
    /// # Errors
    /// Thrown when none of that name is loaded.
    #[wasm_bindgen(js_name = unloadAdapter)]
    pub fn unload_adapter(&mut self, name: &str) -> Result<(), JsValue> {
        self.0.unload_adapter(name).map_err(throw)
    }

    /// Prepares `embed`, `classify`, `rerank`, `index`, `search` or `languageVector`; gives the job's handle. `pixels`: the images of
    /// `embed`, one after the other.
    ///
    /// # Errors
    /// Thrown for arguments that make no sense.
    pub fn start(&mut self, operation: &str, arguments: &str, pixels: &[f32]) -> Result<u32, JsValue> {
        self.0.start(operation, arguments, pixels).map_err(throw)
    }

    /// Works on a job for about `ms` milliseconds; gives `[state, tokens so far, tokens in all]`: state 0 there is more,
    /// 1 done, 2 the GPU is at work ([`Model::answered`]); the last 0 while it is not known. A job that throws is gone.
    ///
    /// # Errors
    /// Thrown when a step fails.
    pub fn step(&mut self, job: u32, ms: f64) -> Result<Vec<f64>, JsValue> {
        let end = now() + ms;
        let (poll, tokens, total) = self.0.step(job, &mut || now() >= end).map_err(throw)?;
        let state = match poll {
            Poll::More => 0.0,
            Poll::Done => 1.0,
            Poll::Waiting => 2.0,
        };
        Ok(vec![state, tokens as f64, total as f64])
    }

    /// A promise that resolves when the GPU has answered the job that was last waiting for it.
    pub fn answered(&mut self) -> Promise {
        let waiting = self.0.take_waiting();
        future_to_promise(async move {
            if let Some(waiting) = waiting {
                waiting.0.await;
            }
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Uploads the layers to `gpu`, which from then on takes calls of at least `crossover` tokens.
    ///
    /// # Errors
    /// Thrown when the device is lost or its memory is full (`GPU_LOST`); the CPU goes on.
    #[wasm_bindgen(js_name = attachGpu)]
    pub fn attach_gpu(&mut self, gpu: GpuDevice, crossover: f64) -> Result<(), JsValue> {
        self.0.attach_gpu(gpu.0, crossover as usize).map_err(throw)
    }

    /// Which calls go to the GPU: those of at least `tokens`.
    #[wasm_bindgen(js_name = crossAt)]
    pub fn cross_at(&mut self, tokens: f64) {
        self.0.cross_at(tokens as usize);
    }

    /// Has calls measure themselves by kernel from now on.
    pub fn measure(&mut self) {
        self.0.measure(now);
    }

    /// Milliseconds by kernel, of this thread and of its GPU, since this was last asked, as JSON; empty unless it measures.
    #[wasm_bindgen(js_name = takeProfile)]
    pub fn take_profile(&mut self) -> String {
        self.0.take_profile()
    }

    /// Computes on the CPU from now on.
    #[wasm_bindgen(js_name = detachGpu)]
    pub fn detach_gpu(&mut self) {
        self.0.detach_gpu();
    }

    /// The answer of a job that is done; its handle is spent.
    ///
    /// # Errors
    /// Thrown when it is not done.
    pub fn result(&mut self, job: u32) -> Result<Output, JsValue> {
        self.0.result(job).map(Output).map_err(throw)
    }

    /// Drops a job.
    pub fn cancel(&mut self, job: u32) {
        self.0.cancel(job);
    }

    /// Drops an index.
    #[wasm_bindgen(js_name = dropIndex)]
    pub fn drop_index(&mut self, index: u32) {
        self.0.drop_index(index);
    }

    /// An index as the bytes of a file.
    ///
    /// # Errors
    /// Thrown for an index that was dropped.
    #[wasm_bindgen(js_name = saveIndex)]
    pub fn save_index(&self, index: u32) -> Result<Vec<u8>, JsValue> {
        self.0.save_index(index).map_err(throw)
    }

    /// Takes a saved index; gives its handle and its number of documents.
    ///
    /// # Errors
    /// Thrown for other bytes than a saved index, and for one of another base (`INDEX_STALE`).
    #[wasm_bindgen(js_name = loadIndex)]
    pub fn load_index(&mut self, bytes: Vec<u8>) -> Result<Vec<u32>, JsValue> {
        let (handle, size) = self.0.load_index(bytes).map_err(throw)?;
        Ok(vec![handle, u32::try_from(size).unwrap_or(u32::MAX)])
    }

    /// What would run for a batch of texts, as JSON.
    ///
    /// # Errors
    /// Thrown for arguments that make no sense.
    pub fn explain(&mut self, arguments: &str) -> Result<String, JsValue> {
        self.0.explain(arguments).map_err(throw)
    }
}
