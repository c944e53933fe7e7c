// activation: pointwise functions, put before the kernels that run one. twin: polygraft::model::Activation

// 1 - erf(z) for z >= 0: Abramowitz and Stegun 7.1.26.
fn erfc(z: vec4<f32>) -> vec4<f32> {
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return p * exp(-z * z);
}

// The built-in tanh overflows on some drivers.
fn tanh_safe(v: vec4<f32>) -> vec4<f32> {
  let e = exp(-2.0 * abs(v));
  return sign(v) * (1.0 - e) / (1.0 + e);
}

fn activate(v: vec4<f32>, function: u32) -> vec4<f32> {
  switch (function) {
    case 1u: { // gelu
      let tail = 0.5 * v * erfc(abs(v) * 0.70710678);
      return select(tail, v - tail, v > vec4<f32>(0.0));
    }
    case 2u: { // gelu by tanh
      return 0.5 * v * (1.0 + tanh_safe(0.7978845608 * (v + 0.044715 * v * v * v)));
    }
    case 3u: { return max(v, vec4<f32>(0.0)); } // relu
    case 4u: { return v / (1.0 + exp(-v)); } // silu
    case 5u: { return tanh_safe(v); }
    case 6u: { return 1.0 / (1.0 + exp(-v)); } // sigmoid
    default: { return v; }
  }
}
