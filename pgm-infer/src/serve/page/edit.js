// Draws a part of a picture again: a mask is painted over it, by pointer or keyboard, and the server fills what is marked.

import { $, chosenModel, count, duration, enable, isEnabled, kept, models, put, session } from "./common.js";
import { clearErrors, explain, seedOf, settings } from "./fields.js";
import { Mask } from "./mask.js";
import * as tiles from "./tiles.js";

const FIELDS_OF = { n: "refill-n", class: "refill-class" };
const MOST_UNDO = 40;

let model = null;
let picture = null; // a canvas of the model's size
let mask = null;
let names = []; // of the classes
let before = []; // what undo brings back: { pixels, runs }
let cursor = [0, 0]; // row and column of the keyboard's cell

// Pixels are read back, so the browser keeps these canvases in memory.
const penOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

function canvasOf([width, height]) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// The chosen model

export function show(next, classes) {
  [model, names] = [next, classes];
  [picture, mask, before, cursor] = [null, null, [], [0, 0]];
  const [width, height] = model.size;
  Object.assign($("canvas"), { width, height });
  $("canvas").classList.toggle("pixelated", Math.max(width, height) < 128);
  $("brush-size").max = Math.max(2, Math.round(Math.max(width, height) / 2));
  const [left, , right] = new Mask(model.size, model.grid).cell(0, 0);
  $("brush-size").value = kept.get("brush")?.[model.id] ?? Math.max(2, Math.min(right - left, 32));
  brushChanged();
  $("refill-class-field").hidden = !names.length;
  $("refill-class").replaceChildren(new Option("none in particular", ""), ...names.map((name, i) => new Option(name, i)));
  $("refill-form").hidden = true;
  $("refills").replaceChildren();
  $("refills-note").hidden = true;
  $("refill-bar").value = 0;
  put("refill-status", "");
  restore();
}

export function ready() {
  enable($("refill"), picture && !tiles.isRunning() && models.length);
  enable($("refill-stop"), tiles.isRunning());
  enable($("undo"), before.length);
}

// The picture

const imageOf = async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
};

// Takes a picture of the model's size as the one that is edited. One with a class (null for none) is new, so nothing of it is
// marked; a result keeps marks and class.
function take(source, index) {
  // Undo brings the class back with the picture that it was chosen for.
  if (picture) remember(index === undefined ? {} : { class: $("refill-class").value });
  picture = canvasOf(model.size);
  penOf(picture).drawImage(source, 0, 0);
  mask ??= new Mask(model.size, model.grid);
  if (index !== undefined) {
    mask.clear();
    $("refill-class").value = index ?? "";
    tiles.stopIn($("refills"));
    $("refills").replaceChildren();
    $("refills-note").hidden = true;
  }
  $("refill-form").hidden = false;
  redraw();
  keep();
}

// Opens a drawn picture. Its button gets the focus back with Escape.
let opener = null;
export async function open(b64, index, button) {
  clearErrors();
  take(await imageOf(tiles.pngUrl(b64)), index);
  goToStage(button, "");
}

function goToStage(button, status) {
  opener = button;
  put("refill-status", status);
  $("edit").scrollIntoView({ block: "start" });
  $("stage").focus({ preventScroll: true });
}

// Opens a file: its middle, scaled to the model's size, on white, in the model's colours.
async function openFile(file) {
  if (!file || !model) return;
  clearErrors();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return put("edit-error", `${file.name} is no picture that this browser can read.`);
  }
  const [width, height] = model.size;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  let [cutWidth, cutHeight] = [width / scale, height / scale];
  let [x, y] = [(bitmap.width - cutWidth) / 2, (bitmap.height - cutHeight) / 2];
  let source = bitmap;
  // Halves first, so that no pixel is left out where a large picture becomes a small one.
  const halved = (size, least) => Math.max(least, Math.ceil(size / 2));
  while (cutWidth > 2 * width || cutHeight > 2 * height) {
    const smaller = canvasOf([halved(cutWidth, width), halved(cutHeight, height)]);
    scaled(smaller).drawImage(source, x, y, cutWidth, cutHeight, 0, 0, smaller.width, smaller.height);
    [source, x, y, cutWidth, cutHeight] = [smaller, 0, 0, smaller.width, smaller.height];
  }
  const canvas = canvasOf(model.size);
  const pen = scaled(canvas);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, x, y, cutWidth, cutHeight, 0, 0, width, height);
  if (model.channels === 1) {
    const image = pen.getImageData(0, 0, width, height);
    for (let i = 0; i < image.data.length; i += 4) {
      const [red, green, blue] = image.data.subarray(i, i + 3);
      image.data.fill(Math.round(0.299 * red + 0.587 * green + 0.114 * blue), i, i + 3);
    }
    pen.putImageData(image, 0, 0);
  }
  take(canvas, null);
  goToStage($("own-picture"), `${file.name} is open.`);
}

