// Decode: the code, its picture, the walk; sliders for codes of more than two dimensions (else map.js).
"use strict";

const SLIDERS = 10; // dimensions shown, the most active ones

// z, the class given to the decoder if it takes one, and what moves them.
const code = { z: null, label: 0, normals: normalsFrom(1) };

function startDecode() {
  code.z = firstCode();
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

// What the page begins with: the code of a test image, or the mean of a GAN's noise. A draw may be an odd picture.
function firstCode() {
  if (!model.examples) return new Float64Array(model.latentDim);
  const [first] = model.examples;
  if (model.decoderClasses) code.label = first.label;
  return codeOf(first);
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
  model.classes.forEach((name, label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-pressed", label === code.label);
    button.addEventListener("click", () => setLabel(label));
    buttons.append(button);
  });
}

function setLabel(label) {
  code.label = label;
  [...element("class-buttons").children].forEach((button, n) => button.setAttribute("aria-pressed", n === label));
  code.drawPictures?.();
  setCode(code.z, { moving: code.walk.isRunning() });
}

function showAllClasses() {
  if (model.decoderClasses) paintClasses(element("all-classes"), code.z);
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
    const varies = model.networks.encoder ? "variance" : "effect";
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
