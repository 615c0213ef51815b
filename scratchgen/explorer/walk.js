// From one image to another: straight and spherical paths between two codes.
"use strict";

const SHOWN = 20; // images to choose from at a time
const STEPS = 9; // pictures in a strip

// The two ends, each with its code and class; which of them is chosen next; the gallery, and where it begins.
const paths = { ends: [], next: 0, offered: [], first: 0, normals: normalsFrom(3) };

function startPaths() {
  [0, 1].forEach((n) => element(`end-${n}`).addEventListener("click", () => chooseNext(n)));
  element("others").addEventListener("click", () => {
    paths.first += SHOWN;
    paths.offered = offered();
    showGallery();
  });
  const use = () => {
    if (!paths.used) drawPaths();
    paths.used = true;
  };
  let direction = 1;
  const travel = player(element("travel"), ["Play", "Pause"], (seconds) => {
    const place = Number(element("place").value) + (direction * seconds) / 4;
    if (place >= 1 || place <= 0) direction = place >= 1 ? -1 : 1;
    element("place").value = Math.min(1, Math.max(0, place));
    use();
    showPlace();
  });
  element("place").addEventListener("input", () => {
    travel.stop();
    use();
    showPlace();
  });
  const typical = element("typical-norm");
  if (typical) typical.textContent = written(Math.sqrt(model.latentDim));
  paths.offered = offered();
  paths.ends = [paths.offered[0], paths.offered[Math.min(paths.offered.length - 1, 3)]];
  showGallery();
  addEventListener("repaint", () => {
    showGallery();
    showEnds();
  });
  showEnds();
}

// What can be chosen: test images with the means of their codes, or draws of a GAN's noise with their pictures.
function offered() {
  if (model.examples) {
    const { length } = model.examples;
    return Array.from({ length: Math.min(SHOWN, length) }, (_, n) => model.examples[(paths.first + n) % length]);
  }
  return Array.from({ length: SHOWN }, (_, n) => {
    const z = samplePrior(model, paths.normals);
    const label = n % model.classes.length;
    return { label, z, x: decode(model, z, oneHot(label)) };
  });
}

function showGallery() {
  const classed = model.decoderClasses || (model.examples && model.classes.length);
  element("gallery").replaceChildren(
    ...paths.offered.map((image, n) => {
      const number = `${model.examples ? "image" : "draw"} ${n + 1}`;
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", classed ? `${number}: ${model.classes[image.label]}` : number);
      button.append(smallPicture(image.x));
      button.addEventListener("click", () => {
        paths.ends[paths.next] = image;
        paths.used = true;
        chooseNext(1 - paths.next);
        showEnds();
      });
      return button;
    }),
  );
}

function chooseNext(n) {
  paths.next = n;
  [0, 1].forEach((each) => element(`end-${each}`).setAttribute("aria-pressed", each === n));
}

function codeOf({ z, x, label }) {
  return z ?? posterior(model, x, oneHot(label), normalsFrom(2)).mean;
}

function showEnds() {
  const [a, b] = paths.ends.map(codeOf);
  const [classA, classB] = paths.ends.map((end) => oneHot(end.label));
  paths.ends.forEach((end, n) => paint(element(`end-${n}`).querySelector("canvas"), end.x));
  paths.at = {};
  for (const [name, path] of Object.entries({ straight: straightPath, spherical: sphericalPath })) {
    const at = (t) => path(a, b, t);
    const picture = (t) => decode(model, at(t), straightPath(classA, classB, t));
    paths.at[name] = { at, picture };
    paintStrip(
      element(`${name}-strip`),
      Array.from({ length: STEPS }, (_, n) => picture(n / (STEPS - 1))),
    );
  }
  if (paths.used) drawPaths();
  showPlace();
}

function drawPaths() {
  const fine = Array.from({ length: 61 }, (_, n) => n / 60);
  mark({ paths: Object.values(paths.at).map(({ at }) => fine.map(at)) });
}

function showPlace() {
  const t = Number(element("place").value);
  for (const [name, { at, picture }] of Object.entries(paths.at)) {
    paint(element(name), picture(t));
    element(name).setAttribute("aria-label", `the picture ${Math.round(100 * t)}% of the way along the ${name} path`);
    element(`${name}-text`).innerHTML = `${name}<br>‖<i>z</i>‖ = ${written(Math.hypot(...at(t)))}`;
  }
}
