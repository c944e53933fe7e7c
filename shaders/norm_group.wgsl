// norm_group: layer norm of some rows
// bindings: as norm.wgsl
// tiling: one row a workgroup of 64; workgroup memory 256 B of 16 384
// assumes: any width

var<workgroup> parts: array<f32, 64>;

fn total(lane: u32, mine: f32) -> f32 {
  workgroupBarrier();
  parts[lane] = mine;
  for (var half = 32u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] += parts[lane + half]; }
  }
  workgroupBarrier();
  return parts[0];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = params.first + group.x;
  let at = row * params.stride * 4u;
  let which = vectors(row);
  let n = params.width;
  var sum = 0.0;
  for (var i = lane; i < n; i += 64u) {
    let value = before(at + i);
    y[at + i] = value;
    sum += value;
  }
  let mean = total(lane, sum) / f32(n);
  var squares = 0.0;
  for (var i = lane; i < n; i += 64u) {
    let d = y[at + i] - mean;
    squares += d * d;
  }
  let inverse = 1.0 / sqrt(total(lane, squares) / f32(n) + params.eps);
  for (var i = lane; i < n; i += 64u) { y[at + i] = after((y[at + i] - mean) * inverse, which, i); }
  if (lane == 0u) {
    for (var i = n; i % 4u != 0u; i++) { y[at + i] = 0.0; }
  }
}
