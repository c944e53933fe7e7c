// gather: y = gate · x for some rows of a buffer or of the arena, each put in its place
// covers: Insert, and what prefixes put in front of keys and values  twin: crates/polygraft/src/steps/{pointwise,attention}.rs
// bindings: 0 params 1 x 2 tables 3 gates 4 y(rw)   (4 of 8 storage)
// tiling: four numbers of an item's rows an invocation
// assumes: rows of equal stride

const NONE: u32 = 0xffffffffu;

struct Params {
  stride: u32, // vec4 a row, of x and y
  items: u32,  // first of [first row of y, rows, first vec4 of x, number among the gates or NONE] in tables
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> gates: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let column = group.y * 64u + lane.x;
  if (column >= params.stride) { return; }
  let item = tables[params.items + group.x];
  var gate = 1.0;
  if (item.w != NONE) { gate = gates[item.w]; }
  let to = item.x * params.stride + column;
  let source = item.z + column;
  for (var row = 0u; row < item.y; row++) { y[to + row * params.stride] = gate * x[source + row * params.stride]; }
}
