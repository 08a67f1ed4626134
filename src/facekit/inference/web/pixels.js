// Resampling of 8-bit images, value for value as Pillow and OpenCV compute it, so that a face translated in a browser
// is the face that `facekit translate` makes. An image is {width, height, channels, data}, its rows one after another.

const PRECISION = 2 ** 22; // Pillow keeps a filter's weights as whole numbers of this part

export function blank(width, height, channels, value = 0) {
  return { width, height, channels, data: new Uint8Array(width * height * channels).fill(value) };
}

/** The nearest whole number; of two that are as near, the even one, as Python and NumPy round. */
export function round(value) {
  const low = Math.floor(value);
  const above = value - low;
  if (above < 0.5) return low;
  if (above > 0.5) return low + 1;
  return low % 2 === 0 ? low : low + 1;
}

export const clip = (value, low, high) => Math.min(Math.max(value, low), high);

const cubic = (x) => {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
};
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
const lanczos = (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0);
const FILTERS = { bicubic: [cubic, 2], lanczos: [lanczos, 3] };

/** The first pixel and the weights that make each of `size` pixels out of `length`. */
function weights(length, size, name) {
  const [filter, reach] = FILTERS[name];
  const scale = length / size;
  const wider = Math.max(1, scale);
  const support = reach * wider;
  return Array.from({ length: size }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const stop = Math.min(length, Math.trunc(centre + support + 0.5));
    const values = [];
    for (let place = first; place < stop; place++) values.push(filter((place - centre + 0.5) / wider));
    const sum = values.reduce((total, value) => total + value, 0);
    return [first, values.map((value) => {
      const whole = (value / sum) * PRECISION;
      return Math.trunc(whole < 0 ? whole - 0.5 : whole + 0.5);
    })];
  });
}

/** One pass of a resize: along rows (`step` = channels) or along columns (`step` = a row). */
function pass(image, out, size, lines, lineStep, step, outLineStep, outStep, name) {
  const table = weights(size.from, size.to, name);
  for (let line = 0; line < lines; line++) {
    for (let index = 0; index < size.to; index++) {
      const [first, values] = table[index];
      for (let channel = 0; channel < image.channels; channel++) {
        let sum = PRECISION / 2;
        let place = line * lineStep + first * step + channel;
        for (let k = 0; k < values.length; k++, place += step) sum += values[k] * image.data[place];
        out.data[line * outLineStep + index * outStep + channel] = clip(Math.floor(sum / PRECISION), 0, 255);
      }
    }
  }
  return out;
}

/** The image at another size, antialiased, by "bicubic" or "lanczos": Pillow's `resize`. */
export function resize(image, width, height, name = "bicubic") {
  const { channels } = image;
  let made = image;
  if (width !== made.width) {
    const out = blank(width, made.height, channels);
    const size = { from: made.width, to: width };
    made = pass(made, out, size, made.height, made.width * channels, channels, width * channels, channels, name);
  }
  if (height !== made.height) {
    const out = blank(width, height, channels);
    const size = { from: made.height, to: height };
    // a "line" is one pixel column here, all its channels together
    made = pass(made, out, size, width, channels, width * channels, channels, width * channels, name);
  }
  return made;
}

/** The means of squares of `factor` px: Pillow's `reduce`. */
export function reduce(image, factor) {
  if (factor === 1) return image;
  const { channels } = image;
  const out = blank(Math.ceil(image.width / factor), Math.ceil(image.height / factor), channels);
  for (let y = 0; y < out.height; y++) {
    const bottom = Math.min(image.height, (y + 1) * factor);
    for (let x = 0; x < out.width; x++) {
      const right = Math.min(image.width, (x + 1) * factor);
      const count = (bottom - y * factor) * (right - x * factor);
      const share = Math.trunc(Math.fround(2 ** 24 / count)); // Pillow multiplies where one would divide
      for (let channel = 0; channel < channels; channel++) {
        let sum = Math.floor(count / 2);
        for (let v = y * factor; v < bottom; v++) {
          for (let u = x * factor; u < right; u++) sum += image.data[(v * image.width + u) * channels + channel];
        }
        out.data[(y * out.width + x) * channels + channel] = Math.floor((sum * share) / 2 ** 24);
      }
    }
  }
  return out;
}

