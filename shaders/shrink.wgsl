// shrink: h = x Aᵀ for rows under low-rank updates, whichever         twin: crates/polygraft/src/steps/linear.rs
// covers, with expand: LowRank
// bindings: 0 params 1 x 2 arena 3 tables 4 h(rw)   (4 of 8 storage)
// tiling: one row's product with four rows of A an invocation; 4 rows × 16 a workgroup
// assumes: A stored [rank / 4][inputs / 4][4], padding zero

struct Params {
  x_stride: u32, // vec4 a row
  h_stride: u32, // vec4 a row
  groups: u32,   // inputs / 4
  items: u32,    // first in tables: pairs of vec4
}

// Two vec4 an item: [first row, rows, rank / 4, A], [B, bias, scale as bits, 0].
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> arena: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> h: array<vec4<f32>>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + group.x * 2u];
  if (lane.y >= item.y) { return; }
  let row = item.x + lane.y;
  for (var quad = lane.x; quad < item.z; quad += 8u) {
    var sum = vec4<f32>(0.0);
    let source = row * params.x_stride;
    let a = item.w + quad * params.groups * 4u;
    for (var g = 0u; g < params.groups; g++) {
      let value = x[source + g];
      let p = a + g * 4u;
      sum += vec4<f32>(dot(value, arena[p]), dot(value, arena[p + 1u]), dot(value, arena[p + 2u]), dot(value, arena[p + 3u]));
    }
    h[row * params.h_stride + quad] = sum;
  }
}
