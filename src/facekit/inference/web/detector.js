// Faces in a photo by facekit's detector: the search over ever finer copies, and the second look at each face.

import { area, blank, clip, linear, round, toValues } from "./pixels.js";

/** Faces {box, score, points} of a photo, largest first. `nets` runs the two nets, `config` holds their numbers. */
export async function findFaces(nets, config, photo, every) {
  const edge = Math.min(photo.width, photo.height);
  let sure = (await candidates(nets, config, photo, every)).filter((face) => {
    return face.score >= (sideOf(face) >= config.small * edge ? config.least : config.leastSmall);
  });
  if (!sure.length) {
    const seen = await lookTurned(nets, config, photo, every);
    sure = seen.filter((face) => face.score >= config.leastTurned);
  }
  sure = sure.filter((face) => sideOf(face) >= config.smallest);
  const middle = ({ box }) => box[0] + box[2];
  return every ? sure.sort((one, other) => middle(one) - middle(other)) : sure.slice(0, 1);
}

/** The candidates in the photo turned by a quarter, half or three quarters: those of the turn with the best. */
async function lookTurned(nets, config, photo, every) {
  const best = (faces) => Math.max(0, ...faces.map((face) => face.score));
  let chosen = [];
  let shown = photo;
  for (const quarters of [1, 2, 3]) {
    shown = quarter(shown);
    const found = await candidates(nets, config, shown, every);
    if (best(found) > best(chosen)) chosen = found.map((face) => turnedBack(face, photo, quarters));
  }
  return chosen;
}

/** A photo turned anticlockwise by a quarter. */
function quarter(photo) {
  const out = blank(photo.height, photo.width, 3);
  for (let y = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      const from = 3 * (x * photo.width + photo.width - 1 - y);
      out.data.set(photo.data.subarray(from, from + 3), 3 * (y * out.width + x));
    }
  }
  return out;
}

/** A face of the photo that was turned by so many quarters, in px of the photo. */
function turnedBack(face, { width, height }, quarters) {
  const back = (point) => {
    let [x, y] = point;
    for (let turn = quarters; turn > 0; turn--) [x, y] = [(turn % 2 ? width : height) - y, x];
    return [x, y];
  };
  const [one, other] = [back(face.box.slice(0, 2)), back(face.box.slice(2))];
  const box = [Math.min, Math.max].flatMap((pick) => [0, 1].map((axis) => pick(one[axis], other[axis])));
  return { ...face, box, points: face.points.map(back) };
}

/** All that may be a face in a photo, largest first. */
async function candidates(nets, config, photo, every) {
  const longest = Math.max(photo.width, photo.height);
  const { first, largest, margin, fine, found } = config;
  const copies = [photo]; // and, as they are needed, copies of half the size, of a quarter, and so on
  let faces = await search(nets, config, copies, first / (longest * (1 + 2 * margin)), round(margin * longest));
  faces = await lookAgain(nets, config, faces, copies);
  for (let side = 2 * first; side < 2 * Math.min(longest, largest); side *= 2) {
    if (!every && faces.some((face) => face.score >= found)) break;
    const scale = Math.min(1, side / longest, largest / longest);
    const more = (await search(nets, config, copies, scale, 0)).filter((face) => sideOf(face) * scale <= fine * first);
    faces = faces.concat(await lookAgain(nets, config, more, copies));
  }
  const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  const kept = suppress(faces, config.overlap).sort((one, other) => size(other) - size(one));
  for (const face of kept) {
    face.points = face.points.map((point) => point.map((value) => round(value * config.steps) / config.steps));
  }
  return kept;
}

const sideOf = ({ box }) => Math.max(box[2] - box[0], box[3] - box[1]);

function copyOf(copies, number) {
  while (copies.length <= number) {
    const last = copies.at(-1);
    copies.push(area(last, last.width >> 1, last.height >> 1));
  }
  return copies[number];
}

/** The faces on one copy of the photo, `pad` px of the photo around it, in px of the photo. */
async function search(nets, config, copies, scale, pad) {
  const [photo] = copies;
  const width = Math.max(1, round(photo.width * scale));
  const height = Math.max(1, round(photo.height * scale));
  let number = 0;
  let copy = photo;
  while (Math.min(copy.height / height, copy.width / width) >= 2) copy = copyOf(copies, ++number);
  if (copy.width !== width || copy.height !== height) copy = linear(copy, width, height);
  const edge = Math.trunc(pad * scale); // rounded up, it would make the copy 32 px wider
  const whole = (side) => Math.ceil((side + 2 * edge) / 32) * 32;
  const padded = blank(whole(copy.width), whole(copy.height), 3, 128);
  for (let y = 0; y < copy.height; y++) {
    const row = copy.data.subarray(y * copy.width * 3, (y + 1) * copy.width * 3);
    padded.data.set(row, ((y + edge) * padded.width + edge) * 3);
  }
  const seen = { values: toValues(padded), width: padded.width, height: padded.height };
  const faces = suppress(decode(await nets.detect(seen), config), config.overlap);
  const [across, down] = [photo.width / width, photo.height / height];
  const back = ([x, y]) => [(x - edge) * across, (y - edge) * down];
  return faces.map(({ box, score, points }) => ({
    box: [...back(box.slice(0, 2)), ...back(box.slice(2))],
    score,
    points: points.map(back),
  }));
}