/** Draw `width` x `height` px whose places in `image` are a x + b y + c, d x + e y + f: Pillow's `transform`. */
export function affine(image, [a, b, c, d, e, f], width, height, name) {
  const { channels, data } = image;
  const out = blank(width, height, channels);
  const taps = name === "bilinear" ? 2 : 4;
  const before = name === "bilinear" ? 0 : 1;
  const columns = new Int32Array(taps);
  const rows = new Int32Array(taps);
  const line = new Float64Array(taps);
  const mix = name === "bilinear" ? ([p, q], t) => p + (q - p) * t : blend;
  const tap = new Float64Array(taps);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const u = a * (x + 0.5) + b * (y + 0.5) + c;
      const v = d * (x + 0.5) + e * (y + 0.5) + f;
      if (u < 0 || v < 0 || u >= image.width || v >= image.height) continue;
      const left = Math.floor(u - 0.5);
      const top = Math.floor(v - 0.5);
      for (let k = 0; k < taps; k++) {
        columns[k] = clip(left - before + k, 0, image.width - 1) * channels;
        rows[k] = clip(top - before + k, 0, image.height - 1) * image.width * channels;
      }
      for (let channel = 0; channel < channels; channel++) {
        for (let r = 0; r < taps; r++) {
          for (let k = 0; k < taps; k++) tap[k] = data[rows[r] + columns[k] + channel];
          line[r] = mix(tap, u - 0.5 - left);
        }
        const value = mix(line, v - 0.5 - top);
        out.data[(y * width + x) * channels + channel] = clip(value, 0, 255);
      }
    }
  }
  return out;
}

/** Pillow's cubic for `transform`, which is sharper than that of `resize`. */
function blend([p, q, r, s], t) {
  return q + t * (-p + r + t * (2 * (p - q) + r - s + t * (-p + q - r + s)));
}

/** Pillow's Gaussian blur: three box blurs whose edges count in part. */
export function gaussianBlur(image, radius) {
  const variance = (radius * radius) / 3;
  const whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const part = ((2 * whole + 1) * (whole * (whole + 1) - 3 * variance)) / (6 * (variance - (whole + 1) ** 2));
  const box = Math.fround(whole + part);
  if (!(box > 0)) return image;
  let made = image;
  for (const along of ["rows", "columns"]) {
    for (let time = 0; time < 3; time++) made = boxBlur(made, box, along);
  }
  return made;
}

function boxBlur(image, box, along) {
  const { width, height, channels, data } = image;
  const reach = Math.trunc(box);
  const full = Math.trunc(2 ** 24 / (box * 2 + 1));
  const rest = Math.trunc((2 ** 24 - (reach * 2 + 1) * full) / 2);
  const out = blank(width, height, channels);
  const [lines, length] = along === "rows" ? [height, width] : [width, height];
  const [lineStep, step] = along === "rows" ? [width * channels, channels] : [channels, width * channels];
  for (let line = 0; line < lines; line++) {
    for (let channel = 0; channel < channels; channel++) {
      const start = line * lineStep + channel;
      const at = (place) => data[start + clip(place, 0, length - 1) * step];
      let sum = 0;
      for (let place = -reach; place <= reach; place++) sum += at(place);
      for (let place = 0; place < length; place++) {
        const value = sum * full + (at(place - reach - 1) + at(place + reach + 1)) * rest + 2 ** 23;
        out.data[start + place * step] = Math.floor(value / 2 ** 24);
        sum += at(place + reach + 1) - at(place - reach);
      }
    }
  }
  return out;
}

/** The largest value of each 3 x 3 px: Pillow's `MaxFilter(3)`, for an image of one channel. */
export function largestOfNine(image) {
  const { width, height, data } = image;
  const out = blank(width, height, 1);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let most = 0;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) most = Math.max(most, data[v * width + u]);
      }
      out.data[y * width + x] = most;
    }
  }
  return out;
}

/** n / 255, rounded, for n up to 255 * 255: as Pillow divides. */
export const part = (n) => ((n + 128) + ((n + 128) >> 8)) >> 8;

/** `over` where `mask` is 255, `under` where it is 0. */
export function composite(over, under, mask) {
  const out = blank(under.width, under.height, under.channels);
  for (let i = 0, p = 0; p < mask.data.length; p++) {
    const share = mask.data[p];
    for (let channel = 0; channel < under.channels; channel++, i++) {
      out.data[i] = part(share * over.data[i] + (255 - share) * under.data[i]);
    }
  }
  return out;
}

