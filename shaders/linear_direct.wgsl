// linear_direct: y = f(x · dequant(W)ᵀ + b) for some rows          twin: crates/polygraft/src/steps/linear.rs
// bindings: as linear.wgsl
// tiling: 4 rows × 4 outputs an invocation; no workgroup memory and no barrier: for few rows, and for software devices
// assumes: inputs a multiple of 4 (q8_0, q4_0: of 32), padding of w zero; any rows, outputs ≥ 1

const X: u32 = 16u; // invocations along the outputs
const Y: u32 = 4u;  // and along the rows

struct Tile { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

// Adds the products of four inputs of four rows with four outputs' weights.
fn place(t: Tile, at: array<u32, 4>, g: u32, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> Tile {
  let x0 = x[at[0] + g];
  let x1 = x[at[1] + g];
  let x2 = x[at[2] + g];
  let x3 = x[at[3] + g];
  return Tile(
    t.r0 + vec4<f32>(dot(x0, w0), dot(x0, w1), dot(x0, w2), dot(x0, w3)),
    t.r1 + vec4<f32>(dot(x1, w0), dot(x1, w1), dot(x1, w2), dot(x1, w3)),
    t.r2 + vec4<f32>(dot(x2, w0), dot(x2, w1), dot(x2, w2), dot(x2, w3)),
    t.r3 + vec4<f32>(dot(x3, w0), dot(x3, w1), dot(x3, w2), dot(x3, w3)),
  );
}

fn scaled(t: Tile, by: vec4<f32>, sums: Tile) -> Tile {
  return Tile(sums.r0 + by * t.r0, sums.r1 + by * t.r1, sums.r2 + by * t.r2, sums.r3 + by * t.r3);
}

fn eight(t: Tile, at: array<u32, 4>, g: u32, a: u32, b: u32, c: u32, d: u32) -> Tile {
  let low = place(t, at, g, nibbles(a), nibbles(b), nibbles(c), nibbles(d));
  return place(low, at, g + 1u, nibbles(a >> 4u), nibbles(b >> 4u), nibbles(c >> 4u), nibbles(d >> 4u));
}

fn four(t: Tile, at: array<u32, 4>, g: u32, a: u32, b: u32, c: u32, d: u32) -> Tile {
  return place(t, at, g, signed_bytes(a), signed_bytes(b), signed_bytes(c), signed_bytes(d));
}

@compute @workgroup_size(X, Y)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let column = id.x;
  let row = id.y * 4u;
  if (column >= params.columns || row >= params.rows) { return; }
  // Rows past the last are computed again in its place, and not stored.
  let last = params.rows - 1u;
  let r = params.first + vec4<u32>(row, min(row + 1u, last), min(row + 2u, last), min(row + 3u, last));
  let at = array<u32, 4>(r.x * params.x_stride, r.y * params.x_stride, r.z * params.x_stride, r.w * params.x_stride);
  let zero = vec4<f32>(0.0);
  var sums = Tile(zero, zero, zero, zero);
  let groups = params.groups;
  if (FORM == 0u) {
    for (var g = 0u; g < groups; g++) {
      let p = params.weight + (column * groups + g) * 4u;
      sums = place(sums, at, g, bitcast<vec4<f32>>(w[p]), bitcast<vec4<f32>>(w[p + 1u]), bitcast<vec4<f32>>(w[p + 2u]), bitcast<vec4<f32>>(w[p + 3u]));
    }
  } else {
    let blocks = groups / 8u;
    for (var block = 0u; block < blocks; block++) {
      let g = block * 8u;
      var t = Tile(zero, zero, zero, zero);
      if (FORM == 4u) {
        let p = params.weight + (column * blocks + block) * 4u;
        let a = w[p];
        let b = w[p + 1u];
        let c = w[p + 2u];
        let d = w[p + 3u];
        t = eight(t, at, g, a.x, b.x, c.x, d.x);
        t = eight(t, at, g + 2u, a.y, b.y, c.y, d.y);
        t = eight(t, at, g + 4u, a.z, b.z, c.z, d.z);
        t = eight(t, at, g + 6u, a.w, b.w, c.w, d.w);
      } else {
        for (var half = 0u; half < 2u; half++) {
          let p = params.weight + (column * blocks * 2u + block * 2u + half) * 4u;
          let a = w[p];
          let b = w[p + 1u];
          let c = w[p + 2u];
          let d = w[p + 3u];
          let h = g + half * 4u;
          t = four(t, at, h, a.x, b.x, c.x, d.x);
          t = four(t, at, h + 1u, a.y, b.y, c.y, d.y);
          t = four(t, at, h + 2u, a.z, b.z, c.z, d.z);
          t = four(t, at, h + 3u, a.w, b.w, c.w, d.w);
        }
      }
      sums = scaled(t, scales[column * blocks + block], sums);
    }
  }
  let b = bias(column);
  let to = params.column + column;
  y[r.x * params.y_stride + to] = activate(sums.r0 + b, params.activation);
  if (row < last) { y[r.y * params.y_stride + to] = activate(sums.r1 + b, params.activation); }
  if (row + 1u < last) { y[r.z * params.y_stride + to] = activate(sums.r2 + b, params.activation); }
  if (row + 2u < last) { y[r.w * params.y_stride + to] = activate(sums.r3 + b, params.activation); }
}
