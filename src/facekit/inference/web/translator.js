// A photo in, the translated faces out: finds, aligns, translates and pastes back, with ONNX Runtime's nets.

import { cutFace, footprint, paste, similarity } from "./alignment.js";
import { findFaces } from "./detector.js";
import { blank, clip, gaussianBlur, largestOfNine, resize, toImage, toValues } from "./pixels.js";

/** Load the nets that config.json names; `ort` is ONNX Runtime, `read` returns the bytes of a file. */
export async function load(ort, config, read, options) {
  const open = async (name) => ort.InferenceSession.create(await read(name), options);
  const [model, detector, points, segnet, upscaler] = [
    await open("model.onnx"),
    await open("detector.onnx"),
    await open("points.onnx"),
    await open("segnet.onnx"),
    await open("upscaler.onnx"),
  ];
  const tensor = (values, ...shape) => new ort.Tensor("float32", values, shape);
  const map = ({ data, dims }) => ({ values: data, width: dims[3], height: dims[2] });
  const nets = {
    detect: async ({ values, width, height }) => {
      const found = await detector.run({ image: tensor(values, 1, 3, height, width) });
      return detector.outputNames.map((name) => map(found[name]));
    },
    points: async (values, count, edge) => (await points.run({ image: tensor(values, count, 3, edge, edge) })).points.data,
    parts: async (values, edge) => (await segnet.run({ image: tensor(values, 1, 3, edge, edge) })).parts.data,
    double: async (values, edge) => (await upscaler.run({ image: tensor(values, 1, 3, edge, edge) })).larger.data,
    draw: async (values, edge) => (await model.run({ image: tensor(values, 1, 3, edge, edge) })).translation.data,
  };
  return new Translator(nets, config);
}

export class Translator {
  constructor(nets, config) {
    this.nets = nets;
    this.config = config;
  }

  /** Translate a photo: {image, faces, seconds}. `paste`: the whole photo; else the face alone. `every`: all faces. */
  async translate(photo, { paste: back = true, every = false } = {}) {
    const { size, result } = this.config;
    const begun = performance.now();
    const faces = await findFaces(this.nets, this.config.detector, photo, every && back);
    let image = photo;
    for (const face of faces) {
      const warp = similarity(face.points, this.config.template);
      const crop = cutFace(photo, warp, size);
      const place = back ? Math.min(footprint(warp, size), result * 2 ** this.config.enlarge.most) : 0;
      const drawn = await this.enlarge(await this.nets.draw(toValues(crop), size), size, Math.max(result, place));
      image = back ? paste(image, drawn, warp, size, await this.head(crop)) : drawn;
    }
    return { image, faces: faces.length, seconds: (performance.now() - begun) / 1000 };
  }

  /** Values of a square of `size` px as one of `edge` px: the net doubles it as needed, the rest is interpolated. */
  async enlarge(values, size, edge) {
    const { least, most, largest } = this.config.enlarge;
    const scale = edge / size;
    for (let left = scale < least ? 0 : Math.min(most, Math.ceil(Math.log2(scale))); left > 0; left--) {
      if (2 * size > largest) break;
      [values, size] = [await this.nets.double(values, size), 2 * size];
    }
    return resize(toImage(values, size, size), edge, edge, "lanczos");
  }

  /** The head in a crop as a soft mask; null where the segmenter sees none. */
  async head(crop) {
    const { edge, least, low, high } = this.config.head;
    const parts = await this.nets.parts(toValues(resize(crop, edge, edge)), edge);
    const mask = blank(edge, edge, 1);
    let sure = 0;
    for (let i = 0; i < edge * edge; i++) {
      const head = 1 - parts[i]; // the first class is the background
      sure += head > 0.5;
      mask.data[i] = clip((head - low) / (high - low), 0, 1) * 255;
    }
    if (sure / (edge * edge) < least) return null;
    return resize(gaussianBlur(largestOfNine(mask), edge / 50), crop.width, crop.width);
  }
}