/** The image smaller, each pixel the mean of the area that it covers: OpenCV's INTER_AREA. */
export function area(image, width, height) {
  if (image.width === 2 * width && image.height === 2 * height) return halve(image);
  const across = shares(image.width, width);
  const down = shares(image.height, height);
  const { channels, data } = image;
  const out = blank(width, height, channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (const [row, high] of down[y]) {
          let line = 0;
          for (const [column, wide] of across[x]) line += wide * data[(row * image.width + column) * channels + channel];
          sum += high * line;
        }
        out.data[(y * width + x) * channels + channel] = round(sum);
      }
    }
  }
  return out;
}

function halve({ width, height, channels, data }) {
  const out = blank(width / 2, height / 2, channels);
  const row = width * channels;
  for (let y = 0, to = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2) {
      for (let channel = 0; channel < channels; channel++, to++) {
        const at = y * row + x * channels + channel;
        out.data[to] = (data[at] + data[at + channels] + data[at + row] + data[at + row + channels] + 2) >> 2;
      }
    }
  }
  return out;
}

function shares(length, size) {
  const scale = length / size;
  return Array.from({ length: size }, (_, index) => {
    const from = index * scale;
    const to = from + scale;
    const cell = Math.min(scale, length - from);
    const last = Math.min(Math.floor(to), length - 1);
    const first = Math.min(Math.ceil(from), last);
    const found = [];
    if (first - from > 1e-3) found.push([first - 1, (first - from) / cell]);
    for (let place = first; place < last; place++) found.push([place, 1 / cell]);
    if (to - last > 1e-3) found.push([last, Math.min(to - last, 1, cell) / cell]);
    return found;
  });
}

/** The image larger, or up to twice as small, between its pixels, in whole numbers: OpenCV's INTER_LINEAR. */
export function linear(image, width, height) {
  const { channels, data } = image;
  const out = blank(width, height, channels);
  const places = (length, size) => Array.from({ length: size }, (_, index) => {
    const at = Math.fround((index + 0.5) * (length / size) - 0.5);
    const low = Math.floor(at);
    const far = Math.fround(at - low);
    return [low, round(Math.fround(Math.fround(1 - far) * 2048)), round(Math.fround(far * 2048))];
  });
  const across = places(image.width, width).map(([low, near, far]) =>
    low < 0 ? [0, 0, 2048, 0] : low >= image.width - 1 ? [image.width - 1, image.width - 1, 2048, 0] : [low, low + 1, near, far],
  );
  const down = places(image.height, height);
  for (let y = 0; y < height; y++) {
    const [row, over, under] = down[y];
    const top = clip(row, 0, image.height - 1) * image.width;
    const bottom = clip(row + 1, 0, image.height - 1) * image.width;
    for (let x = 0; x < width; x++) {
      const [left, right, near, far] = across[x];
      for (let channel = 0; channel < channels; channel++) {
        const at = (start, column) => data[(start + column) * channels + channel];
        const above = (at(top, left) * near + at(top, right) * far) >> 4;
        const below = (at(bottom, left) * near + at(bottom, right) * far) >> 4;
        out.data[(y * width + x) * channels + channel] = (((over * above) >> 16) + ((under * below) >> 16) + 2) >> 2;
      }
    }
  }
  return out;
}

/** Values from -1 to 1, one channel after another: what nets take. */
export function toValues(image) {
  const { width, height, channels, data } = image;
  const values = new Float32Array(channels * width * height);
  for (let channel = 0, i = 0; channel < channels; channel++) {
    for (let p = channel; p < data.length; p += channels, i++) values[i] = Math.fround(Math.fround(data[p] / 127.5) - 1);
  }
  return values;
}

/** The image of such values; what lies outside is clipped. */
export function toImage(values, width, height) {
  const out = blank(width, height, 3);
  for (let p = 0; p < width * height; p++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = Math.fround(Math.fround(values[channel * width * height + p] + 1) * 127.5);
      out.data[3 * p + channel] = value >= 0 ? clip(round(value), 0, 255) : 0;
    }
  }
  return out;
}
