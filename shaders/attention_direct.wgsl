// attention_direct: out = softmax(q kᵀ · scale) v inside each row, head by head      twin: crates/polygraft/src/steps/attention.rs
// bindings: 0 params 1 q 2 k 3 v 4 tables 5 out(rw)   (5 of 8 storage)
// tiling: one query of one head an invocation, 32 queries a workgroup; softmax in one pass with a running peak, four keys at a time;
//   no workgroup memory and no barrier
// assumes: head width 4 D; rows of any length

const D: u32 = 8u; // head width / 4

struct Params {
  stride: u32,  // vec4 a token
  items: u32,   // first of [first query, queries, first key, keys] in tables
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + group.x];
  if (lane.x >= item.y) { return; }
  let head = group.y * D;
  let at = (item.x + lane.x) * params.stride + head;
  var query: array<vec4<f32>, D>;
  var sums: array<vec4<f32>, D>;
  for (var i = 0u; i < D; i++) {
    query[i] = q[at + i] * params.scale;
    sums[i] = vec4<f32>(0.0);
  }
  var peak = -3.0e38;
  var total = 0.0;
  let last = item.z + item.w - 1u;
  for (var key = item.z; key <= last; key += 4u) {
    // Four keys at a time; those past the last are the last again, without weight.
    let four = min(vec4<u32>(key, key + 1u, key + 2u, key + 3u), vec4<u32>(last));
    let source = four * params.stride + head;
    var products = vec4<f32>(0.0);
    for (var i = 0u; i < D; i++) {
      let part = query[i];
      products += vec4<f32>(dot(part, k[source.x + i]), dot(part, k[source.y + i]), dot(part, k[source.z + i]), dot(part, k[source.w + i]));
    }
    let real = vec4<u32>(key, key + 1u, key + 2u, key + 3u) <= vec4<u32>(last);
    products = select(vec4<f32>(-3.0e38), products, real);
    let higher = max(peak, max(max(products.x, products.y), max(products.z, products.w)));
    let keep = exp(peak - higher);
    let weights = select(vec4<f32>(0.0), exp(products - higher), real);
    peak = higher;
    total = total * keep + weights.x + weights.y + weights.z + weights.w;
    for (var i = 0u; i < D; i++) {
      sums[i] = sums[i] * keep + weights.x * v[source.x + i] + weights.y * v[source.y + i] + weights.z * v[source.z + i] + weights.w * v[source.w + i];
    }
  }
  for (var i = 0u; i < D; i++) { out[at + i] = sums[i] / total; }
}
