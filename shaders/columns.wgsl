// columns: y made of columns of x, row by row            twins: crates/polygraft/src/steps/pointwise.rs and places.rs
// covers: Copy, Gate, Rotate, Unfold
// bindings: 0 params 1 x 2 tables 3 y(rw)   (3 of 8 storage)
// tiling: one number an invocation, 64 of a row a workgroup
// assumes: any widths

const COPY: u32 = 0u;
const GATE: u32 = 1u;
const ROTATE: u32 = 2u;

struct Params {
  first: u32,      // first row
  x_stride: u32,   // vec4 a row of x
  y_stride: u32,   // vec4 a row of y
  width: u32,      // numbers a row of y
  column: u32,     // first of x
  kind: u32,       // copy, gate, rotate, or neighbours
  size: u32,       // gate: the function; rotate: pairs of a head; neighbours: numbers a row of x
  items: u32,      // rotate: first of [cosine, sine, cosine, sine] in tables, pairs two by two, from token 0 on;
                   // neighbours: first of [row's first token, its end] in tables, from token 0 on
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> tables: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= params.width) { return; }
  let row = params.first + id.y;
  let at = row * params.x_stride * 4u + params.column;
  var value = 0.0;
  switch (params.kind) {
    case COPY: { value = x[at + i]; }
    case GATE: { value = activate(vec4<f32>(x[at + i]), params.size).x * x[at + params.width + i]; }
    case ROTATE: {
      let pairs = params.size;
      let place = i % (2u * pairs);
      let pair = place % pairs;
      let both = bitcast<vec4<f32>>(tables[params.items + row * ((pairs + 1u) / 2u) + pair / 2u]);
      let turn = select(both.xy, both.zw, pair % 2u == 1u);
      if (place < pairs) {
        value = x[at + i] * turn.x - x[at + i + pairs] * turn.y;
      } else {
        value = x[at + i] * turn.x + x[at + i - pairs] * turn.y;
      }
    }
    default: {
      let span = tables[params.items + row];
      // Places from as far before the token as the widths say.
      let reach = params.width / params.size / 2u;
      let token = row + i / params.size;
      if (token >= span.x + reach && token < span.y + reach) {
        value = x[(token - reach) * params.x_stride * 4u + i % params.size];
      }
    }
  }
  y[row * params.y_stride * 4u + i] = value;
}
