// expand: y += scale · (h Bᵀ + bias) for rows under low-rank updates, whichever      twin: crates/polygraft/src/steps/linear.rs
// covers, with shrink: LowRank
// bindings: 0 params 1 h 2 arena 3 tables 4 y(rw)   (4 of 8 storage)
// tiling: four outputs of up to 8 rows an invocation, 64 invocations a workgroup
// assumes: B stored [rank][outputs / 4], padding of h and B zero

const NONE: u32 = 0xffffffffu;

struct Params {
  y_stride: u32, // vec4 a row
  h_stride: u32, // vec4 a row
  columns: u32,  // outputs / 4
  items: u32,    // first in tables: pairs of vec4, as in shrink
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> arena: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let column = group.y * 64u + lane.x;
  if (column >= params.columns) { return; }
  let item = tables[params.items + group.x * 2u];
  let more = tables[params.items + group.x * 2u + 1u];
  let scale = bitcast<f32>(more.z);
  var shift = vec4<f32>(0.0);
  if (more.y != NONE) { shift = arena[more.y + column]; }
  for (var row = item.x; row < item.x + item.y; row++) {
    var sum = shift;
    for (var quad = 0u; quad < item.z; quad++) {
      let value = h[row * params.h_stride + quad];
      let b = more.x + quad * 4u * params.columns + column;
      sum += value.x * arena[b] + value.y * arena[b + params.columns] + value.z * arena[b + 2u * params.columns] + value.w * arena[b + 3u * params.columns];
    }
    y[row * params.y_stride + column] += scale * sum;
  }
}
