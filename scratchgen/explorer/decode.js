// Decode: a map of two-dimensional codes or sliders, the picture of the code, the walk.
"use strict";

const SLIDERS = 10; // dimensions shown, the most active ones
const TILES = 19; // pictures in a row of the map

// z, the class given to the decoder if it takes one, and what moves them.
const code = { z: null, label: 0, normals: normalsFrom(1) };

function startDecode() {
  code.z = new Float64Array(model.latentDim);
  code.show = model.latentDim === 2 ? startMap() : startSliders();
  if (model.decoderClasses) startClassButtons();
  const walk = player(element("wander"), ["Walk", "Pause"], (seconds) => {
    setCode(code.path.advance(seconds * Number(element("speed").value)), { moving: true });
  });
  code.walk = walk;
  code.path = new Walk(model, code.normals);
  element("surprise").addEventListener("click", () => moveTo(samplePrior(model, code.normals)));
  element("origin").addEventListener("click", () => moveTo(new Float64Array(model.latentDim)));
  element("wander").addEventListener("click", () => {
    if (!walk.isRunning()) setCode(code.z);
  });
  addEventListener("repaint", () => setCode(code.z));
  setCode(code.z);
}

// A code that the reader chose: the walk ends.
function moveTo(z) {
  code.walk.stop();
  setCode(z);
}

// Shows a code and its picture, at once. While it is moving by itself, what is slow or spoken waits.
function setCode(z, { moving = false } = {}) {
  code.z = z;
  const picture = decode(model, z, oneHot(code.label));
  paint(element("picture"), picture);
  code.show(moving);
}

function startClassButtons() {
  const buttons = element("class-buttons");
  for (let label = 0; label < CLASSES; label++) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-pressed", label === code.label);
    button.addEventListener("click", () => setLabel(label));
    buttons.append(button);
  }
}

function setLabel(label) {
  code.label = label;
  [...element("class-buttons").children].forEach((button, n) => button.setAttribute("aria-pressed", n === label));
  code.drawPictures?.();
  setCode(code.z, { moving: code.walk.isRunning() });
}

function showAllClasses() {
  if (!model.decoderClasses) return;
  const pictures = Array.from({ length: CLASSES }, (_, label) => decode(model, code.z, oneHot(label)));
  paintStrip(element("all-classes"), pictures);
}

// ---- sliders ----

// The dimensions of the code, those first in which there is most to see.
function byActivity() {
  return model.variation.map((_, j) => j).sort((a, b) => model.variation[b] - model.variation[a]);
}

function startSliders() {
  const reach = model.prior.limit ?? 3 * model.prior.sd;
  const rows = byActivity().slice(0, SLIDERS).map((j) => {
    const row = document.createElement("label");
    row.className = "slider";
    const [name, input, value] = ["span", "input", "output"].map((tag) => document.createElement(tag));
    const ends = [smallPicture(), smallPicture()];
    for (const end of ends) end.setAttribute("aria-hidden", "true");
    const varies = model.networks.encoder ? "variance" : "moves pixels by";
    name.innerHTML = `<b><i>z</i><sub>${j + 1}</sub></b> <small>${varies} ${model.variation[j].toFixed(2)}</small>`;
    Object.assign(input, { type: "range", min: -reach, max: reach, step: 0.01 });
    input.addEventListener("input", () => {
      const z = Float64Array.from(code.z);
      z[j] = Number(input.value);
      moveTo(z);
    });
    row.append(name, ends[0], input, ends[1], value);
    element("sliders").append(row);
    return { j, input, value, ends };
  });
  const showEnds = afterPause(() => {
    showAllClasses();
    for (const { j, ends } of rows) {
      ends.forEach((canvas, n) => {
        const z = Float64Array.from(code.z);
        z[j] = n ? reach : -reach;
        paint(canvas, decode(model, z, oneHot(code.label)));
      });
    }
  }, 60);
  return (moving) => {
    for (const { j, input, value } of rows) {
      input.value = code.z[j];
      value.textContent = written(code.z[j]);
    }
    element("code-text").innerHTML = `‖<i>z</i>‖ = ${written(Math.hypot(...code.z))}`;
    if (!moving) showEnds();
  };
}

// ---- map ----

