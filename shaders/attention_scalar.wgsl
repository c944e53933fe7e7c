// attention_scalar: as attention_direct, for head widths that are no multiple of 4   twin: crates/polygraft/src/steps/attention.rs
// bindings: 0 params 1 q 2 k 3 v 4 tables 5 out(rw)   (5 of 8 storage)
// tiling: one query of one head an invocation, 32 queries a workgroup; no workgroup memory and no barrier
// assumes: head width D; rows of any length

const D: u32 = 8u; // head width

struct Params {
  stride: u32,  // vec4 a token
  items: u32,   // first of [first query, queries, first key, keys] in tables
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + group.x];
  if (lane.x >= item.y) { return; }
  let stride = params.stride * 4u;
  let head = group.y * D;
  let at = (item.x + lane.x) * stride + head;
  var query: array<f32, D>;
  var sums: array<f32, D>;
  for (var i = 0u; i < D; i++) {
    query[i] = q[at + i] * params.scale;
    sums[i] = 0.0;
  }
  var peak = -3.0e38;
  var total = 0.0;
  for (var key = item.z; key < item.z + item.w; key++) {
    let source = key * stride + head;
    var product = 0.0;
    for (var i = 0u; i < D; i++) { product += query[i] * k[source + i]; }
    let higher = max(peak, product);
    let keep = exp(peak - higher);
    let weight = exp(product - higher);
    peak = higher;
    total = total * keep + weight;
    for (var i = 0u; i < D; i++) { sums[i] = sums[i] * keep + weight * v[source + i]; }
  }
  for (var i = 0u; i < D; i++) { out[at + i] = sums[i] / total; }
}
