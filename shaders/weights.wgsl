// weights: a matrix of an adapter in the arena, in numbers or in codes; put before the kernels that multiply by one.
// bindings: 2 arena
// layouts: numbers [outputs / 4][inputs / 4][4 outputs][4 inputs], padding zero; codes [outputs][inputs / 4][4 inputs] of a
//   few bits, the first in the lowest; their book: levels (of 1 and 8 bits, which are evenly spaced, the first and the last),
//   then mean and deviation of each group

struct Weights {
  at: u32,     // first vec4
  groups: u32, // inputs / 4
  form: u32,   // bits + 16 · inputs that the last four lacks + 64 · outputs that it lacks + 256 · fours in a group, 0: one for all
  book: u32,   // first vec4
}

@group(0) @binding(2) var<storage, read> arena: array<vec4<u32>>;

fn floats(at: u32) -> vec4<f32> { return bitcast<vec4<f32>>(arena[at]); }

fn level(w: Weights, code: u32) -> f32 { return bitcast<f32>(arena[w.book + code / 4u][code % 4u]); }

// Four inputs of an output.
fn decoded(w: Weights, output: u32, g: u32) -> vec4<f32> {
  let bits = w.form & 15u;
  let most = (1u << bits) - 1u;
  let nibble = (output * w.groups + g) * bits;
  let word = arena[w.at + nibble / 32u][nibble / 8u % 4u] >> (nibble % 8u * 4u);
  let code = (vec4<u32>(word) >> (vec4<u32>(0u, 1u, 2u, 3u) * bits)) & vec4<u32>(most);
  let book = floats(w.book);
  var value: vec4<f32>;
  var pair = 1u;
  if (bits == 1u) {
    value = select(vec4<f32>(book.x), vec4<f32>(book.y), code == vec4<u32>(1u));
  } else if (bits == 8u) {
    value = book.x + (book.y - book.x) / 255.0 * vec4<f32>(code);
  } else {
    value = vec4<f32>(level(w, code.x), level(w, code.y), level(w, code.z), level(w, code.w));
    pair = (most + 1u) / 2u;
  }
  let span = w.form >> 8u;
  if (span != 0u) { pair += output * ((w.groups + span - 1u) / span) + g / span; }
  let both = floats(w.book + pair / 2u);
  let stats = select(both.xy, both.zw, pair % 2u == 1u);
  value = value * stats.y + stats.x;
  if (g + 1u < w.groups) { return value; }
  return select(value, vec4<f32>(0.0), vec4<u32>(1u, 2u, 3u, 4u) + vec4<u32>((w.form >> 4u) & 3u) > vec4<u32>(4u));
}

// Four outputs, a column each, by four inputs. Nothing of it stays: a matrix in codes is decoded where it multiplies.
fn tile(w: Weights, quad: u32, g: u32) -> mat4x4<f32> {
  if ((w.form & 15u) == 0u) {
    let p = w.at + (quad * w.groups + g) * 4u;
    return mat4x4<f32>(floats(p), floats(p + 1u), floats(p + 2u), floats(p + 3u));
  }
  let o = quad * 4u;
  return mat4x4<f32>(decoded(w, o, g), decoded(w, o + 1u, g), decoded(w, o + 2u, g), decoded(w, o + 3u, g));
}

// Zeros for the outputs that the last four lacks: codes have no zero for them.
fn kept(w: Weights, quad: u32, quads: u32, sum: vec4<f32>) -> vec4<f32> {
  if (quad + 1u < quads) { return sum; }
  return select(sum, vec4<f32>(0.0), vec4<u32>(1u, 2u, 3u, 4u) + vec4<u32>((w.form >> 6u) & 3u) > vec4<u32>(4u));
}
