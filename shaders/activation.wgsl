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
    case 7u: { return v / (1.0 + exp(-1.702 * v)); } // quick gelu
    case 8u: { // gelu, cut
      let tail = 0.5 * v * erfc(abs(v) * 0.70710678);
      return clamp(select(tail, v - tail, v > vec4<f32>(0.0)), vec4<f32>(-10.0), vec4<f32>(10.0));
    }
    case 9u: { return max(v, 0.01 * v); } // leaky relu
    case 10u: { return clamp(v, vec4<f32>(0.0), vec4<f32>(6.0)); } // relu6
    case 11u: { return max(v, vec4<f32>(0.0)) * max(v, vec4<f32>(0.0)); } // relu squared
    case 12u: { // mish: tanh(ln(1 + e^v)), by n = (1 + e^v)^2
      let e = exp(min(v, vec4<f32>(20.0)));
      let n = (1.0 + e) * (1.0 + e);
      return v * (n - 1.0) / (n + 1.0);
    }
    case 13u: { // laplace: erf of (v - 0.707107) / (0.282095 sqrt 2)
      let z = (v - 0.707107) * 2.5066294;
      let tail = 0.5 * erfc(abs(z));
      return select(tail, 1.0 - tail, z > vec4<f32>(0.0));
    }
    case 14u: { return select(exp(min(v, vec4<f32>(0.0))) - 1.0, v, v > vec4<f32>(0.0)); } // elu
    default: { return v; }
  }
}
