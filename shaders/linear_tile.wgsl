// linear_tile: y = f(x · dequant(W)ᵀ + b) for some rows            twin: crates/polygraft/src/steps/linear.rs
// bindings: as linear.wgsl
// tiling: (8 Y) rows × (8 X) outputs a workgroup, X × Y invocations of 8×8, 16 inputs a stage;
//   workgroup memory 512 (X + Y) B: 8 192 B for 8 × 8, 16 384 B of 16 384 for 16 × 16; half of it in 16 bits
// assumes: as linear_direct; Stored and UNIT from linear_full or linear_half

const X: u32 = 8u;
const Y: u32 = 8u;

var<workgroup> xs: array<Stored, 16u * Y * 2u>; // [input][4 rows]
var<workgroup> ws: array<Stored, 16u * X * 2u>; // [input][4 outputs]

// Weights of four outputs at four inputs: one vec4 an output.
fn weights(column: u32, g: u32) -> mat4x4<f32> {
  let blocks = params.groups / 8u;
  if (FORM == 0u) {
    let p = params.weight + (column * params.groups + g) * 4u;
    return mat4x4<f32>(bitcast<vec4<f32>>(w[p]), bitcast<vec4<f32>>(w[p + 1u]), bitcast<vec4<f32>>(w[p + 2u]), bitcast<vec4<f32>>(w[p + 3u]));
  }
  let s = scales[column * blocks + g / 8u];
  if (FORM == 4u) {
    let p = params.weight + (column * blocks + g / 8u) * 4u;
    let word = (g / 2u) & 3u;
    let shift = (g & 1u) * 4u;
    return mat4x4<f32>(nibbles(w[p][word] >> shift) * s.x, nibbles(w[p + 1u][word] >> shift) * s.y, nibbles(w[p + 2u][word] >> shift) * s.z, nibbles(w[p + 3u][word] >> shift) * s.w);
  }
  let p = params.weight + (column * blocks * 2u + g / 4u) * 4u;
  let word = g & 3u;
  return mat4x4<f32>(signed_bytes(w[p][word]) * s.x, signed_bytes(w[p + 1u][word]) * s.y, signed_bytes(w[p + 2u][word]) * s.z, signed_bytes(w[p + 3u][word]) * s.w);
}

@compute @workgroup_size(X, Y)
fn main(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first_column = tile.x * X * 2u;
  let first_row = tile.y * Y * 8u;
  let zero = vec4<f32>(0.0);
  var c00 = zero; var c01 = zero; var c10 = zero; var c11 = zero; var c20 = zero; var c21 = zero; var c30 = zero; var c31 = zero;
  var c40 = zero; var c41 = zero; var c50 = zero; var c51 = zero; var c60 = zero; var c61 = zero; var c70 = zero; var c71 = zero;
  let stages = (params.groups + 3u) / 4u;
  for (var stage = 0u; stage < stages; stage++) {
    // Blocks of 4 rows (or outputs) by 4 inputs, turned round on the way in.
    for (var i = lane; i < Y * 8u; i += X * Y) {
      let quad = i % (Y * 2u);
      let k = i / (Y * 2u);
      let g = stage * 4u + k;
      var m = mat4x4<f32>(zero, zero, zero, zero);
      let row = first_row + quad * 4u;
      if (g < params.groups && row < params.rows) {
        let last = params.rows - 1u;
        let at = params.first;
        m = mat4x4<f32>(
          x[(at + row) * params.x_stride + g],
          x[(at + min(row + 1u, last)) * params.x_stride + g],
          x[(at + min(row + 2u, last)) * params.x_stride + g],
          x[(at + min(row + 3u, last)) * params.x_stride + g],
        );
      }
      let t = transpose(m) * (1.0 / UNIT);
      xs[(k * 4u) * Y * 2u + quad] = stored(t[0]);
      xs[(k * 4u + 1u) * Y * 2u + quad] = stored(t[1]);
      xs[(k * 4u + 2u) * Y * 2u + quad] = stored(t[2]);
      xs[(k * 4u + 3u) * Y * 2u + quad] = stored(t[3]);
    }
    for (var i = lane; i < X * 8u; i += X * Y) {
      let quad = i % (X * 2u);
      let k = i / (X * 2u);
      let g = stage * 4u + k;
      var m = mat4x4<f32>(zero, zero, zero, zero);
      if (g < params.groups && first_column + quad < params.columns) {
        m = transpose(weights(first_column + quad, g));
      }
      ws[(k * 4u) * X * 2u + quad] = stored(m[0]);
      ws[(k * 4u + 1u) * X * 2u + quad] = stored(m[1]);
      ws[(k * 4u + 2u) * X * 2u + quad] = stored(m[2]);
      ws[(k * 4u + 3u) * X * 2u + quad] = stored(m[3]);
    }
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let a = loaded(xs[k * Y * 2u + id.y * 2u]);
      let b = loaded(xs[k * Y * 2u + id.y * 2u + 1u]);
      let p = loaded(ws[k * X * 2u + id.x]);
      let q = loaded(ws[k * X * 2u + id.x + X]);
      c00 += a.x * p; c01 += a.x * q;
      c10 += a.y * p; c11 += a.y * q;
      c20 += a.z * p; c21 += a.z * q;
      c30 += a.w * p; c31 += a.w * q;
      c40 += b.x * p; c41 += b.x * q;
      c50 += b.y * p; c51 += b.y * q;
      c60 += b.z * p; c61 += b.z * q;
      c70 += b.w * p; c71 += b.w * q;
    }
    workgroupBarrier();
  }
  let row = first_row + id.y * 8u;
  write(row, first_column + id.x, c00, c10, c20, c30);
  write(row + 4u, first_column + id.x, c40, c50, c60, c70);
  write(row, first_column + id.x + X, c01, c11, c21, c31);
  write(row + 4u, first_column + id.x + X, c41, c51, c61, c71);
}

fn write(row: u32, column: u32, c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>) {
  if (column >= params.columns) { return; }
  let b = bias(column);
  let at = (params.first + row) * params.y_stride + params.column + column;
  if (row < params.rows) { y[at] = activate(c0 * UNIT + b, params.activation); }
  if (row + 1u < params.rows) { y[at + params.y_stride] = activate(c1 * UNIT + b, params.activation); }
  if (row + 2u < params.rows) { y[at + 2u * params.y_stride] = activate(c2 * UNIT + b, params.activation); }
  if (row + 3u < params.rows) { y[at + 3u * params.y_stride] = activate(c3 * UNIT + b, params.activation); }
}
