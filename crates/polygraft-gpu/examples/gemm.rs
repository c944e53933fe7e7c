//! Rates of the linear kernels over 8 192 tokens, in f32 multiply-adds by the device's own timestamps, against what a loop
//! of nothing else reaches on the same device through the same interface.
//! `cargo run --release --example gemm -p polygraft-gpu -- [rows of 64 tokens] [rounds]`

mod support;

use polygraft::backend::{Backend, Poll, Precision};
use polygraft::plan::Want;
use polygraft::program::StepKind;
use polygraft::{Error, Result};
use std::time::Instant;

/// Sixteen chains of four numbers, so that none waits for itself.
const LOOP: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let m = vec4<f32>(1.0 + f32(id.x % 7u) * 1e-7);
  let a = vec4<f32>(f32(id.x) * 1e-9);
  var c: array<vec4<f32>, 16>;
  for (var i = 0u; i < 16u; i++) { c[i] = vec4<f32>(f32(i)); }
  for (var n = 0u; n < 1024u; n++) {
    c[0] = fma(c[0], m, a); c[1] = fma(c[1], m, a); c[2] = fma(c[2], m, a); c[3] = fma(c[3], m, a);
    c[4] = fma(c[4], m, a); c[5] = fma(c[5], m, a); c[6] = fma(c[6], m, a); c[7] = fma(c[7], m, a);
    c[8] = fma(c[8], m, a); c[9] = fma(c[9], m, a); c[10] = fma(c[10], m, a); c[11] = fma(c[11], m, a);
    c[12] = fma(c[12], m, a); c[13] = fma(c[13], m, a); c[14] = fma(c[14], m, a); c[15] = fma(c[15], m, a);
  }
  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < 16u; i++) { sum += c[i]; }
  out[id.x] = sum;
}";
/// Multiply-adds of an invocation of [`LOOP`].
const EACH: f64 = 1024.0 * 16.0 * 4.0;
/// Milliseconds that a loop must take for its start and end not to count.
const LONG: f64 = 50.0;

fn main() -> Result<()> {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [rows, rounds] = [(0, 128), (1, 5)].map(|(i, or)| args.get(i).copied().unwrap_or(or));
    let peak = done(peak())?;
    let (mut session, batch) = support::model(2, rows, 64)?;
    println!("{}; a loop of multiply-adds: {:.3} T a second", session.backend().describe(), peak / 1e12);
    if !session.backend_mut().gpu_mut().measure() {
        return Err(Error::DeviceUnavailable { why: "the device has no timestamps".into() });
    }
    let want = Want { embedding: true, ..Want::default() };
    let (call, ..) = session.prepare(&batch, want, Precision::Fast)?;
    let lines = session.explain(&call.program, &call.tables);
    for kernel in support::linear() {
        if !session.backend_mut().gpu_mut().prefer(Some(kernel)) {
            println!("{kernel:24} is not on this device");
            continue;
        }
        let mut rates = Vec::new();
        for _ in 0..=rounds {
            let mut job = session.begin(&batch, want, Precision::Fast)?;
            while session.advance(&mut job, &mut || false)? != Poll::Done {}
            // The first layer runs as in exact precision, on another kernel where this one rounds.
            let own = job.run().profile().iter().filter(|t| t.kernel == kernel);
            let (mut macs, mut milliseconds) = (0, 0.0);
            for timing in own {
                milliseconds += timing.milliseconds;
                let linear = |at: &usize| matches!(call.program.steps[*at].kind, StepKind::Linear { .. });
                macs += timing.steps.clone().filter(linear).map(|at| lines[at].macs).sum::<u64>();
            }
            rates.push(macs as f64 / milliseconds * 1e3);
        }
        rates.remove(0);
        rates.sort_by(f64::total_cmp);
        let rate = rates[rounds / 2];
        println!("{kernel:24} {:8.3} T a second, {:5.1} % of the loop", rate / 1e12, 100.0 * rate / peak);
    }
    Ok(())
}

/// Multiply-adds a second of [`LOOP`], the best of five.
async fn peak() -> Result<f64> {
    let none = |why: String| Error::DeviceUnavailable { why };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let wanted = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..wgpu::RequestAdapterOptions::default()
    };
    let adapter = instance.request_adapter(&wanted).await.map_err(|e| none(e.to_string()))?;
    let made = adapter.request_device(&wgpu::DeviceDescriptor::default()).await;
    let (device, queue) = made.map_err(|e| none(e.to_string()))?;
    let source = wgpu::ShaderSource::Wgsl(LOOP.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let most = 65_535;
    let out = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::from(most) * 256 * 16 / 4,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: out.as_entire_binding() }],
    });
    let time = |groups: u32| {
        let start = Instant::now();
        let mut commands = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(groups, 1, 1);
        }
        queue.submit([commands.finish()]);
        let waited = device.poll(wgpu::PollType::wait_indefinitely());
        waited.map(|_| start.elapsed().as_secs_f64() * 1e3).map_err(|e| Error::DeviceLost { why: e.to_string() })
    };
    let mut groups = 4;
    while time(groups)? < LONG && groups * 2 <= most / 4 {
        groups *= 2;
    }
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        best = best.min(time(groups)?);
    }
    Ok(f64::from(groups) * 256.0 * EACH / best * 1e3)
}

/// Natively the futures of wgpu are done when they are asked.
fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::yield_now();
    }
}
