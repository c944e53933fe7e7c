//! The device: what it is, what it has, and whether it is still there.

use polygraft::{Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Which devices will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// A software device counts as none: its results are right and it is slower than the CPU backend.
    Hardware,
    /// Any, a software device too.
    Any,
}

/// What the device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name, as far as the system tells.
    pub name: String,
    /// The interface underneath: `vulkan`, `metal`, `dx12`, `webgpu`.
    pub interface: String,
    /// Whether it is a program on the CPU.
    pub software: bool,
    /// Whether shaders may multiply four bytes at once.
    pub packed: bool,
    /// Whether shaders may hold numbers of 16 bits.
    pub half: bool,
    /// Whether it says when a pass began and ended.
    pub timed: bool,
}

/// An open device with its queue.
#[derive(Debug)]
pub struct Device {
    pub(crate) raw: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    info: DeviceInfo,
    faults: Arc<Mutex<Faults>>,
}

/// What went wrong behind our back.
#[derive(Debug, Default)]
struct Faults {
    lost: Option<String>,
    error: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

const SOFTWARE: [&str; 5] = ["swiftshader", "llvmpipe", "lavapipe", "softpipe", "basic render"];

impl Device {
    /// Opens the best device that `allow` admits, with WebGPU's default limits, and of its optional features those that
    /// kernels can use.
    ///
    /// # Errors
    /// [`Error::DeviceUnavailable`] when there is none.
    pub async fn open(allow: Allow) -> Result<Self> {
        let none = |why: String| Error::DeviceUnavailable { why };
        let mut instance = wgpu::InstanceDescriptor::new_without_display_handle();
        instance.backends = wgpu::Backends::PRIMARY;
        let instance = wgpu::Instance::new(instance);
        let mut wanted = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        };
        let mut adapter = instance.request_adapter(&wanted).await;
        if adapter.is_err() && allow == Allow::Any {
            wanted.force_fallback_adapter = true;
            adapter = instance.request_adapter(&wanted).await;
        }
        let adapter = adapter.map_err(|e| none(format!("no adapter: {e}")))?;
        let packed = wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct;
        let packed = instance.wgsl_language_features().contains(packed);
        let features = adapter.features() & (wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY);
        let half = features.contains(wgpu::Features::SHADER_F16);
        let timed = features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let info = DeviceInfo { packed, half, timed, ..describe(&adapter.get_info()) };
        if info.software && allow == Allow::Hardware {
            return Err(none(format!(
                "{} is a software device; ask for it by name if that is what you want",
                info.name
            )));
        }
        let (raw, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("polygraft"),
                required_features: features,
                required_limits: wgpu::Limits::defaults(),
                ..wgpu::DeviceDescriptor::default()
            })
            .await
            .map_err(|e| none(format!("{} gives no device: {e}", info.name)))?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        let (lost, errors) = (faults.clone(), faults.clone());
        raw.set_device_lost_callback(move |reason, message| {
            let text = if message.is_empty() { format!("{reason:?}") } else { message };
            lock(&lost).lost.get_or_insert(text);
        });
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&errors).error.get_or_insert(error.to_string());
        }));
        Ok(Self { raw, queue, info, faults })
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Whether the device is there and has not failed.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], with the reason that the system gave.
    pub fn check(&self) -> Result<()> {
        let mut faults = lock(&self.faults);
        if let Some(why) = &faults.lost {
            return Err(Error::DeviceLost { why: why.clone() });
        }
        match faults.error.take() {
            Some(why) => {
                // Whatever was computed around it cannot be trusted, and neither can what comes next.
                faults.lost = Some(why.clone());
                Err(Error::DeviceLost { why })
            }
            None => Ok(()),
        }
    }

    /// Storage that shaders read and write.
    pub(crate) fn storage(&self, label: &str, bytes: usize) -> wgpu::Buffer {
        use wgpu::BufferUsages as U;
        self.buffer(label, bytes, U::STORAGE | U::COPY_DST | U::COPY_SRC)
    }

    pub(crate) fn buffer(&self, label: &str, bytes: usize, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        // Never mapped at creation: in a browser that can throw where nothing can be caught.
        let size = bytes.next_multiple_of(16).max(16) as u64;
        self.raw.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    }

    /// Asks for `buffer`'s bytes; see [`Mapping`].
    pub(crate) fn map(&self, buffer: &wgpu::Buffer) -> Mapping {
        let state = Arc::new(Mutex::new(MapState::default()));
        let told = state.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            let mut state = lock(&told);
            state.result = Some(result.map_err(|e| e.to_string()));
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        });
        Mapping(state)
    }

    /// Lets callbacks run. Natively this blocks until the device has done what it was given; in a browser the event
    /// loop does it.
    pub(crate) fn pump(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(error) = self.raw.poll(wgpu::PollType::wait_indefinitely()) {
            return Err(Error::DeviceLost { why: error.to_string() });
        }
        self.check()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // In a browser nothing is freed until then.
        self.raw.destroy();
    }
}

fn describe(info: &wgpu::AdapterInfo) -> DeviceInfo {
    let words = [&info.name, &info.driver, &info.driver_info].map(String::as_str);
    let known = words.into_iter().find(|w| !w.is_empty()).unwrap_or("unknown device");
    let all = words.join(" ").to_lowercase();
    let software = info.device_type == wgpu::DeviceType::Cpu || SOFTWARE.iter().any(|s| all.contains(s));
    let interface = match info.backend {
        wgpu::Backend::BrowserWebGpu => "webgpu".to_owned(),
        other => other.to_string(),
    };
    DeviceInfo { name: known.to_owned(), interface, software, packed: false, half: false, timed: false }
}

/// A buffer on its way to the CPU. Also a future: done when the answer is there, good or bad.
#[derive(Debug, Clone)]
pub(crate) struct Mapping(Arc<Mutex<MapState>>);

#[derive(Debug, Default)]
struct MapState {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}

impl Mapping {
    /// The bytes, and the buffer free again; `None` while they have not come.
    pub(crate) fn bytes(&self, device: &Device, buffer: &wgpu::Buffer) -> Result<Option<Vec<u8>>> {
        match lock(&self.0).result.take() {
            None => return device.check().map(|()| None),
            Some(Err(why)) => {
                device.check()?;
                return Err(Error::DeviceLost { why });
            }
            Some(Ok(())) => {}
        }
        let bytes = {
            let view = buffer.get_mapped_range(..).map_err(|e| Error::DeviceLost { why: e.to_string() })?;
            view.to_vec()
        };
        buffer.unmap();
        device.check()?;
        Ok(Some(bytes))
    }
}

impl Future for Mapping {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.result.is_some() {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
