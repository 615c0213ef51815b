// What the models compute: q(z|x), p(x|z), the terms of the bound; priors, walks and paths.
//
// A model is what recipes describe (see Explorable): its networks by name, latentDim, prior, and some facts. A picture
// x and a mean E[x|z] are arrays of so many numbers as it has pixels, a code z has latentDim, a class y is one-hot.
"use strict";

function concatenated(a, b) {
  const out = new Float64Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

// The pixels x with the class y beside each of them, as convolutions take classes.
function besidePlanes(x, y) {
  const out = new Float64Array(x.length * (1 + y.length));
  for (let i = 0; i < x.length; i++) {
    out[i * (1 + y.length)] = x[i];
    out.set(y, i * (1 + y.length) + 1);
  }
  return out;
}

// ---- encoder ----

// What the encoder's networks give for a picture: the mean of q(z|x), or z itself; log σ² where q(z|x) has one; the
// logits of q(y|x) where the encoder classifies. A universal posterior takes noise.
function encode(model, x, y, noise) {
  const { images, encoder, mean, logvar, classes } = model.networks;
  if (model.encoderClasses === "beside the pixels") x = concatenated(x, y);
  if (model.encoderClasses === "beside each pixel") x = besidePlanes(x, y);
  let h = forward(images, x);
  if (model.posterior === "universal") h = concatenated(h, noise);
  h = forward(encoder, h);
  return {
    mean: forward(mean, h),
    logvar: logvar ? forward(logvar, h) : null,
    classLogits: classes ? forward(classes, h) : null,
  };
}

// A draw of what the encoder takes beside the picture: nothing unless its posterior is universal.
function encoderNoise(model, normals) {
  return model.posterior === "universal" ? normals(model.noiseDim) : null;
}

// q(z|x): its mean and standard deviation in each dimension, and some draws from it. Those of a universal posterior are
// all that is known of it; a deterministic one has no spread.
function posterior(model, x, y, normals, count = 100) {
  const found = encode(model, x, y, encoderNoise(model, normals));
  const zeros = new Float64Array(model.latentDim);
  if (model.posterior === "deterministic") return { ...found, sd: zeros, draws: [found.mean] };
  if (model.posterior === "universal") {
    const draws = Array.from({ length: count }, () => encode(model, x, y, encoderNoise(model, normals)).mean);
    const mean = zeros.map((_, j) => draws.reduce((sum, z) => sum + z[j], 0) / count);
    const sd = zeros.map((_, j) => Math.sqrt(draws.reduce((sum, z) => sum + (z[j] - mean[j]) ** 2, 0) / count));
    return { ...found, mean, sd, draws };
  }
  const sd = found.logvar.map((value) => Math.exp(value / 2));
  const draw = () => normals(model.latentDim).map((noise, j) => found.mean[j] + sd[j] * noise);
  return { ...found, sd, draws: Array.from({ length: count }, draw) };
}

// ---- decoder ----

// The parameters of p(x|z): logits or a mean, and log σ² of each pixel where the decoder gives one.
function decodeParameters(model, z, y) {
  const { decoder, output, pixel_logvar } = model.networks;
  const h = forward(decoder, model.decoderClasses ? concatenated(z, y) : z);
  const out = forward(output, h);
  if (!pixel_logvar) return { out, logvar: null };
  const floor = 2 * Math.log(model.sigmaFloor);
  return { out, logvar: forward(pixel_logvar, h).map((value) => softplus(value - floor) + floor) };
}

// The picture of a code: E[x|z], or G(z).
function decode(model, z, y) {
  const { out } = decodeParameters(model, z, y);
  return model.decoderGives === "logits" ? out.map(sigmoid) : out;
}

// ---- the bound ----

// -log p(x|z) in nats, constants included.
function negativeLogLikelihood(model, x, z, y) {
  const { out, logvar } = decodeParameters(model, z, y);
  const terms = {
    bernoulli: (d) => softplus(out[d]) - out[d] * x[d],
    gaussian: (d) => (Math.log(2 * Math.PI) + logvar[d] + (x[d] - out[d]) ** 2 * Math.exp(-logvar[d])) / 2,
    "gaussian-fixed": (d) =>
      (x[d] - out[d]) ** 2 / (2 * model.sigma ** 2) + Math.log(model.sigma) + Math.log(2 * Math.PI) / 2,
  };
  let sum = 0;
  for (let d = 0; d < x.length; d++) sum += terms[model.likelihood](d);
  return sum;
}

// KL(q(z|x) || N(0, I)) = ½ Σ (μ² + σ² - 1 - log σ²), in nats.
function klStandardNormal(mean, logvar) {
  let sum = 0;
  for (let j = 0; j < mean.length; j++) sum += mean[j] ** 2 + (Math.expm1(logvar[j]) - logvar[j]);
  return sum / 2;
}

// ---- priors ----

const normalCumulative = (x) => erfc(-x / Math.SQRT2) / 2;

function rollAt(u) {
  const root = Math.sqrt(u);
  return Float64Array.of(3 * root * Math.cos(4 * Math.PI * root), 3 * root * Math.sin(4 * Math.PI * root));
}

// Each prior as a function of standard normal numbers; smooth, so that what moves smoothly there moves smoothly here.
const FROM_NORMAL = {
  gaussian: ({ sd }, noise) => noise.map((value) => sd * value),
  uniform: ({ limit }, noise) => noise.map((value) => limit * (2 * normalCumulative(value) - 1)),
  "swiss-roll": (_, noise) => rollAt(normalCumulative(noise[0])),
};

// A draw from the prior; normals(n) gives n standard normal numbers.
function samplePrior(model, normals) {
  const { prior, latentDim } = model;
  if (prior.name !== "mixture") return FROM_NORMAL[prior.name](prior, normals(latentDim));
  const component = Math.floor(prior.components * normalCumulative(normals(1)[0]));
  const angle = (2 * Math.PI * component) / prior.components;
  const [a, b] = normals(2);
  const [along, across] = [prior.shift + prior.along * a, prior.across * b];
  return Float64Array.of(
    along * Math.cos(angle) - across * Math.sin(angle),
    along * Math.sin(angle) + across * Math.cos(angle),
  );
}

// A smooth walk that at any time is a draw from the prior: normal numbers ε_k, one vector for each second, blended by
// the weights w of a cubic B-spline, divided by √Σw², which keeps the variance at 1. In the mixture, where that would
// leave the components, it goes from the origin to a draw and back, then to another.
class Walk {
  constructor(model, normals) {
    this.model = model;
    this.normals = normals;
    this.time = 0;
    this.draws = Array.from({ length: 4 }, () => this.next());
  }

  next() {
    const { model, normals } = this;
    return model.prior.name === "mixture" ? samplePrior(model, normals) : normals(model.latentDim);
  }

  // Moves on by so many seconds; returns z.
  advance(seconds) {
    this.time += this.model.prior.name === "swiss-roll" ? seconds / 4 : seconds; // the roll is a long way
    while (this.time >= 1) {
      this.time -= 1;
      this.draws = [...this.draws.slice(1), this.next()];
    }
    const t = this.time;
    if (this.model.prior.name === "mixture") return this.draws[0].map((value) => value * Math.sin(Math.PI * t) ** 2);
    const weights = [(1 - t) ** 3, 3 * t ** 3 - 6 * t ** 2 + 4, 3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4, t ** 3];
    const norm = Math.hypot(...weights);
    const noise = this.draws[0].map((_, j) => this.draws.reduce((sum, e, k) => sum + weights[k] * e[j], 0) / norm);
    return FROM_NORMAL[this.model.prior.name](this.model.prior, noise);
  }
}

// ---- paths between two codes, t from 0 to 1 ----

function straightPath(a, b, t) {
  return a.map((value, j) => (1 - t) * value + t * b[j]);
}

// The great circle between directions, while the norm goes from that of a to that of b in equal steps.
function sphericalPath(a, b, t) {
  const [normA, normB] = [Math.hypot(...a), Math.hypot(...b)];
  const cosine = a.reduce((sum, value, j) => sum + value * b[j], 0) / (normA * normB);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (!(Math.sin(angle) > 1e-6)) return straightPath(a, b, t); // same or opposite directions, or none
  const norm = (1 - t) * normA + t * normB;
  const [from, to] = [Math.sin((1 - t) * angle) / normA, Math.sin(t * angle) / normB];
  return a.map((value, j) => (norm * (from * value + to * b[j])) / Math.sin(angle));
}

// ---- numbers ----

function softmax(logits) {
  const largest = Math.max(...logits);
  const exponentials = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = exponentials.reduce((a, b) => a + b);
  return exponentials.map((value) => value / sum);
}

// A function n -> n standard normal numbers, the same for the same seed: mulberry32 and the Box-Muller transform.
function normalsFrom(seed) {
  const uniform = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return (count) => Float64Array.from({ length: count }, normal);
}
