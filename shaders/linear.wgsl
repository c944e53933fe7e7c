// linear: what the kernels of a linear layer share, put before each of them.
// bindings: 0 params 1 x 2 w 3 scales 4 arena 5 y(rw)   (5 of 8 storage)
// layouts: x [rows, x_stride] and y [rows, y_stride] of vec4, along the inputs and the outputs;
//   w [outputs / 4][piece of the inputs][4 outputs] of 16 bytes: 4 inputs in f32, 16 in q8_0, 32 in q4_0;
//   scales [outputs / 4][block of 32 inputs] of vec4, the outputs of the four; arena: vectors of adapters and base.
// A q4_0 word holds eight codes: low nibbles are inputs 0..3, high nibbles 4..7.

const FORM: u32 = 4u; // 0 f32, 3 q8_0, 4 q4_0
const NONE: u32 = 0xffffffffu;

struct Params {
  first: u32,    // first row
  rows: u32,     // rows from there
  x_stride: u32, // vec4 a row
  y_stride: u32, // vec4 a row
  groups: u32,   // inputs / 4
  columns: u32,  // outputs / 4
  weight: u32,   // first vec4 of w
  bias: u32,     // first vec4 of arena, or NONE
  column: u32,   // where this part's outputs begin in y and bias, vec4
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> arena: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

fn bias(column: u32) -> vec4<f32> {
  if (params.bias == NONE) { return vec4<f32>(0.0); }
  return arena[params.bias + params.column + column];
}

// Four codes of 8 bits, two's complement.
fn signed_bytes(word: u32) -> vec4<f32> {
  let v = bitcast<vec4<i32>>(vec4<u32>(word << 24u, word << 16u, word << 8u, word));
  return vec4<f32>(v >> vec4<u32>(24u));
}

// Four codes of 4 bits, one in each byte, offset by 8.
fn nibbles(word: u32) -> vec4<f32> {
  let v = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(15u);
  return vec4<f32>(v) - vec4<f32>(8.0);
}