// Two canvases, one on the other: the ground, which stays, and the marks, which move.
function startMap() {
  const map = { canvas: element("map"), ground: element("ground"), pictures: document.createElement("canvas") };
  code.map = map;
  map.pictures.width = map.pictures.height = TILES * SIDE;
  new ResizeObserver(() => {
    const size = Math.round(map.canvas.clientWidth * devicePixelRatio);
    if (!size || size === map.canvas.width) return;
    for (const each of [map.canvas, map.ground]) each.width = each.height = size;
    drawGround(map);
    drawMarks(map);
  }).observe(map.canvas);
  for (const name of ["pictures", "codes", "prior"]) {
    element(`show-${name}`)?.addEventListener("change", () => drawGround(map));
  }
  code.drawPictures = () => drawTiles(map);
  addEventListener("repaint", () => drawTiles(map));
  followPointer(map);
  if (model.codes) writeLegend();
  drawTiles(map);
  const showWhatIsNear = afterPause(() => {
    if (model.codes) element("near-text").textContent = `Test digits near it: mostly ${nearestClass(code.z)}.`;
    showAllClasses();
  }, 60);
  return (moving) => {
    drawMarks(map);
    element("code-text").innerHTML = `<i>z</i> = (${written(code.z[0])}, ${written(code.z[1])})`;
    if (!moving) showWhatIsNear();
  };
}

function followPointer(map) {
  const { canvas } = map;
  const { extent } = model;
  const inside = (value) => Math.min(extent, Math.max(-extent, value));
  const follow = (event) => {
    const box = canvas.getBoundingClientRect();
    const [right, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    moveTo(Float64Array.of(inside((2 * right - 1) * extent), inside((1 - 2 * down) * extent)));
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    follow(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) follow(event);
  });
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (!arrows[event.key]) return;
    event.preventDefault();
    const step = event.shiftKey ? extent / 10 : extent / 50;
    moveTo(code.z.map((value, j) => inside(value + step * arrows[event.key][j])));
  });
}

// The pictures of codes in the middles of TILES by TILES cells, some rows before each frame.
function drawTiles(map) {
  const context = map.pictures.getContext("2d");
  const task = (map.task = Symbol("tiles")); // a later call ends this one
  const next = (row) => {
    if (map.task !== task) return;
    const began = performance.now();
    for (; row < TILES && performance.now() - began < 10; row++) {
      for (let column = 0; column < TILES; column++) {
        const middle = [column, TILES - 1 - row].map((n) => ((2 * n + 1) / TILES - 1) * model.extent);
        const picture = decode(model, Float64Array.from(middle), oneHot(code.label));
        context.putImageData(inkImage(picture), column * SIDE, row * SIDE);
      }
    }
    drawGround(map);
    if (row < TILES) requestAnimationFrame(() => next(row));
  };
  next(0);
}

// What stays as it is: the pictures, the prior, the codes of test digits.
function drawGround({ ground, pictures }) {
  const context = ground.getContext("2d");
  const size = ground.width;
  const unit = size / (2 * model.extent);
  const [showCodes, showPrior] = ["codes", "prior"].map((name) => element(`show-${name}`)?.checked);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = theme.paper;
  context.fillRect(0, 0, size, size);
  if (element("show-pictures").checked) {
    context.globalAlpha = showCodes ? 0.4 : 1;
    context.drawImage(pictures, 0, 0, size, size);
    context.globalAlpha = 1;
  }
  context.setTransform(unit, 0, 0, -unit, size / 2, size / 2); // from here on lengths are those of codes
  if (showPrior) drawPrior(context, (1.5 * devicePixelRatio) / unit);
  if (!showCodes) return;
  const radius = (1.7 * devicePixelRatio) / unit;
  model.codes.forEach(([a, b], n) => {
    context.fillStyle = model.colours[model.labels[n]];
    context.beginPath();
    context.arc(a, b, radius, 0, 2 * Math.PI);
    context.fill();
  });
  context.setTransform(1, 0, 0, 1, 0, 0);
  for (let label = 0; label < CLASSES; label++) drawClassName(context, label, unit, size);
}

function drawPrior(context, thickness) {
  const { prior } = model;
  context.lineWidth = thickness;
  context.strokeStyle = theme.muted;
  const lines = {
    gaussian: () => [1, 2].map((sds) => circle(sds * prior.sd)),
    uniform: () => [[[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]].map((corner) => corner.map((c) => c * prior.limit))],
    mixture: () => prior.outlines,
    "swiss-roll": () => prior.outlines,
  }[prior.name]();
  lines.forEach((line, label) => {
    if (model.regionsOfClasses) context.strokeStyle = model.colours[label];
    context.beginPath();
    for (const point of line) context.lineTo(...point);
    context.stroke();
  });
}

