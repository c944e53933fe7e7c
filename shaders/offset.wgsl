// offset: y += scale · vector for some rows, each its own            twin: crates/polygraft/src/steps/pointwise.rs
// bindings: 0 params 1 arena 2 tables 3 y(rw)   (3 of 8 storage)
// tiling: four numbers of one segment's rows an invocation
// assumes: any width

struct Params {
  stride: u32, // vec4 a row
  width: u32,  // vec4 that matter
  items: u32,  // first of [first row, end, vector, scale as bits] in tables
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> arena: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let column = group.y * 64u + lane.x;
  if (column >= params.width) { return; }
  let item = tables[params.items + group.x];
  let shift = bitcast<f32>(item.w) * arena[item.z + column];
  for (var row = item.x; row < item.y; row++) { y[row * params.stride + column] += shift; }
}
