// Draw: strokes or a file, made an image like the data's; its code, reconstruction, bound and class.
"use strict";

const BOUND_DRAWS = 50; // of z, for the reconstruction term
const PEN = 0.14; // diameter of the pen, as a part of the digit's longer side: 2.5 pixels of MNIST's
const CANVAS = 280; // pixels of the canvas's longer side, at least
const SHOWN_PEN = 24; // on the canvas
const CHARTED = 20; // dimensions of the code in its chart
const LIKELIEST = 10; // classes read, if there are more

// Strokes are lists of points; a picture from elsewhere has none. x is what the encoder sees, or null.
const drawing = { strokes: [], x: null };

function startDraw() {
  const canvas = element("easel");
  const [height, width] = model.shape;
  const scale = Math.max(1, CANVAS / Math.max(height, width));
  [canvas.width, canvas.height] = [width, height].map((side) => Math.round(scale * side));
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((length) => (length * canvas.width) / box.width);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (!drawing.strokes.length) clearEasel();
    drawing.strokes.push([point(event)]);
    strokesChanged();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons || !drawing.strokes.length) return;
    drawing.strokes.at(-1).push(point(event));
    strokesChanged();
  });
  element("clear").addEventListener("click", clearDrawing);
  let taken = -1;
  element("take").addEventListener("click", () => {
    taken = (taken + 1) % model.examples.length;
    const { x } = model.examples[taken];
    showOnEasel(inkImage(x));
    setDrawing(x);
  });
  element("file").addEventListener("change", (event) => {
    if (event.target.files.length) readFile(event.target.files[0]);
    event.target.value = ""; // the same file may be chosen again
  });
  model.classes.forEach((name, label) => element("given")?.append(new Option(name, label)));
  element("given")?.addEventListener("change", encodeDrawing);
  element("use-code").addEventListener("click", () => {
    if (model.decoderClasses) setLabel(drawing.label);
    moveTo(drawing.found.mean);
    element("decode").scrollIntoView();
  });
  addEventListener("repaint", () => {
    if (drawing.strokes.length) showStrokes();
    else if (drawing.x) showOnEasel(inkImage(drawing.x));
    else clearEasel();
    encodeDrawing();
  });
  clearEasel();
  encodeDrawing();
}

function clearDrawing() {
  drawing.strokes = [];
  clearEasel();
  setDrawing(null);
}

function easelContext() {
  return element("easel").getContext("2d", { willReadFrequently: true });
}

function clearEasel() {
  const { width, height } = element("easel");
  const context = easelContext();
  context.fillStyle = theme.levels[model.ground];
  context.fillRect(0, 0, width, height);
}

// Shows ImageData in the middle, as large as fits.
function showOnEasel(image) {
  drawing.strokes = [];
  const source = new OffscreenCanvas(image.width, image.height);
  source.getContext("2d").putImageData(image, 0, 0);
  clearEasel();
  const { width, height } = element("easel");
  const scale = Math.min(width / image.width, height / image.height);
  const size = [scale * image.width, scale * image.height];
  const place = [(width - size[0]) / 2, (height - size[1]) / 2, ...size];
  const context = easelContext();
  context.imageSmoothingEnabled = scale < 1;
  if (!model.centred) {
    context.fillStyle = "#fff"; // behind what is transparent
    context.fillRect(...place);
  }
  context.drawImage(source, ...place);
}

function strokesChanged() {
  showStrokes();
  setDrawing(model.centred ? centred(...strokeLevels(drawing.strokes)) : onEasel());
}

function showStrokes() {
  clearEasel();
  drawStrokes(easelContext(), theme.levels[1 - model.ground], SHOWN_PEN);
}

// What is on the easel, as it lies there, in grey and as large as the data's images.
function onEasel() {
  const { width, height } = element("easel");
  const grey = greyOf(easelContext().getImageData(0, 0, width, height).data);
  const rows = Array.from({ length: height }, (_, i) => grey.subarray(i * width, (i + 1) * width));
  return Float64Array.from(scaled(rows, ...model.shape).flatMap((row) => Array.from(row)));
}

