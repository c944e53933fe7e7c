// normalize: y = y / max(‖y‖₂, 1e-12), in place                      twin: crates/polygraft/src/steps/norm.rs
// bindings: 0 params 1 y(rw)   (1 of 8 storage)
// tiling: one row an invocation: embeddings are few
// assumes: any width

struct Params {
  first: u32,  // first row
  rows: u32,   // rows from there
  stride: u32, // vec4 a row
  width: u32,  // numbers a row
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.rows) { return; }
  let at = (params.first + id.x) * params.stride * 4u;
  var sum = 0.0;
  for (var i = 0u; i < params.width; i++) { sum += y[at + i] * y[at + i]; }
  let inverse = 1.0 / max(sqrt(sum), 1.0e-12);
  for (var i = 0u; i < params.width; i++) { y[at + i] *= inverse; }
}
