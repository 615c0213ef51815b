// The forward pass of networks in evaluation mode, one example at a time. Numbers are computed in double precision from
// the float32 parameters of the run. Images are flat arrays, row by row, channels last.
"use strict";

const ACTIVATIONS = {
  identity: (x) => x,
  relu: (x) => Math.max(x, 0),
  leaky_relu: (x) => (x > 0 ? x : 0.2 * x),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  sigmoid,
  tanh: Math.tanh,
  softplus,
  gelu: (x) => (x * erfc(-x / Math.SQRT2)) / 2, // x Φ(x)
};

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// log(1 + e^x), which does not overflow.
function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

// 2/√π ∫ e^(-t²) dt from x to ∞: by its power series where |x| < 2.5, else by its continued fraction.
function erfc(x) {
  if (x < -2.5) return 2 - erfc(-x);
  const scale = Math.exp(-x * x) / Math.sqrt(Math.PI);
  if (x > 2.5) {
    let fraction = 0;
    for (let k = 60; k > 0; k--) fraction = k / 2 / (x + fraction);
    return scale / (x + fraction);
  }
  let term = 2 * x;
  let sum = term;
  for (let n = 1; n < 60; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return 1 - scale * sum;
}

const LAYERS = {
  dense,
  convolution,
  "transposed convolution": transposedConvolution,
  "batch norm": batchNorm,
};

// The network's output for one input x.
function forward(network, x) {
  for (const layer of network) {
    x = LAYERS[layer.kind](layer, x);
    const activation = ACTIVATIONS[layer.activation];
    if (layer.activation !== "identity") for (let i = 0; i < x.length; i++) x[i] = activation(x[i]);
  }
  return x;
}

// x W + b, row by row of W (inputs, outputs). Many inputs are 0: the dark pixels, and half of what relu gives.
function dense({ inputs, outputs, weight, bias }, x) {
  const out = withBias(1, outputs, bias);
  for (let i = 0; i < inputs; i++) {
    if (x[i] !== 0) addScaled(out, 0, x[i], weight, i * outputs, outputs);
  }
  return out;
}

// Each pixel of the result is a sum over a window of x, with weights W (rows, columns, inputs, outputs).
function convolution(layer, x) {
  const { inputs, outputs, weight, bias, after } = layer;
  const out = withBias(after[0] * after[1], outputs, bias);
  eachPair(layer, layer.after, layer.before, (made, met, place) => {
    for (let i = 0; i < inputs; i++) {
      const value = x[met * inputs + i];
      if (value !== 0) addScaled(out, made * outputs, value, weight, (place * inputs + i) * outputs, outputs);
    }
  });
  return out;
}

// The adjoint: each pixel of x adds to a window of the result, with weights W (rows, columns, outputs, inputs).
function transposedConvolution(layer, x) {
  const { inputs, outputs, weight, bias, after } = layer;
  const out = withBias(after[0] * after[1], outputs, bias);
  eachPair(layer, layer.before, layer.after, (met, made, place) => {
    for (let o = 0; o < outputs; o++) {
      const start = (place * outputs + o) * inputs;
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x[met * inputs + i] * weight[start + i];
      out[made * outputs + o] += sum;
    }
  });
  return out;
}

// Calls visit(small, large, place) for each pixel of the smaller images, each pixel of the larger ones in its window,
// and the place in that window.
function eachPair({ window, stride, padding }, small, large, visit) {
  for (let p = 0; p < small[0]; p++) {
    for (let q = 0; q < small[1]; q++) {
      for (let k = 0; k < window[0]; k++) {
        const row = p * stride[0] + k - padding[0];
        if (row < 0 || row >= large[0]) continue;
        for (let l = 0; l < window[1]; l++) {
          const column = q * stride[1] + l - padding[1];
          if (column < 0 || column >= large[1]) continue;
          visit(p * small[1] + q, row * large[1] + column, k * window[1] + l);
        }
      }
    }
  }
}

// γ (x - mean) / √(variance + ε) + β, with the moving averages of mean and variance, one of each per feature.
function batchNorm({ gamma, beta, mean, variance, epsilon }, x) {
  const features = gamma.length;
  return x.map((value, i) => {
    const f = i % features;
    return ((value - mean[f]) * gamma[f]) / Math.sqrt(variance[f] + epsilon) + beta[f];
  });
}

// So many times the bias, or zeros.
function withBias(times, outputs, bias) {
  const out = new Float64Array(times * outputs);
  if (bias) for (let t = 0; t < times; t++) out.set(bias, t * outputs);
  return out;
}

// out[at], ... += factor * row[start], ..., count numbers.
function addScaled(out, at, factor, row, start, count) {
  for (let o = 0; o < count; o++) out[at + o] += factor * row[start + o];
}

// ---- what the page holds in text ----

// The bytes of a text made by networks.py: seven bits a character, the highest first, compressed.
async function unpacked(text) {
  const bytes = new Uint8Array((7 * text.length) >> 3);
  let [bits, waiting, count] = [0, 0, 0];
  for (let i = 0; i < text.length; i++) {
    bits = (bits << 7) | (text.charCodeAt(i) & 127);
    waiting += 7;
    if (waiting < 8) continue;
    waiting -= 8;
    bytes[count++] = bits >> waiting;
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const whole = new Response(stream).arrayBuffer().catch(() => Promise.reject(new Error("its data are damaged")));
  return new Uint8Array(await whole);
}

// The float32 numbers of such a text: the lowest bytes of all come first, then the next ones, and so on.
async function unpackedNumbers(text) {
  const planes = await unpacked(text);
  const count = planes.length / 4;
  const view = new DataView(new ArrayBuffer(planes.length));
  for (let i = 0; i < count; i++) for (let b = 0; b < 4; b++) view.setUint8(4 * i + b, planes[b * count + i]);
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i++) numbers[i] = view.getFloat32(4 * i, true);
  return numbers;
}

// Layers as networks.py describes them, with their parameters in place of where those lie.
function withWeights(layers, numbers) {
  const names = ["weight", "bias", "gamma", "beta", "mean", "variance"];
  return layers.map((layer) => {
    const bound = { ...layer };
    for (const name of names) if (layer[name]) bound[name] = numbers.subarray(...layer[name]);
    return bound;
  });
}