function circle(radius) {
  return Array.from({ length: 91 }, (_, n) => [radius * Math.cos((n * Math.PI) / 45), radius * Math.sin((n * Math.PI) / 45)]);
}

// The number of a class at the median of its codes.
function drawClassName(context, label, unit, size) {
  const codes = model.codes.filter((_, n) => model.labels[n] === label);
  if (!codes.length) return;
  const [a, b] = [0, 1].map((j) => codes.map((z) => z[j]).sort((x, y) => x - y)[codes.length >> 1]);
  const place = [size / 2 + a * unit, size / 2 - b * unit];
  context.font = `700 ${15 * devicePixelRatio}px system-ui, sans-serif`;
  [context.textAlign, context.textBaseline, context.lineJoin] = ["center", "middle", "round"];
  [context.lineWidth, context.strokeStyle, context.fillStyle] = [4 * devicePixelRatio, theme.surface, theme.ink];
  context.strokeText(label, ...place);
  context.fillText(label, ...place);
}

// What moves: the ring, the drawing's code, the paths.
function drawMarks({ canvas, drawn, paths }) {
  const context = canvas.getContext("2d");
  const half = canvas.width / 2;
  const place = ([a, b]) => [half * (1 + a / model.extent), half * (1 - b / model.extent)];
  context.clearRect(0, 0, canvas.width, canvas.width);
  for (const path of paths ?? []) {
    context.beginPath();
    for (const z of path) context.lineTo(...place(z));
    strokeTwice(context, theme.ink, 2, 5);
  }
  if (drawn) drawSpread(context, drawn, place, half / model.extent);
  context.beginPath();
  context.arc(...place(code.z), 9 * devicePixelRatio, 0, 2 * Math.PI);
  strokeTwice(context, theme.accent, 3.5, 7);
}

// A line that stands out from whatever is behind it: the paper's colour, wider, under its own.
function strokeTwice(context, colour, width, under) {
  for (const [each, pixels] of [
    [theme.paper, under],
    [colour, width],
  ]) {
    [context.strokeStyle, context.lineWidth] = [each, pixels * devicePixelRatio];
    context.stroke();
  }
}

// Says what the marks are, of those that are there.
function writeKey({ drawn, paths }) {
  const spread = drawn?.sd[0] > 0 ? ", in two standard deviations of <i>q</i>(<i>z</i>|<i>x</i>)" : "";
  const marks = ["ring: <i>z</i>"];
  if (drawn) marks.push(`cross: the drawing's code${spread}`);
  if (paths) marks.push("lines: the two paths");
  element("map-key").innerHTML = marks.join("; ");
}

// Puts other marks on the map, if there is one: {drawn} or {paths}.
function mark(marks) {
  if (!code.map) return;
  Object.assign(code.map, marks);
  writeKey(code.map);
  drawMarks(code.map);
}

// q(z|x) of the drawing: the ellipse at two standard deviations, a cross at the mean.
function drawSpread(context, { mean, sd }, place, unit) {
  const [x, y] = place(mean);
  const arm = 7 * devicePixelRatio;
  context.beginPath();
  context.ellipse(x, y, 2 * sd[0] * unit, 2 * sd[1] * unit, 0, 0, 2 * Math.PI);
  for (const sign of [-1, 1]) {
    context.moveTo(x - arm, y - sign * arm);
    context.lineTo(x + arm, y + sign * arm);
  }
  strokeTwice(context, theme.ink, 2.5, 6);
}

function writeLegend() {
  for (let label = 0; label < CLASSES; label++) {
    const item = document.createElement("li");
    item.innerHTML = `<span style="background:${model.colours[label]}"></span>${label}`;
    element("legend").append(item);
  }
}

// The most frequent class among the fifteen test codes nearest to z.
function nearestClass(z) {
  const distances = model.codes.map(([a, b], n) => [(a - z[0]) ** 2 + (b - z[1]) ** 2, model.labels[n]]);
  const counts = new Array(CLASSES).fill(0);
  for (const [, label] of distances.sort((x, y) => x[0] - y[0]).slice(0, 15)) counts[label]++;
  return counts.indexOf(Math.max(...counts));
}