function scaled(canvas) {
  const pen = penOf(canvas);
  pen.imageSmoothingQuality = "high";
  return pen;
}

function redraw() {
  const pen = penOf($("canvas"));
  pen.clearRect(0, 0, mask.width, mask.height);
  pen.drawImage(picture, 0, 0);
  mask.cutFrom(pen, 0.75);
  const n = mask.nCells;
  put("stage-status", n ? `${n} of ${count(mask.rows * mask.columns, "cell")} marked` : "Nothing is marked yet.");
  ready();
}

// Undo, and storage over a reload

const state = () => ({ pixels: picture.toDataURL(), runs: mask.runs() });

function remember(more = {}) {
  before = [...before, { ...state(), ...more }].slice(-MOST_UNDO);
}

async function undo() {
  const last = before.pop();
  if (!last) return;
  await bringBack(last);
  $("refill-class").value = last.class ?? $("refill-class").value;
  put("stage-status", "Undone.");
  keep();
}

async function bringBack({ pixels, runs }) {
  picture = canvasOf(model.size);
  mask ??= new Mask(model.size, model.grid);
  const target = picture;
  penOf(target).drawImage(await imageOf(pixels), 0, 0);
  mask.setRuns(runs);
  redraw();
}

const keep = () => session.set("edit", { model: model.id, class: $("refill-class").value, ...state() });

async function restore() {
  const stored = session.get("edit");
  $("refill-n").value = kept.get("refill-n") ?? 4;
  if (stored?.model !== model.id) return;
  try {
    await bringBack(stored);
  } catch {
    return; // what is stored is no picture of this model
  }
  $("refill-class").value = stored.class;
  $("refill-form").hidden = false;
}

// Painting

const brushSize = () => Number($("brush-size").value);
const value = () => Number(document.querySelector("[name=brush]:checked").value === "mark");

function brushChanged() {
  put("brush-note", count(brushSize(), "pixel"));
}

// Where a pointer is, in pixels of the picture.
function place({ clientX, clientY }) {
  const { left, top, width, height } = $("canvas").getBoundingClientRect();
  return [((clientX - left) * mask.width) / width, ((clientY - top) * mask.height) / height];
}

let from = null; // the pointer's last place, while it paints

function paint(events) {
  for (const event of events) {
    const to = place(event);
    mask.line(from, to, brushSize(), value());
    from = to;
  }
  redraw();
}

$("stage").addEventListener("pointerdown", (event) => {
  if (!picture || event.button !== 0) return;
  $("stage").setPointerCapture(event.pointerId);
  remember();
  from = place(event);
  paint([event]);
});
$("stage").addEventListener("pointermove", (event) => {
  if (!from) return;
  const parts = event.getCoalescedEvents?.() ?? [];
  paint(parts.length ? parts : [event]);
});
for (const end of ["pointerup", "pointercancel"]) {
  $("stage").addEventListener(end, () => {
    if (from) keep();
    from = null;
  });
}

