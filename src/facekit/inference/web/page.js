// The page: takes a photo from a file, the clipboard or the camera, and shows it beside its translation.

const MOST = 4096; // px, the longest edge of a photo that is translated as it is; larger ones are reduced

const $$ = (name) => document.getElementById(name);
const worker = new Worker(`worker.js${location.search}`, { type: "module" });
const waiting = new Map();
let number = 0;
let photo = null;

worker.onmessage = ({ data }) => {
  if ("ready" in data) {
    if (data.ready) {
      document.body.dataset.ready = data.provider;
      say("Ready.");
    } else say(`The model could not be loaded: ${data.error}`, true);
    return;
  }
  waiting.get(data.id)?.(data);
  waiting.delete(data.id);
};
worker.onerror = (event) => say(`The model could not be loaded: ${event.message || "this browser is too old"}`, true);

/** Translate an image {width, height, channels, data}: what the worker answers. */
export function translate(image, options) {
  return new Promise((resolve) => {
    waiting.set(++number, resolve);
    worker.postMessage({ id: number, photo: image, options });
  });
}

function say(text, wrong = false) {
  $$("status").textContent = text;
  $$("status").classList.toggle("error", wrong);
}

/** The RGB pixels of a bitmap or video, over white, at most MOST px long. */
function pixelsOf(source, width, height) {
  const scale = Math.min(1, MOST / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const rgb = new Uint8Array((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return { width: canvas.width, height: canvas.height, channels: 3, data: rgb };
}

function show(canvas, { width, height, data }) {
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; to++) {
    pixels.data[to++] = data[from++];
    pixels.data[to++] = data[from++];
    pixels.data[to++] = data[from++];
    pixels.data[to] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

async function open(file) {
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    await use(pixelsOf(bitmap, bitmap.width, bitmap.height));
    bitmap.close();
  } catch {
    say(`${file.name || "This"} is not an image that this browser can read. Try a JPEG or PNG.`, true);
  }
}

async function use(image) {
  photo = image;
  show($$("before"), image);
  $$("pictures").classList.add("shown");
  await draw();
}

async function draw() {
  if (!photo) return;
  const asked = photo;
  const options = { paste: $$("paste").checked, every: $$("every").checked };
  say("Translating …");
  const { image, faces, seconds, error } = await translate(asked, options);
  if (asked !== photo) return; // another photo has come since
  $$("save").hidden = true;
  if (error) return say(`It could not be translated: ${error}`, true);
  if (!faces) {
    show($$("after"), asked);
    return say("No face was found. Try a photo that shows a face larger and from the front.", true);
  }
  show($$("after"), image);
  say(`${faces === 1 ? "One face" : `${faces} faces`} in ${seconds.toFixed(1)} s.`);
  $$("after").toBlob((blob) => {
    URL.revokeObjectURL($$("save").href);
    $$("save").href = URL.createObjectURL(blob);
    $$("save").hidden = false;
  });
}

$$("file").onchange = () => $$("file").files[0] && open($$("file").files[0]);
for (const name of ["paste", "every"]) $$(name).onchange = draw;

addEventListener("dragover", (event) => {
  event.preventDefault();
  $$("drop").classList.add("over");
});
addEventListener("dragleave", () => $$("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $$("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file);
});

$$("camera").onclick = async () => {
  try {
    $$("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    $$("viewfinder").hidden = false;
  } catch {
    say("The camera cannot be used: allow it for this page, or choose a file.", true);
  }
};
$$("shoot").onclick = async () => {
  const video = $$("video");
  const image = pixelsOf(video, video.videoWidth, video.videoHeight);
  for (const track of video.srcObject.getTracks()) track.stop();
  $$("viewfinder").hidden = true;
  await use(image);
};
