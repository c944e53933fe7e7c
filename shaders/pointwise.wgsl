// pointwise: y = f(left · a + b + y), of those that are asked for, over some rows   twin: crates/polygraft/src/steps/pointwise.rs
// covers: Add, Activate, Copy; sums in Bottleneck
// bindings: 0 params 1 a 2 b 3 y(rw)   (3 of 8 storage)
// tiling: four numbers an invocation
// assumes: rows of equal stride

struct Params {
  first: u32,  // first vec4
  count: u32,  // vec4 from there
  width: u32,  // vec4 a row of the grid
  terms: u32,  // 1: a is read, 2: b is read, 4: y is read; the sum of those
  activation: u32,
  left: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let place = id.y * params.width + id.x;
  if (id.x >= params.width || place >= params.count) { return; }
  let i = params.first + place;
  var value = vec4<f32>(0.0);
  if ((params.terms & 1u) != 0u) { value += params.left * a[i]; }
  if ((params.terms & 2u) != 0u) { value += b[i]; }
  if ((params.terms & 4u) != 0u) { value += y[i]; }
  y[i] = activate(value, params.activation);
}
