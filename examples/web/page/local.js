// The panel of the models in this page: loads the bundled one, opens folders, and removes what is stored.

import { $, RequestError, kept, put } from "./common.js";
import { ask, whenWorkerFails } from "./worker_calls.js";

const NEEDED = ["config.json", "model.safetensors", "tokenizer.json"];
const FILES = [...NEEDED, "generation_config.json"];
const UNASKED = 32e6; // bytes that are downloaded without asking

let page = null; // { say, complain, list }
let bundled = null; // { name, size, stored }
let loading = null; // an AbortController
const entries = new Map(); // the models that are offered, by name, as the worker describes them
const sources = new Map(); // their files, by name; null for the bundled model
const lost = new Set(); // those that are loaded again when they are used: a failed worker had them, or another device has them
let device = "flex"; // which the last model was loaded on

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const complain = (text) => put("load-error", text);
const sentence = (error) => (error instanceof RequestError ? error.message : `${error.message ?? error}.`);

// What is shown

function show() {
  const isLoaded = bundled && entries.has(bundled.name) && !lost.has(bundled.name);
  $("load").hidden = !bundled || isLoaded || Boolean(loading);
  if (bundled) put("load", bundled.stored ? `Load ${bundled.name}` : `Download ${bundled.name} (${megabytes(bundled.size)})`);
  $("stop-load").hidden = !loading;
  $("remove").hidden = !bundled?.stored;
  if (bundled) put("remove", `Remove the stored model (${megabytes(bundled.size)})`);
  $("load-bar").hidden = !loading;
  $("device").disabled = Boolean(loading);
}

function watch({ stage, done, total }) {
  $("load-bar").value = done / total;
  put("load-status", {
    download: `Loading ${megabytes(done)} of ${megabytes(total)}…`,
    program: "Loading the program…",
    read: `Reading the weights: ${Math.round((100 * done) / total)} %`,
  }[stage]);
}

// Loading

// Loads a model. An error is shown, and nothing of what was there is lost.
async function load(name, files) {
  if (loading) return;
  loading = new AbortController();
  complain("");
  $("load-bar").value = 0;
  page.say("The model is loading…");
  show();
  try {
    const entry = await ask("load", { model: name, device: $("device").value, files }, watch, loading.signal);
    if (!entry) {
      put("load-status", "Stopped.");
    } else {
      if (files) await closeOthers(name);
      entries.set(name, entry);
      sources.set(name, files);
      lost.delete(name);
      device = $("device").value;
      put("load-status", `${name} is loaded.`);
      if (!files) bundled = await ask("bundle");
    }
  } catch (error) {
    put("load-status", "");
    complain(sentence(error));
  }
  $("device").value = device;
  loading = null;
  page.say(entries.size ? "Ready." : "Load a model to begin.");
  if (entries.has(name)) page.list([...entries.values()], name);
  show();
}

// A model in memory has its place beside the bundled one; the folder opened before gives way.
async function closeOthers(name) {
  for (const other of [...entries.keys()]) {
    if (other === name || other === bundled?.name) continue;
    await ask("close", { model: other });
    for (const map of [entries, sources, lost]) map.delete(other);
  }
}

// Loads a model again that a failed worker had.
export async function restore(name) {
  if (!lost.has(name)) return;
  await load(name, sources.get(name));
  if (lost.has(name)) throw new RequestError("the model is not loaded; see the message above");
}

// Devices

// Offers the graphics card where the browser gives one.
async function offerDevices() {
  if (!bundled?.webgpu) return;
  const card = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!card) return;
  $("device-field").hidden = false;
  if (kept.get("device") === "webgpu") $("device").value = "webgpu";
  $("device").addEventListener("change", async () => {
    const chosen = $("model").value;
    const before = device;
    if (!chosen) device = $("device").value;
    else await load(chosen, sources.get(chosen));
    if (device === before) return; // it cannot be used, or loading was stopped
    kept.set("device", device);
    for (const name of entries.keys()) if (name !== chosen) lost.add(name);
  });
}

// Folders

// Files of one folder by their names, from files with their paths: the folder that has a configuration and lies least deep.
function modelFolder(files) {
  const folders = new Map();
  for (const { path, file } of files) {
    const parts = path.split("/").filter(Boolean);
    const name = parts.pop();
    const folder = parts.join("/");
    if (!folders.has(folder)) folders.set(folder, {});
    folders.get(folder)[name] = file;
  }
  const known = [...folders].filter(([, found]) => FILES.some((name) => name in found));
  const rank = ([folder, found]) => [-NEEDED.filter((name) => name in found).length, folder.split("/").length];
  known.sort((a, b) => rank(a)[0] - rank(b)[0] || rank(a)[1] - rank(b)[1]);
  return known[0];
}

function open(files, chosen) {
  if (loading) return complain("A model is being loaded; wait for it, or stop it.");
  const found = modelFolder(files);
  const folder = found?.[0] || chosen;
  const has = found?.[1] ?? {};
  const missing = NEEDED.filter((name) => !(name in has));
  if (missing.length) {
    return complain(`${folder}: there is no ${missing.join(" and no ")}. A model folder has ${NEEDED.slice(0, -1).join(", ")} and ` +
      `${NEEDED.at(-1)}.`);
  }
  const name = folder.split("/").at(-1);
  // The bundled model keeps its name.
  load(name === bundled?.name ? `${name} (opened)` : name, Object.fromEntries(FILES.filter((file) => file in has)
    .map((file) => [file, has[file]])));
}

// Files below a dropped folder with their paths, at most two folders deep.
async function filesOf(entry, depth = 2) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return [{ path: entry.fullPath, file }];
  }
  if (!depth) return [];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) break;
    for (const each of some) found.push(...await filesOf(each, depth - 1));
  }
  return found;
}

async function dropped({ items, files }) {
  const all = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const name = all.length === 1 && all[0].isDirectory ? all[0].name : "dropped files";
  const plain = [...files].map((file) => ({ path: file.name, file }));
  try {
    const found = (await Promise.all(all.map((entry) => filesOf(entry)))).flat();
    open(found.length ? found : plain, name);
  } catch (error) {
    complain(`What was dropped cannot be read: ${error.message}`);
  }
}

// The panel

// Offers the models to the page: `say` and `list` are those of app.js.
export async function offer(of) {
  page = of;
  whenWorkerFails(() => {
    for (const name of entries.keys()) lost.add(name);
    loading = null;
    show();
  });
  $("load").addEventListener("click", () => {
    kept.set("removed", null);
    load(bundled.name, null);
  });
  $("stop-load").addEventListener("click", () => loading?.abort());
  $("remove").addEventListener("click", async () => {
    bundled = await ask("remove");
    kept.set("removed", true); // it does not come back unasked
    put("load-status", "The stored model is removed. The page keeps it in memory until it is closed.");
    show();
    $("local").focus();
  });
  $("folder").addEventListener("change", ({ target }) => {
    const files = [...target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    target.value = ""; // the same folder may be opened again
    if (files.length) open(files, files[0].path.split("/")[0]);
  });
  const hasFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => { if (hasFile(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    dropped(event.dataTransfer);
  });
  try {
    bundled = await ask("bundle");
    await offerDevices();
  } catch (error) {
    page.say("Open a model folder to begin.");
    complain(sentence(error));
    return;
  }
  show();
  const isAsked = bundled.size > UNASKED || navigator.connection?.saveData || kept.get("removed");
  if (bundled.stored || !isAsked) await load(bundled.name, null);
  else page.say("Load a model to begin.");
}