/** What the net's maps {values, width, height} say of their cells, of those that may hold a face. */
function decode(maps, config) {
  const faces = [];
  maps.forEach(({ values, width, height }, level) => {
    const stride = config.strides[level];
    const unit = stride * config.unit;
    const count = width * height;
    for (let cell = 0; cell < count; cell++) {
      const score = 1 / (1 + Math.exp(-values[cell]));
      if (score < config.looked) continue;
      const at = (channel) => values[channel * count + cell];
      const centre = [((cell % width) + 0.5) * stride, (Math.floor(cell / width) + 0.5) * stride];
      const [x, y] = [centre[0] + at(2) * stride, centre[1] + at(3) * stride];
      const half = [4, 5].map((channel) => (Math.exp(clip(at(channel), -4, 4)) * unit) / 2);
      const points = [0, 1, 2, 3, 4].map((k) => [centre[0] + at(6 + 2 * k) * unit, centre[1] + at(7 + 2 * k) * unit]);
      faces.push({ box: [x - half[0], y - half[1], x + half[0], y + half[1]], score, points });
    }
  });
  return faces;
}

/** The best of faces that overlap, best first. */
function suppress(faces, most) {
  const size = ({ box }) => Math.max(box[2] - box[0], 0) * Math.max(box[3] - box[1], 0);
  const kept = [];
  for (const face of [...faces].sort((one, other) => other.score - one.score)) {
    const covered = kept.some(({ box, ...other }) => {
      const across = Math.max(Math.min(box[2], face.box[2]) - Math.max(box[0], face.box[0]), 0);
      const down = Math.max(Math.min(box[3], face.box[3]) - Math.max(box[1], face.box[1]), 0);
      return across * down > most * (size({ box, ...other }) + size(face) - across * down);
    });
    if (!covered) kept.push(face);
  }
  return kept;
}

/** The faces with the landmarks of a second net, which sees each upright, and with the mean of both nets' scores. */
async function lookAgain(nets, config, faces, copies) {
  const sure = faces.filter((face) => face.score >= config.second);
  if (!sure.length) return faces;
  const [count, edge, said] = [sure.length, config.square, 21]; // numbers that the net says of a square
  const around = ([x0, y0, x1, y1]) => ({
    x: (x0 + x1) / 2,
    y: (y0 + y1) / 2,
    side: config.boxed * Math.max(x1 - x0, y1 - y0),
    turn: 0,
  });
  const boxes = sure.map(({ box }) => around(box));
  const rough = await nets.points(cutAll(copies, boxes, edge), count, edge);
  const squares = boxes.map((square, index) => {
    const points = [0, 1, 2, 3, 4].map((k) => fromSquare(square, rough[index * said + 2 * k], rough[index * said + 2 * k + 1]));
    return framed(points, config.framed);
  });
  const looks = await bothWays(nets, copies, squares, edge, said);
  const doubtful = looks.flatMap(({ logit }, index) => (logit < config.doubt ? [index] : []));
  for (const quarters of [2, 1, 3]) {
    if (!doubtful.length) break;
    const turned = doubtful.map((index) => ({ ...squares[index], turn: squares[index].turn + (quarters * Math.PI) / 2 }));
    const again = await bothWays(nets, copies, turned, edge, said);
    again.forEach((look, at) => {
      if (look.logit > looks[doubtful[at]].logit) looks[doubtful[at]] = look;
    });
  }
  const placed = looks.map(({ points }) => framed(points, config.framed));
  const views = [looks];
  for (const [number, [larger, angle]] of config.views.entries()) {
    const others = placed.map((square) => ({ ...square, side: larger * square.side, turn: square.turn + angle }));
    views.push(await oneWay(nets, copies, others, edge, said, number > 0));
  }
  const mean = (index, k, axis) => views.reduce((sum, view) => sum + view[index].points[k][axis], 0) / views.length;
  const seen = sure.map((face, index) => {
    const points = [0, 1, 2, 3, 4].map((k) => [mean(index, k, 0), mean(index, k, 1)]);
    const score = clip(face.score, 1e-6, 1 - 1e-6);
    const logit = (Math.log(score / (1 - score)) + looks[index].logit) / 2;
    return { ...face, score: 1 / (1 + Math.exp(-logit)), points };
  });
  return [...seen, ...faces.filter((face) => face.score < config.second)];
}

