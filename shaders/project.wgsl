// project: y = add + scale · gate · f(x Wᵀ + b) for rows that run adapters' layers, each its own     twin: crates/polygraft/src/steps/block.rs
// covers, with shrink: LowRank; with mean, attend, norm and pointwise: Bottleneck, Couple, Reft, MixedLowRank
// bindings: 0 params 1 x 2 arena 3 tables 4 gates 5 r 6 y(rw)   (6 of 8 storage)
// tiling: 4 rows × 4 outputs an invocation, 32 rows of one item × 32 outputs a workgroup; no workgroup memory and no barrier
// assumes: W as in weights; items of at most 32 rows; fewer than 2¹⁶ fours of inputs and of outputs

const NONE: u32 = 0xffffffffu;

struct Params {
  x_stride: u32, // vec4 a row
  y_stride: u32, // vec4 a row
  r_stride: u32, // vec4 a row
  g_stride: u32, // vec4 a row of gates
  items: u32,    // first in tables: pairs of vec4
  add: u32,      // 1: r is added, 2: y is
  gate: u32,     // which number of a row of gates, or NONE
  activation: u32,
}

// Two vec4 an item: [first row, rows, W, bias or NONE], [inputs / 4 + 2¹⁶ · outputs / 4, scale as bits, form, book].
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> gates: array<f32>;
@group(0) @binding(5) var<storage, read> r: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

fn put(row: u32, column: u32, sum: vec4<f32>, scale: f32) {
  var value = activate(sum, params.activation) * scale;
  if (params.gate != NONE) { value *= gates[row * params.g_stride * 4u + params.gate]; }
  if ((params.add & 1u) != 0u) { value += r[row * params.r_stride + column]; }
  let at = row * params.y_stride + column;
  if ((params.add & 2u) != 0u) { value += y[at]; }
  y[at] = value;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + group.x * 2u];
  let more = tables[params.items + group.x * 2u + 1u];
  let column = group.y * 8u + lane.x;
  let row = lane.y * 4u;
  let groups = more.x & 0xffffu;
  let columns = more.x >> 16u;
  if (column >= columns || row >= item.y) { return; }
  // Rows past the last are computed again in its place, and not stored.
  let last = item.y - 1u;
  let rows = item.x + vec4<u32>(row, min(row + 1u, last), min(row + 2u, last), min(row + 3u, last));
  let at = rows * params.x_stride;
  var shift = vec4<f32>(0.0);
  if (item.w != NONE) { shift = floats(item.w + column); }
  var a = shift;
  var b = shift;
  var c = shift;
  var d = shift;
  let weights = Weights(item.z, groups, more.z, more.w);
  for (var g = 0u; g < groups; g++) {
    let w = tile(weights, column, g);
    a += x[at.x + g] * w;
    b += x[at.y + g] * w;
    c += x[at.z + g] * w;
    d += x[at.w + g] * w;
  }
  let scale = bitcast<f32>(more.y);
  put(rows.x, column, kept(weights, column, columns, a), scale);
  if (row < last) { put(rows.y, column, kept(weights, column, columns, b), scale); }
  if (row + 1u < last) { put(rows.z, column, kept(weights, column, columns, c), scale); }
  if (row + 2u < last) { put(rows.w, column, kept(weights, column, columns, d), scale); }
}
