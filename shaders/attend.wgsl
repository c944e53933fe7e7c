// attend: attention over the outputs of several adapters, token by token, one adapter a launch  twin: crates/polygraft/src/steps/block.rs
// covers the softmax of Bottleneck's fusions
// bindings: 0 params 1 q 2 k 3 v 4 state(rw) 5 y(rw)   (5 of 8 storage)
// tiling: one token an invocation, a running peak and sum kept in state between launches
// assumes: padding of q and k zero

struct Params {
  first: u32,  // first token
  rows: u32,   // tokens from there
  stride: u32, // vec4 a token, of q, k, v and y
  width: u32,  // vec4 that matter
  place: u32,  // 1: the first adapter, 2: the last
  temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> state: array<vec2<f32>>; // [token]: peak, sum of weights
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.rows) { return; }
  let token = params.first + id.x;
  let at = token * params.stride;
  var products = vec4<f32>(0.0);
  for (var i = at; i < at + params.width; i++) { products += q[i] * k[i]; }
  let product = (products.x + products.y + products.z + products.w) / params.temperature;
  let start = (params.place & 1u) != 0u;
  let old = select(state[token], vec2<f32>(product, 0.0), start);
  let peak = max(old.x, product);
  let keep = exp(old.x - peak);
  let weight = exp(product - peak);
  let total = old.y * keep + weight;
  state[token] = vec2<f32>(peak, total);
  let by = select(1.0, total, (params.place & 2u) != 0u);
  for (var i = at; i < at + params.width; i++) {
    // What stood there before the first adapter is nobody's.
    let before = select(y[i] * keep, vec4<f32>(0.0), start);
    y[i] = (before + weight * v[i]) / by;
  }
}