function drawStrokes(context, colour, width) {
  [context.strokeStyle, context.lineWidth] = [colour, width];
  [context.lineCap, context.lineJoin] = ["round", "round"];
  for (const stroke of drawing.strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    context.stroke();
  }
}

// Grey levels, height and width of the strokes, with a pen that will be as wide as MNIST's once the digit fits the box.
function strokeLevels(strokes) {
  const points = strokes.flat();
  const sides = [0, 1].map((axis) => {
    const along = points.map((point) => point[axis]);
    return Math.max(...along) - Math.min(...along);
  });
  const pen = Math.max(4, PEN * Math.max(...sides));
  const { width, height } = element("easel");
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  drawStrokes(context, "#fff", pen);
  const bytes = context.getImageData(0, 0, width, height).data;
  return [Float64Array.from({ length: width * height }, (_, i) => bytes[4 * i + 3] / 255), height, width];
}

async function readFile(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height)); // which makes a photograph's noise less
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0, width, height);
    const image = context.getImageData(0, 0, width, height);
    showOnEasel(image);
    const x = model.centred ? digitOf(greyOf(image.data), height, width) : onEasel();
    if (model.centred && !x.some((level) => level > 0)) refuse(`In ${file.name} nothing stands out.`);
    else setDrawing(x);
  } catch {
    refuse(`${file.name} is no picture that this browser can read.`);
  }
}

function refuse(why) {
  clearDrawing();
  element("draw-text").textContent = why;
}

function setDrawing(x) {
  drawing.x = x && model.binary ? x.map((level) => Number(level >= 0.5)) : x;
  encodeDrawing();
}

// ---- what the model makes of it ----

// Probabilities of the classes, by the encoder or the judge; null if neither reads classes.
function reading(x) {
  if (model.networks.classes) return softmax(encode(model, x, null, encoderNoise(model, normalsFrom(2))).classLogits);
  return model.judge ? softmax(forward(model.judge, x)) : null;
}

function encodeDrawing() {
  const { x } = drawing;
  element("findings").hidden = !x;
  if (!x) {
    const blank = new Float64Array(pixelCount()).fill(model.ground);
    for (const id of ["seen", "reconstruction"]) paint(element(id), blank);
    element("draw-text").textContent = "Nothing is drawn yet.";
    element("draw-text").classList.remove("unseen");
    mark({ drawn: null });
    return;
  }
  const read = reading(x);
  const likeliest = read ? read.indexOf(Math.max(...read)) : 0;
  drawing.label = element("given")?.value ? Number(element("given").value) : likeliest;
  const y = oneHot(drawing.label);
  drawing.found = posterior(model, x, y, normalsFrom(2), BOUND_DRAWS);
  drawing.reconstruction = decode(model, drawing.found.mean, y);
  paint(element("seen"), x);
  paint(element("reconstruction"), drawing.reconstruction);
  if (read) showReading(read);
  showCode(drawing.found);
  mark({ drawn: drawing.found });
  measure();
}

// The slow part, once the pen rests: it takes a decoding for each draw of z.
const measure = afterPause(() => {
  if (!drawing.x) return;
  const { x, found, reconstruction, label } = drawing;
  const y = oneHot(label);
  const said = [];
  if (model.model === "vae") {
    const terms = found.draws.map((z) => negativeLogLikelihood(model, x, z, y));
    const mean = terms.reduce((a, b) => a + b) / terms.length;
    const kl = klStandardNormal(found.mean, found.logvar);
    for (const [name, value] of Object.entries({ reconstruction: mean, kl, bound: mean + kl })) {
      element(`term-${name}`).textContent = written(value, 1);
    }
    said.push(`reconstruction ${written(mean, 1)} nats, kl ${written(kl, 1)} nats`);
  } else {
    const error = x.reduce((sum, value, d) => sum + (value - reconstruction[d]) ** 2, 0) / x.length;
    element("term-error").textContent = error.toFixed(4);
    said.push(`squared error ${error.toFixed(4)} a pixel`);
  }
  if (model.decoderClasses) paintClasses(element("styles"), found.mean);
  const read = reading(x);
  if (read) {
    const most = Math.max(...read);
    said.unshift(`read as ${model.classes[read.indexOf(most)]} (${(100 * most).toFixed(0)}%)`);
  }
  element("draw-text").textContent = `${said.join("; ")}.`; // for screen readers: others see it below
  element("draw-text").classList.add("unseen");
}, 80);

