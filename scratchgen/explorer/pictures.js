// Pictures of a digit, made like MNIST's: the same as scratchgen/data/pictures.py.
"use strict";

const SIDE = 28; // of the image
const BOX = 20; // of the box that the digit fits
const CENTRE = 14; // of the centre of mass: the middle of pixel (14, 14)
const TIE = 1e-6;

// Grey levels (height, width) of a light digit on a background of exactly 0, scaled to fit the box and shifted until
// its centre of mass is in the middle: an array of 784 numbers.
function centred(levels, height, width) {
  const image = new Float64Array(SIDE * SIDE);
  let [top, bottom, left, right] = [height, 0, width, 0];
  for (let i = 0; i < levels.length; i++) {
    if (!(levels[i] > 0)) continue;
    const [row, column] = [Math.floor(i / width), i % width];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
    [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
  }
  if (bottom === 0) return image;
  const longest = Math.max(bottom - top, right - left);
  const [rows, columns] = [bottom - top, right - left].map((side) => Math.max(1, rounded((BOX * side) / longest)));
  const [rowShares, columnShares] = [shares(bottom - top, rows), shares(right - left, columns)];
  const digit = Array.from({ length: rows }, () => new Float64Array(columns));
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (const [row, a] of rowShares[i]) {
        for (const [column, b] of columnShares[j]) digit[i][j] += a * b * levels[(top + row) * width + left + column];
      }
    }
  }
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const firstRow = shift(digit.map(sum));
  const firstColumn = shift(Array.from({ length: columns }, (_, j) => sum(digit.map((row) => row[j]))));
  digit.forEach((row, i) => image.set(row, (firstRow + i) * SIDE + firstColumn));
  return image;
}

// For each of the new pixels, the old ones that it covers and their shares in its length, when `before` become `after`.
function shares(before, after) {
  return Array.from({ length: after }, (_, i) => {
    const [start, end] = [(i * before) / after, ((i + 1) * before) / after];
    const covered = [];
    for (let old = Math.floor(start); old < Math.min(end, before); old++) {
      const overlap = Math.min(end, old + 1) - Math.max(start, old);
      if (overlap > 0) covered.push([old, (overlap * after) / before]);
    }
    return covered;
  });
}

// The place in an image of a digit's first row, whose rows have so much ink, or of its first column.
function shift(ink) {
  const mass = ink.reduce((a, b) => a + b, 0);
  const centre = ink.reduce((sum, value, i) => sum + i * value, 0) / mass;
  return Math.min(Math.max(rounded(CENTRE - centre), 0), SIDE - ink.length);
}

function rounded(x) {
  return Math.floor(x + 0.5 + TIE);
}

// Grey levels in [0, 1] of a picture's RGBA bytes, a light digit on 0 whatever the picture's own colours are.
// Background is the middle grey of the picture's edge, and what differs from it by less than twice what most of the
// edge does.
function inkOf(bytes, height, width) {
  const grey = new Float64Array(height * width);
  for (let i = 0; i < grey.length; i++) {
    const [r, g, b, alpha] = bytes.subarray(4 * i, 4 * i + 4);
    grey[i] = ((0.299 * r + 0.587 * g + 0.114 * b) * alpha + 255 * (255 - alpha)) / 255 ** 2; // on white
  }
  const edge = (levels) =>
    levels
      .filter((_, i) => [0, height - 1].includes(Math.floor(i / width)) || [0, width - 1].includes(i % width))
      .sort();
  const quantile = (sorted, p) => sorted[Math.floor(p * (sorted.length - 1))];
  const background = quantile(edge(grey), 0.5);
  const difference = grey.map((value) => Math.abs(value - background));
  const noise = 2 * quantile(edge(difference), 0.95);
  const most = difference.reduce((a, b) => Math.max(a, b), 0);
  return difference.map((value) => (value > noise ? (value - noise) / (most - noise) : 0));
}
