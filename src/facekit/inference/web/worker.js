// Translates beside the page, so that the page stays quick. It takes {id, photo, options} and answers {id, ...}.

import { load } from "./translator.js";

const RUNTIME = new URL("./onnxruntime/", import.meta.url).href;

async function start() {
  const wanted = new URL(self.location).searchParams.get("provider");
  const order = wanted ? [wanted] : (await hasGraphics()) ? ["webgpu", "wasm"] : ["wasm"];
  const files = new Map();
  const read = async (name) => {
    if (!files.has(name)) files.set(name, await bytesOf(name));
    return files.get(name);
  };
  const config = JSON.parse(new TextDecoder().decode(await read("config.json")));
  for (const provider of order) {
    try {
      const ort = await import(`${RUNTIME}ort.${provider}.min.mjs`);
      ort.env.logLevel = "error";
      ort.env.wasm.wasmPaths = RUNTIME;
      ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
      const translator = await load(ort, config, read, { executionProviders: [provider] });
      return { translator, provider };
    } catch (error) {
      if (provider === order.at(-1)) throw error; // a graphics card that does not suit: the processor does the work
    }
  }
}

/** Whether there is a graphics card, and not only a program that stands for one. */
async function hasGraphics() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

async function bytesOf(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status})`);
  return new Uint8Array(await answer.arrayBuffer());
}

const started = start();
started.then(
  ({ provider }) => self.postMessage({ ready: true, provider }),
  (error) => self.postMessage({ ready: false, error: error.message }),
);

let last = Promise.resolve(); // one photo after the other: memory is for one
self.onmessage = ({ data: { id, photo, options } }) => {
  last = last.then(async () => {
    try {
      const { translator } = await started;
      const { image, faces, seconds } = await translator.translate(photo, options);
      self.postMessage({ id, image, faces, seconds }, image === photo ? [] : [image.data.buffer]);
    } catch (error) {
      self.postMessage({ id, error: error.message });
    }
  });
};
