// linear_half: the workgroup memory of linear_tile in 16 bits, put before it; products and sums stay in 32
// assumes: the feature shader-f16; activations below 2²⁰ and weights below 2¹⁶, a thousand times what models have
enable f16;

alias Stored = vec4<f16>;
const UNIT: f32 = 16.0; // what 1.0 stands for, where activations are stored

fn stored(v: vec4<f32>) -> Stored { return Stored(v); }
fn loaded(v: Stored) -> vec4<f32> { return vec4<f32>(v); }
