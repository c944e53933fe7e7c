// norm: what the kernels of the layer norm share, put before each of them.   twin: crates/polygraft/src/steps/norm.rs
// covers: LayerNorm, or Add + LayerNorm: y = norm(a + b + y) · gamma + beta, of those that are asked for; padding becomes zero
// bindings: 0 params 1 a 2 b 3 arena 4 tables 5 y(rw)   (5 of 8 storage)

const NONE: u32 = 0xffffffffu;

struct Params {
  first: u32,   // first row
  rows: u32,    // rows from there
  stride: u32,  // vec4 a row, of a, b and y
  width: u32,   // numbers a row
  terms: u32,   // 1: a is read, 2: b is read, 4: y is read; the sum of those
  gamma: u32,   // first vec4 of arena, or NONE
  beta: u32,    // first vec4 of arena, or NONE
  own: u32,     // first of [first row, end, gamma, beta] in tables: rows that run an adapter's
  owns: u32,    // how many
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> arena: array<f32>;
@group(0) @binding(4) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Scale and shift of a row: the base's, or those of the adapter that the row runs under.
fn vectors(row: u32) -> vec2<u32> {
  var found = vec2<u32>(params.gamma, params.beta);
  for (var i = 0u; i < params.owns; i++) {
    let own = tables[params.own + i];
    if (row >= own.x && row < own.y) { found = own.zw; }
  }
  return found;
}

// What is normed, at one place.
fn before(at: u32) -> f32 {
  var value = 0.0;
  if ((params.terms & 4u) != 0u) { value = y[at]; }
  if ((params.terms & 1u) != 0u) { value += a[at]; }
  if ((params.terms & 2u) != 0u) { value += b[at]; }
  return value;
}

fn after(value: f32, which: vec2<u32>, i: u32) -> f32 {
  var out = value;
  if (which.x != NONE) { out *= arena[which.x * 4u + i]; }
  if (which.y != NONE) { out += arena[which.y * 4u + i]; }
  return out;
}