const TWINS = [1, 0, 2, 4, 3]; // the points of a face in a mirror

/** Rows of `edge` px from right to left. */
const mirrored = (values, edge) => values.map((_, i) => values[i - (i % edge) + edge - 1 - (i % edge)]);

/** The points of faces in upright squares, as the net sees them straight or in a mirror. */
async function oneWay(nets, copies, squares, edge, said, flipped) {
  const shown = cutAll(copies, squares, edge);
  const values = await nets.points(flipped ? mirrored(shown, edge) : shown, squares.length, edge);
  return squares.map((square, index) => {
    const points = TWINS.map((twin, k) => {
      const at = index * said + 10 + 2 * (flipped ? twin : k);
      return fromSquare(square, flipped ? -values[at] : values[at], values[at + 1]);
    });
    return { points };
  });
}

/** The points and logits of faces in upright squares: means of what the net says of the squares and of mirrored ones. */
async function bothWays(nets, copies, squares, edge, said) {
  const shown = cutAll(copies, squares, edge);
  const both = new Float32Array(2 * shown.length);
  both.set(shown);
  both.set(mirrored(shown, edge), shown.length);
  const values = await nets.points(both, 2 * squares.length, edge);
  return squares.map((square, index) => {
    const [one, other] = [index * said, (squares.length + index) * said];
    const points = TWINS.map((twin, k) => {
      const [at, back] = [one + 10 + 2 * k, other + 10 + 2 * twin];
      return fromSquare(square, (values[at] - values[back]) / 2, (values[at + 1] + values[back + 1]) / 2);
    });
    return { points, logit: (values[one + 20] + values[other + 20]) / 2 };
  });
}

function fromSquare({ x, y, side, turn }, u, v) {
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return [(u * cos - v * sin) * side + x, (u * sin + v * cos) * side + y];
}

function cutAll(copies, squares, edge) {
  const out = new Float32Array(squares.length * 3 * edge * edge);
  squares.forEach((square, index) => out.set(cutSquare(copies, square, edge), index * 3 * edge * edge));
  return out;
}

/** The square in which a face stands upright, by its landmarks. */
function framed(points, room) {
  const [x, y] = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const spread = points.reduce((sum, point) => sum + (point[0] - x) ** 2 + (point[1] - y) ** 2, 0) / points.length;
  const [right, left, , mouthRight, mouthLeft] = points;
  const along = [left[0] - right[0], left[1] - right[1]];
  const down = [0, 1].map((axis) => (mouthRight[axis] + mouthLeft[axis] - right[axis] - left[axis]) / 2);
  const turn = Math.atan2(along[1] - down[0], along[0] + down[1]);
  return { x, y, side: Math.max(room * Math.sqrt(spread), 1), turn };
}

/** The values [3, edge, edge] of a square of the photo: bilinear at twice the size, then means of 2 x 2 px. */
function cutSquare(copies, { x, y, side, turn }, edge) {
  const [photo] = copies;
  let number = 0;
  let copy = photo;
  while (side / 2 ** number > 2 * edge && Math.min(copy.width, copy.height) >= 4) copy = copyOf(copies, ++number);
  const { data, width, height } = copy;
  const [across, down] = [width / photo.width, height / photo.height];
  const reach = (side * (across + down)) / 2;
  const out = new Float32Array(3 * edge * edge);
  const [cos, sin] = [Math.cos(turn) * reach, Math.sin(turn) * reach];
  for (let row = 0; row < 2 * edge; row++) {
    const v = (row + 0.5) / (2 * edge) - 0.5;
    for (let column = 0; column < 2 * edge; column++) {
      const u = (column + 0.5) / (2 * edge) - 0.5;
      const px = clip(x * across + u * cos - v * sin - 0.5, 0, width - 1);
      const py = clip(y * down + u * sin + v * cos - 0.5, 0, height - 1);
      const [left, top] = [Math.floor(px), Math.floor(py)];
      const [right, bottom] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
      const [far, low] = [px - left, py - top];
      const to = (row >> 1) * edge + (column >> 1);
      for (let channel = 0; channel < 3; channel++) {
        const at = (v2, u2) => data[(v2 * width + u2) * 3 + channel] / 127.5 - 1;
        const above = at(top, left) * (1 - far) + at(top, right) * far;
        const below = at(bottom, left) * (1 - far) + at(bottom, right) * far;
        out[channel * edge * edge + to] += (above * (1 - low) + below * low) / 4;
      }
    }
  }
  return out;
}
