// mean: y = the mean over the tokens of an item, for each of them; of x, of a softmax over its first numbers, or the product of
// the means of those
// covers the gates of Bottleneck and MixedLowRank                   twin: crates/polygraft/src/steps/{block,mixed}.rs
// bindings: 0 params 1 x 2 tables 3 y(rw)   (3 of 8 storage)
// tiling: four numbers of one item a workgroup: every invocation finds the mean, and writes some of the tokens
// assumes: items of at least one token

struct Params {
  stride: u32, // vec4 a token, of x and y
  items: u32,  // first of [first token, tokens, numbers of the softmax or 0, numbers of the product or 0] in tables
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

fn share(at: u32, quad: u32, n: u32) -> vec4<f32> {
  let value = x[at + quad];
  if (n == 0u) { return value; }
  var peak = -3.0e38;
  for (var i = 0u; i < n; i++) { peak = max(peak, x[at + i / 4u][i % 4u]); }
  var total = 0.0;
  for (var i = 0u; i < n; i++) { total += exp(x[at + i / 4u][i % 4u] - peak); }
  return exp(min(value - peak, vec4<f32>(0.0))) / total;
}

fn average(item: vec4<u32>, quad: u32) -> vec4<f32> {
  var sum = vec4<f32>(0.0);
  for (var row = item.x; row < item.x + item.y; row++) { sum += share(row * params.stride, quad, item.z); }
  return sum / f32(item.y);
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let item = tables[params.items + group.x];
  let end = item.x + item.y;
  var mean = average(item, group.y);
  if (item.w > 0u) {
    var product = mean.x;
    for (var i = 1u; i < item.w; i++) {
      let next = average(item, i / 4u);
      product *= next[i % 4u];
    }
    mean = vec4<f32>(product);
  }
  for (var row = item.x + lane.x; row < end; row += 32u) { y[row * params.stride + group.y] = mean; }
}
