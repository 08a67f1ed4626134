// Upright face crops: the similarity transform of five landmarks, the warp, and pasting back. A warp is [a, b, c, d, e, f]:
// x' = a x + b y + c, y' = d x + e y + f. Points are [x, y] in px, (0, 0) the outer corner of the first pixel.

import { affine, blank, clip, composite, gaussianBlur, part, reduce, resize, round } from "./pixels.js";

/** The warp that takes points nearest to others by turn, scale and shift; null where it is not fixed. */
export function similarity(from, to) {
  const mean = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const [x0, y0, u0, v0] = [mean(from, 0), mean(from, 1), mean(to, 0), mean(to, 1)];
  let [spread, along, across] = [0, 0, 0];
  for (let i = 0; i < from.length; i++) {
    const [x, y, u, v] = [from[i][0] - x0, from[i][1] - y0, to[i][0] - u0, to[i][1] - v0];
    spread += x * x + y * y;
    along += x * u + y * v;
    across += x * v - y * u;
  }
  if (!(spread >= 1e-9) || Math.hypot(along, across) < 1e-9 * spread) return null;
  const [a, b] = [along / spread, across / spread];
  return [a, -b, u0 - (a * x0 - b * y0), b, a, v0 - (b * x0 + a * y0)];
}

export function inverse([a, b, c, d, e, f]) {
  const det = a * e - b * d;
  const [p, q, r, s] = [e / det, -b / det, -d / det, a / det];
  return [p, q, -(p * c + q * f), r, s, -(r * c + s * f)];
}

export const moved = ([a, b, c, d, e, f], [x, y]) => [a * x + b * y + c, d * x + e * y + f];

const scaleOf = ([a, b, , d, e]) => Math.sqrt(Math.abs(a * e - b * d));

function corners(warp, side) {
  const places = [[0, 0], [side, 0], [side, side], [0, side]].map((corner) => moved(warp, corner));
  const axis = (index, pick) => pick(...places.map((place) => place[index]));
  return { low: [axis(0, Math.min), axis(1, Math.min)], high: [axis(0, Math.max), axis(1, Math.max)] };
}

/** The square of `size` px that `warp` (photo px to crop px) leads to; beyond the photo its mirror image, blurred. */
export function cutFace(photo, warp, size) {
  const back = inverse(warp);
  const shrink = scaleOf(back);
  const { low, high } = corners(back, size);
  const [left, top] = low.map((value) => Math.floor(value) - 3);
  const [right, bottom] = high.map((value) => Math.ceil(value) + 3);
  const coarser = Math.max(1, Math.trunc(shrink / 2));
  const piece = reduce(piecewise(photo, left, top, right, bottom, 0.02 * size * shrink), coarser);
  const finer = Math.max(1, Math.ceil(shrink / coarser - 1e-6));
  const [a, b, c, d, e, f] = back;
  const fine = finer * coarser;
  const places = [a / fine, b / fine, (c - left) / coarser, d / fine, e / fine, (f - top) / coarser];
  const drawn = affine(piece, places, size * finer, size * finer, "bicubic");
  return finer > 1 ? resize(drawn, size, size, "lanczos") : drawn;
}

function piecewise(photo, left, top, right, bottom, blur) {
  const range = (low, high, length) => {
    const start = clip(low, 0, length - 1);
    const stop = clip(high, 1, length);
    const before = Math.max(start - low, 0);
    return { start, length: stop - start, before, size: before + (stop - start) + Math.max(high - stop, 0) };
  };
  const columns = range(left, right, photo.width);
  const rows = range(top, bottom, photo.height);
  const out = blank(columns.size, rows.size, 3);
  const mask = blank(columns.size, rows.size, 1);
  let outside = false;
  for (let y = 0; y < rows.size; y++) {
    const [row, above] = mirrored(y - rows.before, rows.length);
    for (let x = 0; x < columns.size; x++) {
      const [column, beside] = mirrored(x - columns.before, columns.length);
      const from = ((rows.start + row) * photo.width + columns.start + column) * 3;
      const to = y * columns.size + x;
      for (let channel = 0; channel < 3; channel++) out.data[3 * to + channel] = photo.data[from + channel];
      const beyond = Math.max(above, beside);
      outside ||= beyond > 0;
      mask.data[to] = Math.min(beyond / (6 * blur + 1), 1) * 255;
    }
  }
  return outside ? composite(gaussianBlur(out, blur), out, mask) : out;
}

/** The place in a line that a place beyond its ends mirrors, and how far beyond it is. */
function mirrored(place, length) {
  const beyond = Math.max(-place, place - length + 1, 0);
  const turn = ((place % (2 * length)) + 2 * length) % (2 * length);
  return [turn < length ? turn : 2 * length - 1 - turn, beyond];
}

/** The edge in px of photo of the square of `side` px that `warp` (photo px to crop px) leads to. */
export function footprint(warp, side) {
  return Math.max(1, round(side * scaleOf(inverse(warp))));
}

/** The photo with a square crop back where `warp` took it from, faded out over the outer fifth; `head` is what to show. */
export function paste(photo, face, warp, side, head) {
  const back = inverse(warp);
  const covered = footprint(warp, side);
  const crop = face.width > covered ? resize(face, covered, covered, "lanczos") : face;
  const { low, high } = corners(back, side);
  const [left, top] = [clip(Math.floor(low[0]), 0, photo.width), clip(Math.floor(low[1]), 0, photo.height)];
  const [right, bottom] = [clip(Math.ceil(high[0]), 0, photo.width), clip(Math.ceil(high[1]), 0, photo.height)];
  if (right <= left || bottom <= top) return photo;
  const [width, height, ratio] = [right - left, bottom - top, crop.width / side];
  const [a, b, c, d, e, f] = warp.map((value) => value * ratio);
  const places = [a, b, a * left + b * top + c, d, e, d * left + e * top + f];
  const laid = affine(crop, places, width, height, "bicubic");
  const soft = rounded(crop.width);
  if (head) {
    const shown = resize(head, crop.width, crop.width);
    for (let i = 0; i < soft.data.length; i++) soft.data[i] = part(soft.data[i] * shown.data[i]);
  }
  const mask = affine(soft, places, width, height, "bilinear");
  const out = { ...photo, data: photo.data.slice() };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const share = mask.data[y * width + x];
      const to = ((top + y) * photo.width + left + x) * 3;
      for (let channel = 0; channel < 3; channel++) {
        const drawn = laid.data[(y * width + x) * 3 + channel];
        out.data[to + channel] = part(share * drawn + (255 - share) * photo.data[to + channel]);
      }
    }
  }
  return out;
}

/** A rounded square, 255 inside, that falls smoothly to 0 over the outer fifth. */
function rounded(side) {
  const out = blank(side, side, 1);
  const across = Array.from({ length: side }, (_, i) => Math.abs(((i + 0.5) / side) * 2 - 1) ** 6);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const ramp = clip((1 - (across[y] + across[x]) ** (1 / 6)) / 0.2, 0, 1);
      out.data[y * side + x] = ramp * ramp * (3 - 2 * ramp) * 255;
    }
  }
  return out;
}
