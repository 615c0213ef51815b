// What the parts of the page share: the model, elements, how pictures are painted.
"use strict";

const element = (id) => document.getElementById(id);
const model = {};
const Q = "<i>q</i>(<i>z</i>|<i>x</i>)";

// Reads the model out of the page; resolves once all parts have started.
const ready = (async () => {
  const run = JSON.parse(element("run").textContent);
  const numbers = await unpackedNumbers(element("weights").textContent);
  const networks = Object.entries(run.networks).map(([name, layers]) => [name, withWeights(layers, numbers)]);
  Object.assign(model, run, { networks: Object.fromEntries(networks) });
  if (run.judge) model.judge = withWeights(run.judge, await unpackedNumbers(element("judge").textContent));
  if (run.examples) model.examples = examples(run.examples, await unpacked(element("examples").textContent));
  keepWhatApplies(features());
  fillIn();
  document.querySelector("main").hidden = false;
  readTheme();
  startDecode();
  if (model.networks.encoder) startDraw();
  startPaths();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readTheme();
    dispatchEvent(new Event("repaint"));
  });
})();
ready.catch((error) => {
  const problem = element("problem");
  problem.textContent = `This page could not start: ${error.message}. It needs a browser of 2024 or later.`;
  problem.hidden = false;
});

// Test images, each with its label.
function examples(labels, bytes) {
  const size = pixelCount();
  return labels.map((label, n) => ({
    label,
    x: Float64Array.from(bytes.subarray(n * size, (n + 1) * size), (byte) => byte / 255),
  }));
}

function pixelCount() {
  return model.shape[0] * model.shape[1];
}

// A class as networks take it: all 0 for none.
function oneHot(label) {
  return Float64Array.from(model.classes, (_, k) => (k === label ? 1 : 0));
}

// What there is, by the names of the attributes data-if in the page.
function features() {
  const { networks } = model;
  return new Set(
    Object.entries({
      [model.model]: true,
      encoder: networks.encoder,
      map: model.latentDim === 2,
      sliders: model.latentDim !== 2,
      labels: model.classes.length,
      classes: model.decoderClasses,
      classified: networks.classes,
      given: model.decoderClasses && !networks.classes,
      judge: model.judge,
      reader: model.judge || networks.classes,
      normal: model.prior.name === "gaussian",
      uniform: model.prior.name === "uniform",
      regions: model.regionsOfClasses,
      binary: model.binary,
      centred: model.centred,
      uncentred: !model.centred,
      [model.likelihood]: true,
      deterministic: model.posterior === "deterministic",
      universal: model.posterior === "universal",
      "posterior-gaussian": model.posterior === "gaussian",
    }).flatMap(([name, there]) => (there ? [name] : [])),
  );
}

// Removes the elements that need a feature that is missing.
function keepWhatApplies(there) {
  for (const part of document.querySelectorAll("[data-if]")) {
    if (!part.dataset.if.split(" ").every((name) => there.has(name))) part.remove();
  }
}

function fillIn() {
  const [height, width] = model.shape;
  const facts = {
    "latent-dim": model.latentDim,
    size: `${height} by ${width}`,
    draws: BOUND_DRAWS,
    sigma: model.sigma,
    "judge-accuracy": `${(100 * (model.judgeAccuracy ?? 0)).toFixed(1)}%`,
  };
  for (const [name, value] of Object.entries(facts)) {
    for (const part of document.getElementsByClassName(name)) part.textContent = value;
  }
  const code = model.networks.encoder ? "codes" : "noise";
  const dimensions = `${model.latentDim} dimension${model.latentDim === 1 ? "" : "s"}`;
  element("trained").textContent = `trained on ${model.data}, ${height} by ${width} pixels; ${code} of ${dimensions}`;
  for (const canvas of document.querySelectorAll("canvas.picture")) [canvas.width, canvas.height] = [width, height];
  const longest = Math.max(...model.classes.map((name) => name.length));
  const looks = {
    "--shape": `${width} / ${height}`,
    "--relative-width": Math.min(1, width / height),
    "--rendering": Math.max(height, width) > 64 ? "auto" : "pixelated",
    "--classes": Math.min(model.classes.length, 10),
    "--class-width": `${longest}ch`,
  };
  for (const [name, value] of Object.entries(looks)) document.documentElement.style.setProperty(name, value);
}

// ---- pictures ----

const theme = {};

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "surface", "muted", "accent"]) theme[name] = style.getPropertyValue(`--${name}`);
  theme.levels = model.centred ? [theme.paper, theme.ink] : ["#000000", "#ffffff"];
  [theme.paperBytes, theme.inkBytes] = theme.levels.map((colour) =>
    colour.match(/[0-9a-f]{2}/gi).map((digits) => parseInt(digits, 16)),
  );
}

// Pictures (numbers, those beyond [0, 1] cut off) as bytes: of digits and the like 0 is the paper's colour and 1 the
// ink's, else they are black and white.
function inkImage(pixels) {
  const image = new ImageData(model.shape[1], model.shape[0]);
  for (let i = 0; i < pixels.length; i++) {
    const level = Math.min(1, Math.max(0, pixels[i]));
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = theme.paperBytes[c] + level * (theme.inkBytes[c] - theme.paperBytes[c]);
    }
    image.data[4 * i + 3] = 255;
  }
  return image;
}

function paint(canvas, pixels) {
  canvas.getContext("2d").putImageData(inkImage(pixels), 0, 0);
}

function smallPicture(pixels) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height, canvas.className] = [model.shape[1], model.shape[0], "picture"];
  if (pixels) paint(canvas, pixels);
  return canvas;
}

// Fills a strip with pictures.
function paintStrip(strip, pictures) {
  while (strip.children.length < pictures.length) strip.append(smallPicture());
  pictures.forEach((pixels, n) => paint(strip.children[n], pixels));
}

// Fills a strip with one picture for each class.
function paintClasses(strip, z) {
  const pictures = model.classes.map((_, label) => decode(model, z, oneHot(label)));
  paintStrip(strip, pictures);
  model.classes.forEach((name, label) => (strip.children[label].title = name));
}

// A number with a proper minus, and as wide as its negative.
function written(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

// ---- what is called again and again ----

// Calls step(seconds since the last call) before each frame, from start() until stop(); returns both.
function player(button, words, step) {
  let last = null;
  let running = false;
  const frame = (now) => {
    if (!running) return;
    if (last !== null) step(Math.min((now - last) / 1000, 0.1)); // after a pause of the browser it does not leap
    last = now;
    requestAnimationFrame(frame);
  };
  const set = (value) => {
    if (running === value) return;
    [running, last] = [value, null];
    button.textContent = words[Number(running)];
    button.setAttribute("aria-pressed", running);
    if (running) requestAnimationFrame(frame);
  };
  button.textContent = words[0];
  button.addEventListener("click", () => set(!running));
  return { start: () => set(true), stop: () => set(false), isRunning: () => running };
}

// A function that runs `work` after it was not called for so many milliseconds.
function afterPause(work, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}
