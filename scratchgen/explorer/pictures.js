// Images made of pictures: of a digit as MNIST's are, the same as scratchgen/data/pictures.py, or just scaled.
"use strict";

const SIDE = 28; // of the image
const BOX = 20; // of the box that the digit fits
const CENTRE = 14; // of the centre of mass: the middle of pixel (14, 14)
const LARGEST = 300; // pixels, to which larger pictures are reduced
const STRONG = 1 / 8; // of the most ink: a digit reaches as far as such pixels do
const NOISE = 5; // times what three quarters of the edge differ from the background: less is taken for background
const TIE = 1e-6;

// Grey levels (height, width) of a light digit on a background of exactly 0, scaled to fit the box and shifted until
// its centre of mass is in the middle: an array of 784 numbers.
function centred(levels, height, width) {
  const image = new Float64Array(SIDE * SIDE);
  const [top, bottom, left, right] = box(levels, width, 0);
  if (bottom === 0) return image;
  const longest = Math.max(bottom - top, right - left);
  const [rows, columns] = [bottom - top, right - left].map((side) => Math.max(1, rounded((BOX * side) / longest)));
  const digit = scaled(part(levels, width, top, bottom, left, right), rows, columns);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const firstRow = shift(digit.map(sum));
  const firstColumn = shift(Array.from({ length: columns }, (_, j) => sum(digit.map((row) => row[j]))));
  digit.forEach((row, i) => image.set(row, (firstRow + i) * SIDE + firstColumn));
  return image;
}

// The first row, the row after the last, and the same for columns, of the levels above some level; zeros if there are
// none.
function box(levels, width, above) {
  let [top, bottom, left, right] = [Infinity, 0, Infinity, 0];
  for (let i = 0; i < levels.length; i++) {
    if (!(levels[i] > above)) continue;
    const [row, column] = [Math.floor(i / width), i % width];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
    [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
  }
  return bottom === 0 ? [0, 0, 0, 0] : [top, bottom, left, right];
}

// The rows of a part of a picture.
function part(levels, width, top, bottom, left, right) {
  return Array.from({ length: bottom - top }, (_, i) => {
    const row = (top + i) * width;
    return levels.slice(row + left, row + right);
  });
}

// Rows of grey levels, made so many rows and columns; a new pixel is the mean of the area that it covers.
function scaled(levels, rows, columns) {
  const [rowShares, columnShares] = [shares(levels.length, rows), shares(levels[0].length, columns)];
  return Array.from({ length: rows }, (_, i) =>
    Float64Array.from({ length: columns }, (_, j) => {
      let mean = 0;
      for (const [row, a] of rowShares[i]) for (const [column, b] of columnShares[j]) mean += a * b * levels[row][column];
      return mean;
    }),
  );
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

// Grey levels in [0, 1] of a picture's RGBA bytes, before white where it is transparent.
function greyOf(bytes) {
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => {
    const [r, g, b, alpha] = bytes.subarray(4 * i, 4 * i + 4);
    return ((0.299 * r + 0.587 * g + 0.114 * b) * alpha + 255 * (255 - alpha)) / 255 ** 2;
  });
}

// The digit in a picture of grey levels, as an image of MNIST, which one of its size is already: 784 numbers.
function digitOf(grey, height, width) {
  if (height !== SIDE || width !== SIDE) return centred(...inkOf(grey, height, width));
  const onLight = quantile(grey.filter(edge(height, width)), 0.5) > 0.5;
  return grey.map((level) => (onLight ? 1 - level : level));
}

// Whether a pixel, by its place, is one of the outermost.
function edge(height, width) {
  return (_, i) => [0, height - 1].includes(Math.floor(i / width)) || [0, width - 1].includes(i % width);
}

function quantile(numbers, share) {
  return numbers.sort()[Math.floor(share * (numbers.length - 1))];
}

// The part of a picture of grey levels in which something is drawn, lighter or darker than its background: levels from
// 0, the background, to 1, the most ink, with the part's height and width.
function inkOf(grey, height, width) {
  const levels = Float64Array.from(grey);
  const outermost = edge(height, width);
  const subtract = (amount) => levels.forEach((value, i) => (levels[i] = value - amount(i)));
  const subtractMedian = () => {
    const median = quantile(levels.filter(outermost), 0.5);
    subtract(() => median);
  };
  // The background is a plane fitted to the edge, by least squares.
  subtractMedian();
  for (const along of [(i) => Math.floor(i / width) - (height - 1) / 2, (i) => (i % width) - (width - 1) / 2]) {
    let [product, square] = [0, 0];
    levels.forEach((value, i) => {
      if (!outermost(value, i)) return;
      product += value * along(i);
      square += along(i) ** 2;
    });
    subtract((i) => (along(i) * product) / Math.max(1, square));
  }
  subtractMedian();
  const noise = Math.max(TIE, NOISE * quantile(levels.filter(outermost).map(Math.abs), 0.75));
  const drawn = levels.reduce((sum, value) => sum + (Math.abs(value) > noise ? value : 0), 0);
  if (drawn < 0) levels.forEach((value, i) => (levels[i] = -value));
  const most = levels.reduce((a, b) => Math.max(a, b), 0);
  const [top, bottom, left, right] = box(levels, width, Math.max(noise, STRONG * most));
  const rows = part(levels, width, top, bottom, left, right);
  const ink = rows.flatMap((row) => Array.from(row, (value) => (value > noise ? value / most : 0)));
  return [ink, bottom - top, right - left];
}
