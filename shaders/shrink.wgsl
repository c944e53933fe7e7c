// shrink: h = x Aᵀ for rows under low-rank updates, whichever         twin: crates/polygraft/src/steps/linear.rs
// covers, with project: LowRank
// bindings: 0 params 1 x 2 arena 3 tables 4 h(rw)   (4 of 8 storage)
// tiling: one row's product with four rows of A an invocation; 8 rows × 8 of these a workgroup
// assumes: A as in weights; items of at most 8 rows

struct Params {
  x_stride: u32, // vec4 a row
  h_stride: u32, // vec4 a row
  groups: u32,   // inputs / 4
  items: u32,    // first in tables: pairs of vec4
}

// Two vec4 an item: [first row, rows, rank / 4, A], [form, book, 0, 0].
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> h: array<vec4<f32>>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + group.x * 2u];
  if (lane.y >= item.y) { return; }
  let more = tables[params.items + group.x * 2u + 1u];
  let a = Weights(item.w, params.groups, more.x, more.y);
  let row = item.x + lane.y;
  let source = row * params.x_stride;
  for (var quad = lane.x; quad < item.z; quad += 8u) {
    var sum = vec4<f32>(0.0);
    for (var g = 0u; g < params.groups; g++) { sum += x[source + g] * tile(a, quad, g); }
    h[row * params.h_stride + quad] = kept(a, quad, item.z, sum);
  }
}
