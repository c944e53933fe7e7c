// linear_full: the workgroup memory of linear_tile in 32 bits, put before it
alias Stored = vec4<f32>;
const UNIT: f32 = 1.0; // what 1.0 stands for, where activations are stored

fn stored(v: vec4<f32>) -> Stored { return v; }
fn loaded(v: Stored) -> vec4<f32> { return v; }
