// norm_direct: y = norm(y + other) · gamma + beta, in place         twin: crates/polygraft/src/steps/norm.rs
// covers: LayerNorm, or Add + LayerNorm
// bindings: 0 params 1 other 2 arena 3 tables 4 y(rw)   (4 of 8 storage)
// tiling: one row an invocation; no workgroup memory and no barrier: for software devices
// assumes: any width

const NONE: u32 = 0xffffffffu;

struct Params {
  first: u32,   // first row
  rows: u32,    // rows from there
  stride: u32,  // vec4 a row, of y and other
  width: u32,   // numbers a row
  add: u32,     // 0: y alone, 1: y + other, 2: other alone
  gamma: u32,   // first vec4 of arena, or NONE
  beta: u32,    // first vec4 of arena, or NONE
  own: u32,     // first of [first row, end, gamma, beta] in tables: rows that run an adapter's
  owns: u32,    // how many
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> other: array<f32>;
@group(0) @binding(2) var<storage, read> arena: array<f32>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.rows) { return; }
  let row = params.first + id.x;
  let at = row * params.stride * 4u;
  var gamma = params.gamma;
  var beta = params.beta;
  for (var i = 0u; i < params.owns; i++) {
    let own = tables[params.own + i];
    if (row >= own.x && row < own.y) {
      gamma = own.z;
      beta = own.w;
    }
  }
  let n = params.width;
  var sum = 0.0;
  for (var i = 0u; i < n; i++) {
    var value = 0.0;
    if (params.add < 2u) { value = y[at + i]; }
    if (params.add > 0u) { value += other[at + i]; }
    y[at + i] = value;
    sum += value;
  }
  let mean = sum / f32(n);
  var squares = 0.0;
  for (var i = 0u; i < n; i++) {
    let d = y[at + i] - mean;
    squares += d * d;
  }
  let inverse = 1.0 / sqrt(squares / f32(n) + params.eps);
  for (var i = 0u; i < n; i++) {
    var value = (y[at + i] - mean) * inverse;
    if (gamma != NONE) { value *= arena[gamma * 4u + i]; }
    if (beta != NONE) { value += arena[beta * 4u + i]; }
    y[at + i] = value;
  }
}
