// The map of two-dimensional codes: pictures, codes of test images, the prior, and the marks on it.
"use strict";

const TILES = 19; // square pictures in a row of the map, and rows

// Two canvases, one on the other: the ground, which stays, and the marks, which move.
function startMap() {
  const map = { canvas: element("map"), ground: element("ground"), pictures: document.createElement("canvas") };
  code.map = map;
  const [height, width] = model.shape;
  map.rows = Math.max(1, Math.round(TILES * Math.sqrt(width / height)));
  map.columns = Math.max(1, Math.round(TILES * Math.sqrt(height / width)));
  [map.pictures.width, map.pictures.height] = [map.columns * width, map.rows * height];
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
    const near = element("near-text");
    if (near) near.textContent = `${near.dataset.begin} mostly ${model.classes[nearestClass(code.z)]}.`;
    showAllClasses();
  }, 60);
  return (moving) => {
    drawMarks(map);
    element("code-text").innerHTML = `<i>z</i> = (${written(code.z[0])}, ${written(code.z[1])})<br>`;
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

// The pictures of codes in the middles of cells of the pictures' shape, some rows before each frame.
function drawTiles(map) {
  const { rows, columns } = map;
  const context = map.pictures.getContext("2d");
  const task = (map.task = Symbol("tiles")); // a later call ends this one
  const next = (row) => {
    if (map.task !== task) return;
    const began = performance.now();
    for (; row < rows && performance.now() - began < 10; row++) {
      for (let column = 0; column < columns; column++) {
        const middle = [(2 * column + 1) / columns - 1, 1 - (2 * row + 1) / rows].map((part) => part * model.extent);
        const picture = decode(model, Float64Array.from(middle), oneHot(code.label));
        context.putImageData(inkImage(picture), column * model.shape[1], row * model.shape[0]);
      }
    }
    drawGround(map);
    if (row < rows) requestAnimationFrame(() => next(row));
  };
  next(0);
}

// What stays as it is: the pictures, the prior, the codes of test images.
function drawGround({ ground, pictures }) {
  const context = ground.getContext("2d");
  const size = ground.width;
  const unit = size / (2 * model.extent);
  const [showCodes, showPrior] = ["codes", "prior"].map((name) => element(`show-${name}`)?.checked);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = theme.levels[model.ground];
  context.fillRect(0, 0, size, size);
  if (element("show-pictures").checked) {
    context.globalAlpha = showCodes ? 0.4 : 1;
    context.drawImage(pictures, 0, 0, size, size);
    context.globalAlpha = 1;
  }
  context.setTransform(unit, 0, 0, -unit, size / 2, size / 2); // from here on lengths are those of codes
  if (showPrior) drawPrior(context, (1.5 * devicePixelRatio) / unit);
  if (!showCodes) return;
  const radius = Math.max(size / 400, devicePixelRatio) / unit;
  model.codes.forEach(([a, b], n) => {
    context.fillStyle = model.colours[Math.max(0, model.labels[n])];
    context.beginPath();
    context.arc(a, b, radius, 0, 2 * Math.PI);
    context.fill();
  });
  context.setTransform(1, 0, 0, 1, 0, 0);
  model.classes.forEach((_, label) => drawClassName(context, label, unit, size));
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
  const angles = Array.from({ length: 91 }, (_, n) => (n * Math.PI) / 45);
  return angles.map((angle) => [radius * Math.cos(angle), radius * Math.sin(angle)]);
}

// The name of a class at the median of its codes.
function drawClassName(context, label, unit, size) {
  const codes = model.codes.filter((_, n) => model.labels[n] === label);
  if (!codes.length) return;
  const [a, b] = [0, 1].map((j) => codes.map((z) => z[j]).sort((x, y) => x - y)[codes.length >> 1]);
  context.font = `700 ${15 * devicePixelRatio}px system-ui, sans-serif`;
  [context.textAlign, context.textBaseline, context.lineJoin] = ["center", "middle", "round"];
  [context.lineWidth, context.strokeStyle, context.fillStyle] = [4 * devicePixelRatio, theme.surface, theme.ink];
  const name = model.classes[label];
  const room = size / 2 - context.measureText(name).width / 2 - 4 * devicePixelRatio; // names do not leave the map
  const place = [size / 2 + Math.min(room, Math.max(-room, a * unit)), size / 2 - b * unit];
  context.strokeText(name, ...place);
  context.fillText(name, ...place);
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
  const spread = drawn?.sd[0] > 0 ? `, in two standard deviations of ${Q}` : "";
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
  model.classes.forEach((name, label) => {
    const [item, dot] = ["li", "span"].map((tag) => document.createElement(tag));
    dot.style.background = model.colours[label];
    item.append(dot, name);
    element("legend").append(item);
  });
}

// The most frequent class among the fifteen test codes nearest to z.
function nearestClass(z) {
  const distances = model.codes.map(([a, b], n) => [(a - z[0]) ** 2 + (b - z[1]) ** 2, model.labels[n]]);
  const counts = new Array(model.classes.length).fill(0);
  for (const [, label] of distances.sort((x, y) => x[0] - y[0]).slice(0, 15)) counts[label]++;
  return counts.indexOf(Math.max(...counts));
}
