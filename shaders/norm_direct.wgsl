// norm_direct: layer norm of some rows
// bindings: as norm.wgsl
// tiling: one row an invocation; no workgroup memory and no barrier: for software devices
// assumes: any width

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.rows) { return; }
  let row = params.first + id.x;
  let at = row * params.stride * 4u;
  let which = vectors(row);
  let n = params.width;
  var sum = 0.0;
  for (var i = 0u; i < n; i++) {
    let value = before(at + i);
    y[at + i] = value;
    sum += value;
  }
  let mean = sum / f32(n);
  var squares = 0.0;
  for (var i = 0u; i < n; i++) {
    let d = y[at + i] - mean;
    squares += d * d;
  }
  let inverse = 1.0 / sqrt(squares / f32(n) + params.eps);
  for (var i = 0u; i < n; i++) { y[at + i] = after((y[at + i] - mean) * inverse, which, i); }
  for (var i = n; i % 4u != 0u; i++) { y[at + i] = 0.0; }
}
