// round: activations to 8 bits, each row in blocks of 32, one scale a block          twin: polygraft-cpu's fast precision
// covers, with linear_packed: Linear in fast precision
// bindings: 0 params 1 x 2 codes(rw) 3 scales(rw)   (3 of 8 storage)
// tiling: one block of one row an invocation, 64 a workgroup
// assumes: inputs a multiple of 32

struct Params {
  first: u32,    // first row
  rows: u32,     // rows from there
  x_stride: u32, // vec4 a row of x
  blocks: u32,   // inputs / 32
  width: u32,    // blocks a row of the grid
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> codes: array<vec4<u32>>; // [row][block][2]
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<f32>>; // [row][block]: scale, 8 × sum of codes

fn packed(v: vec4<i32>) -> u32 {
  let b = bitcast<vec4<u32>>(v) & vec4<u32>(255u);
  return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let place = id.y * params.width + id.x;
  if (id.x >= params.width || place >= params.rows * params.blocks) { return; }
  let row = params.first + place / params.blocks;
  let block = place % params.blocks;
  let at = row * params.x_stride + block * 8u;
  // By their bits: a NaN is larger than every number, and ends up in the scale.
  var peaks = vec4<u32>(0u);
  for (var i = 0u; i < 8u; i++) { peaks = max(peaks, bitcast<vec4<u32>>(x[at + i]) & vec4<u32>(0x7fffffffu)); }
  let peak = bitcast<f32>(max(max(peaks.x, peaks.y), max(peaks.z, peaks.w)));
  let inverse = select(0.0, 127.0 / peak, peak > 0.0);
  var words: array<u32, 8>;
  var sums = vec4<i32>(0);
  for (var i = 0u; i < 8u; i++) {
    let v = vec4<i32>(round(x[at + i] * inverse));
    sums += v;
    words[i] = packed(v);
  }
  let to = row * params.blocks + block;
  codes[to * 2u] = vec4<u32>(words[0], words[1], words[2], words[3]);
  codes[to * 2u + 1u] = vec4<u32>(words[4], words[5], words[6], words[7]);
  scales[to] = vec2<f32>(peak / 127.0, 8.0 * f32(sums.x + sums.y + sums.z + sums.w));
}
