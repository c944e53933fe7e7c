// linear_packed: y = f(x · dequant(W)ᵀ + b) on activations of 8 bits, by products of four bytes at once
// covers, with round: Linear, or Linear + Activate, in fast precision              twin: crates/polygraft/src/steps/linear.rs
// bindings: 0 params 1 codes 2 w 3 scales 4 arena 5 y(rw) 6 x_scales   (6 of 8 storage)
// tiling: 64 rows × 64 outputs a workgroup, 16 × 16 invocations of 4×4, one block of 32 inputs a stage;
//   workgroup memory 4 608 B of 16 384
// assumes: weights in q8_0 or q4_0 as in linear.wgsl; the language feature packed_4x8_integer_dot_product

const FORM: u32 = 4u; // 3 q8_0, 4 q4_0
const NONE: u32 = 0xffffffffu;

struct Params {
  first: u32,    // first row
  rows: u32,     // rows from there
  x_stride: u32, // unused
  y_stride: u32, // vec4 a row
  groups: u32,   // inputs / 4
  columns: u32,  // outputs / 4
  weight: u32,   // unused
  bias: u32,     // first vec4 of arena, or NONE
  column: u32,   // where this part's outputs begin in y and bias, vec4
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> codes: array<u32>; // [row][block][8]
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> arena: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> x_scales: array<vec2<f32>>; // [row][block]

var<workgroup> xs: array<vec4<u32>, 128>; // [word][4 rows]
var<workgroup> ws: array<vec4<u32>, 128>; // [word][4 outputs]
var<workgroup> factors: array<vec2<f32>, 64>; // [row]

// Word `i` of a block: inputs 4i..4i + 4 of one output.
fn word(cell: u32, block: u32, blocks: u32, output: u32, i: u32) -> u32 {
  if (FORM == 4u) {
    let v = w[(cell * blocks + block) * 4u + output][i / 2u];
    return (v >> ((i & 1u) * 4u)) & 0x0f0f0f0fu;
  }
  return w[((cell * blocks + block) * 2u + i / 4u) * 4u + output][i & 3u];
}

fn dots(a: u32, b: vec4<u32>) -> vec4<i32> {
  return vec4<i32>(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let blocks = params.groups / 8u;
  let cell = tile.x * 16u + id.x;
  let first_row = tile.y * 64u;
  var sums = mat4x4<f32>();
  let last = params.rows - 1u;
  for (var block = 0u; block < blocks; block++) {
    if (lane < 128u) {
      let quad = lane % 16u;
      let i = lane / 16u;
      let r = params.first + min(vec4<u32>(first_row + quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
      let at = (r * blocks + block) * 8u + i;
      xs[lane] = vec4<u32>(codes[at.x], codes[at.y], codes[at.z], codes[at.w]);
    } else {
      let quad = lane % 16u;
      let i = (lane - 128u) / 16u;
      let column = min(tile.x * 16u + quad, params.columns - 1u);
      ws[lane - 128u] = vec4<u32>(word(column, block, blocks, 0u, i), word(column, block, blocks, 1u, i), word(column, block, blocks, 2u, i), word(column, block, blocks, 3u, i));
    }
    if (lane < 64u) {
      factors[lane] = x_scales[(params.first + min(first_row + lane, last)) * blocks + block];
    }
    workgroupBarrier();
    var d0 = vec4<i32>(0);
    var d1 = vec4<i32>(0);
    var d2 = vec4<i32>(0);
    var d3 = vec4<i32>(0);
    for (var i = 0u; i < 8u; i++) {
      let a = xs[i * 16u + id.y];
      let b = ws[i * 16u + id.x];
      d0 += dots(a.x, b);
      d1 += dots(a.y, b);
      d2 += dots(a.z, b);
      d3 += dots(a.w, b);
    }
    let s = scales[min(cell, params.columns - 1u) * blocks + block];
    let f0 = factors[id.y * 4u];
    let f1 = factors[id.y * 4u + 1u];
    let f2 = factors[id.y * 4u + 2u];
    let f3 = factors[id.y * 4u + 3u];
    let offset = select(0.0, 1.0, FORM == 4u);
    sums[0] += (vec4<f32>(d0) - offset * f0.y) * f0.x * s;
    sums[1] += (vec4<f32>(d1) - offset * f1.y) * f1.x * s;
    sums[2] += (vec4<f32>(d2) - offset * f2.y) * f2.x * s;
    sums[3] += (vec4<f32>(d3) - offset * f3.y) * f3.x * s;
    workgroupBarrier();
  }
  if (cell >= params.columns) { return; }
  var b = vec4<f32>(0.0);
  if (params.bias != NONE) { b = arena[params.bias + params.column + cell]; }
  for (var r = 0u; r < 4u; r++) {
    let row = first_row + id.y * 4u + r;
    if (row < params.rows) {
      y[(params.first + row) * params.y_stride + params.column + cell] = activate(sums[r] + b, params.activation);
    }
  }
}
