// attention_placed: attention with a window, a bias by distance, or products with embeddings of relative positions
//                                                                    twin: crates/polygraft/src/steps/attention.rs
// bindings: 0 params 1 q 2 k 3 v 4 tables 5 out(rw) 6 keys 7 queries 8 bias   (8 of 8 storage)
// tiling: one query of one head an invocation, 32 queries a workgroup; no workgroup memory and no barrier
// assumes: head width D; rows of any length

const D: u32 = 8u; // head width
const NONE: u32 = 0xffffffffu;

struct Params {
  stride: u32,    // vec4 a token
  items: u32,     // first of [first query, queries, first key, keys] and [keys in front, first place, query in its row] in tables
  scale: f32,
  window: u32,    // keys further away are not seen, or NONE
  terms: u32,     // 1: bias, 2: keys, 4: queries
  places: u32,    // first vec4 of places by query - key in tables
  middle: u32,    // the place of distance 0 there
  p_stride: u32,  // vec4 a place of keys and queries
  b_stride: u32,  // vec4 a place of bias
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read> keys: array<f32>;
@group(0) @binding(7) var<storage, read> queries: array<f32>;
@group(0) @binding(8) var<storage, read> bias: array<f32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + 2u * group.x];
  if (lane.x >= item.y) { return; }
  let row = tables[params.items + 2u * group.x + 1u];
  let stride = params.stride * 4u;
  let head = group.y * D;
  let at = (item.x + lane.x) * stride + head;
  let place = row.z + lane.x;
  var query: array<f32, D>;
  var sums: array<f32, D>;
  for (var i = 0u; i < D; i++) {
    query[i] = q[at + i] * params.scale;
    sums[i] = 0.0;
  }
  var start = 0u;
  var end = item.w;
  if (params.window != NONE && row.x == 0u) {
    start = max(place, params.window) - params.window;
    end = min(end, place + params.window + 1u);
  }
  var peak = -3.0e38;
  var total = 0.0;
  for (var s = start; s < end; s++) {
    let source = (item.z + s) * stride + head;
    var product = 0.0;
    for (var i = 0u; i < D; i++) { product += query[i] * k[source + i]; }
    if (s >= row.x) {
      let key = s - row.x;
      if (params.window != NONE && max(place, key) - min(place, key) > params.window) { continue; }
      if (params.terms != 0u) {
        let distance = params.middle + place - key;
        let p = row.y + tables[params.places + distance / 4u][distance % 4u];
        let place_at = p * params.p_stride * 4u + head;
        if ((params.terms & 2u) != 0u) {
          for (var i = 0u; i < D; i++) { product += query[i] * keys[place_at + i]; }
        }
        if ((params.terms & 4u) != 0u) {
          var term = 0.0;
          for (var i = 0u; i < D; i++) { term += k[source + i] * queries[place_at + i]; }
          product += term * params.scale;
        }
        if ((params.terms & 1u) != 0u) { product += bias[p * params.b_stride * 4u + group.y]; }
      }
    }
    let higher = max(peak, product);
    let keep = exp(peak - higher);
    let weight = exp(product - higher);
    peak = higher;
    total = total * keep + weight;
    for (var i = 0u; i < D; i++) { sums[i] = sums[i] * keep + weight * v[source + i]; }
  }
  for (var i = 0u; i < D; i++) { out[at + i] = sums[i] / total; }
}