function showCursor() {
  const [row, column] = cursor;
  const [left, top, right, bottom] = mask.cell(row, column);
  const percent = (part, all) => `${(100 * part) / all}%`;
  Object.assign($("cursor").style, {
    left: percent(left, mask.width), top: percent(top, mask.height),
    width: percent(right - left, mask.width), height: percent(bottom - top, mask.height),
  });
  const is = mask.isMarked(row, column) ? "marked" : "kept";
  put("stage-status", `Row ${row + 1}, column ${column + 1}: ${is}`);
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

$("stage").addEventListener("keydown", (event) => {
  if (!picture || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    return undo();
  }
  const within = (index, n) => Math.max(0, Math.min(n - 1, index));
  if (MOVES[event.key]) {
    const [down, right] = MOVES[event.key];
    cursor = [within(cursor[0] + down, mask.rows), within(cursor[1] + right, mask.columns)];
  } else if (event.key === " ") {
    remember();
    mask.toggle(...cursor);
    redraw();
    keep();
  } else if (event.key === "Escape" && !tiles.isRunning() && opener?.isConnected) {
    return opener.focus();
  } else {
    return;
  }
  event.preventDefault();
  showCursor();
});
$("stage").addEventListener("focus", () => { if (picture && $("stage").matches(":focus-visible")) showCursor(); });

// Refilling

// The mask as the server reads it: transparent where the picture is drawn again.
function maskUrl() {
  const canvas = canvasOf(model.size);
  const pen = penOf(canvas);
  pen.fillRect(0, 0, mask.width, mask.height);
  mask.cutFrom(pen, 1);
  return canvas.toDataURL();
}

async function refill() {
  if (!picture || tiles.isRunning() || !$("refill-form").reportValidity() || !$("draw-form").reportValidity()) return;
  clearErrors();
  if (mask.isEmpty) {
    put("refill-error", "Nothing is marked: paint over what is to be drawn again.");
    return $("stage").focus();
  }
  const index = names.length && $("refill-class").value !== "" ? Number($("refill-class").value) : null;
  const seed = seedOf($("picture-seed"));
  const asked = { model: model.id, ...settings(index !== null), seed, image: picture.toDataURL(), mask: maskUrl() };
  if (index !== null) asked.class = index;
  const captions = Array(Number($("refill-n").value)).fill(index === null ? "" : names[index]);
  put("refill-status", "Waiting for the server…");
  $("refills-note").hidden = true;
  const asks = model;
  const request = { path: "v1/images/edits", event: "image_edit", asked, captions };
  const run = await tiles.fill($("refills"), request, { what: "Go on with", choose: chooseResult }, {
    bar: $("refill-bar"),
    progress: (text) => put("refill-status", text),
  });
  if (model !== asks || run.dropped) return; // another model or picture is chosen by now
  const done = run.tiles.filter((tile) => tile.done);
  $("refills-note").hidden = !done.length;
  if (run.complete) {
    put("refill-status", `Done: ${count(done.length, "result")}, seed ${done[0].seed}, ${duration(run)}.`);
  } else if (run.stopped) {
    put("refill-status", `Stopped after ${count(done.length, "finished result")}.`);
  } else if (run.broke) {
    put("refill-status", "");
    put("refill-error", "The stream broke off; the results so far are kept.");
  } else {
    put("refill-status", "");
    explain(run.error, "refill-error", FIELDS_OF, refill);
  }
}

async function chooseResult(tile) {
  take(await imageOf(tiles.pngUrl(tile.b64)));
  for (const item of $("refills").children) item.removeAttribute("aria-current");
  tile.item.setAttribute("aria-current", "true");
  put("stage-status", `Result ${tile.number} is the picture now; the marks are kept.`);
}

// Events

$("brush-size").addEventListener("input", () => {
  brushChanged();
  kept.set("brush", { ...kept.get("brush"), [model.id]: brushSize() });
});
$("undo").addEventListener("click", () => { if (isEnabled($("undo"))) undo(); });
$("clear-mask").addEventListener("click", () => {
  if (mask.isEmpty) return;
  remember();
  mask.clear();
  redraw();
  keep();
});
$("save").addEventListener("click", () => {
  const index = $("refill-class").value;
  picture.toBlob((blob) => tiles.save(blob, tiles.fileName(chosenModel().id, names[index] ?? "", "edited")));
});
$("refill-form").addEventListener("submit", (event) => {
  event.preventDefault();
  refill();
});
$("edit").addEventListener("keydown", (event) => {
  if (event.isComposing || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  refill();
});
$("refill-stop").addEventListener("click", tiles.stop);
$("refill-class").addEventListener("input", () => { if (picture) keep(); });
$("refill-n").addEventListener("input", () => kept.set("refill-n", $("refill-n").value));
$("own-picture").addEventListener("change", ({ target }) => {
  openFile(target.files[0]);
  target.value = ""; // the same file may be opened again
});

// A picture may be dropped anywhere; elsewhere on the page the browser would leave the page for it.
const isShown = () => !$("pictures").hidden;
const hasFile = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!isShown() || !hasFile(event)) return;
  event.preventDefault();
  $("pictures").classList.add("dropping");
});
for (const end of ["dragleave", "drop"]) {
  document.addEventListener(end, (event) => {
    if (end === "drop" || !event.relatedTarget) $("pictures").classList.remove("dropping");
  });
}
document.addEventListener("drop", (event) => {
  if (!isShown() || !hasFile(event)) return;
  event.preventDefault();
  openFile(event.dataTransfer.files[0]);
});