// A bar for each class; of many classes for the likeliest, the likeliest first.
function showReading(probabilities) {
  const labels = model.classes.map((_, label) => label);
  if (labels.length > LIKELIEST) labels.sort((a, b) => probabilities[b] - probabilities[a]).splice(LIKELIEST);
  const most = Math.max(...probabilities);
  const bars = labels.map((label) => {
    const [bar, column, name, percent] = ["div", "span", "b", "small"].map((tag) => document.createElement(tag));
    const text = `${(100 * probabilities[label]).toFixed(0)}%`;
    bar.classList.toggle("most", probabilities[label] === most);
    bar.style.setProperty("--probability", `${100 * probabilities[label]}%`);
    column.className = "bar";
    column.append(document.createElement("span"));
    [name.textContent, percent.textContent] = [model.classes[label], text];
    bar.append(column, name, percent);
    return bar;
  });
  element("reading").replaceChildren(...bars);
  element("reading").classList.toggle("named", model.classes.some((name) => name.length > 2));
}

// The mean and two standard deviations of q(z|x) in each dimension, of many the most active first, beside the prior's.
function showCode({ mean, sd }) {
  const few = model.latentDim <= 5;
  const order = few ? model.variation.map((_, j) => j) : byActivity().slice(0, CHARTED);
  const numbers = order.map((j) => {
    const spread = sd[j] > 0 ? ` ± ${written(sd[j])}` : "";
    return `<i>z</i><sub>${j + 1}</sub> = ${written(mean[j])}${spread}`;
  });
  element("code-chart").innerHTML = few ? `<p>${numbers.join("<br>")}</p>` : codeChart(order, mean, sd);
  const parts = [
    [!few, `<i>z</i> in ${order.length} of its dimensions, the most active first`],
    [model.posterior !== "deterministic", `${few ? "± the" : "with two"} standard deviation${few ? "" : "s"} of ${Q}`],
    [!few && model.prior.name === "gaussian", "shaded: one and two of the prior"],
    [code.map, "a cross on the map"],
  ];
  element("code-caption").innerHTML = parts.flatMap(([applies, text]) => (applies ? [text] : [])).join("; ");
}

function codeChart(order, mean, sd) {
  const [left, column, height, reach] = [26, 16, 120, 3.2];
  const width = left + column * order.length;
  const y = (value) => (height / 2) * (1 - Math.min(reach, Math.max(-reach, value)) / reach);
  const band = (sds) => `<rect class="band" x="${left}" y="${y(sds)}" width="${width}" height="${y(-sds) - y(sds)}"/>`;
  const tick = (value) => `<text x="20" y="${y(value) + 3}" text-anchor="end">${written(value, 0)}</text>`;
  const mark = (j, n) => {
    const x = left + column * (n + 0.5);
    return `<line x1="${x}" x2="${x}" y1="${y(mean[j] - 2 * sd[j])}" y2="${y(mean[j] + 2 * sd[j])}"/>
      <circle cx="${x}" cy="${y(mean[j])}" r="3.2"/>
      <text x="${x}" y="${height + 11}" text-anchor="middle">${j + 1}</text>`;
  };
  const label = order.map((j) => `z${j + 1} ${written(mean[j])} ± ${written(sd[j])}`).join(", ");
  const bands = model.prior.name === "gaussian" ? [2, 1].map(band) : [];
  const size = `viewBox="0 0 ${width} ${height + 14}" style="max-width: ${1.5 * width}px"`;
  return `<svg ${size} role="img" aria-label="${label}">
    ${[...bands, ...[-2, 0, 2].map(tick), ...order.map(mark)].join("")}</svg>`;
}
