// pool: a row's tokens to one vector                                 twin: crates/polygraft/src/steps/pool.rs
// bindings: 0 params 1 x 2 tables 3 y(rw)   (3 of 8 storage)
// tiling: four numbers of one row an invocation
// assumes: rows of at least one token

struct Params {
  x_stride: u32, // vec4 a token
  y_stride: u32, // vec4 a row
  width: u32,    // vec4 that matter
  pooling: u32,  // 0 mean, 1 first, 2 last, 3 maximum, 4 sum / √tokens
  items: u32,    // first of [row, first token, tokens, 0] in tables
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let column = group.y * 64u + lane.x;
  if (column >= params.width) { return; }
  let item = tables[params.items + group.x];
  let first = item.y * params.x_stride + column;
  let last = (item.y + item.z - 1u) * params.x_stride + column;
  var value = x[first];
  if (params.pooling == 2u) {
    value = x[last];
  } else if (params.pooling == 3u) {
    for (var i = first; i <= last; i += params.x_stride) { value = max(value, x[i]); }
  } else if (params.pooling != 1u) {
    value = vec4<f32>(0.0);
    for (var i = first; i <= last; i += params.x_stride) { value += x[i]; }
    let n = f32(item.z);
    value /= select(sqrt(n), n, params.pooling == 0u);
  }
  y[item.x * params.y_stride + column] = value;
}
