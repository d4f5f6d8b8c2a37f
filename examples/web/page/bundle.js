// The model that lies beside the page: its files, downloaded once and then kept in the browser's Cache Storage.

const FOLDER = new URL("./model/", import.meta.url);
const LIST = new URL("files.json", FOLDER);
const PREFIX = `pgm ${FOLDER.pathname} `; // other pages of this site may have models, too

let list = null;

// Only a page from https or from this machine has a cache. The browser may forbid it as well.
const caches = () => self.caches ?? null;
const cacheName = () => PREFIX + list.revision;
const size = () => Object.values(list.files).reduce((sum, bytes) => sum + bytes, 0);

async function get(url, options) {
  const response = await fetch(url, options).catch((error) => {
    if (options?.signal?.aborted) throw error;
    throw new Error(`${url.pathname} cannot be downloaded: is there a connection? Try again`);
  });
  if (!response.ok) throw new Error(`${url.pathname} cannot be downloaded: the site answers with status ${response.status}`);
  return response;
}

// Whether all files are stored in this version.
async function isStored() {
  try {
    if (!await caches()?.has(cacheName())) return false;
    const keys = await (await caches().open(cacheName())).keys();
    return keys.length === Object.keys(list.files).length;
  } catch {
    return false;
  }
}

// The name and the bytes of the model, whether it is stored, and whether the page has a program for the graphics card. Older versions that are stored are removed.
export async function bundle() {
  list ??= await (await get(LIST, { cache: "no-cache" })).json();
  for (const name of await caches()?.keys().catch(() => []) ?? []) {
    if (name.startsWith(PREFIX) && name !== cacheName()) await caches().delete(name);
  }
  return { name: list.name, size: size(), stored: await isStored(), webgpu: list.webgpu };
}

// Removes the model from the browser's storage.
export async function remove() {
  if (list) await caches()?.delete(cacheName());
  return bundle();
}

async function download(url, expected, signal, arrived) {
  // It is stored by this file alone, and an older version in the browser's other cache would not fit.
  const response = await get(url, { signal, cache: "no-store" });
  const bytes = new Uint8Array(expected);
  const reader = response.body.getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length <= expected) bytes.set(value, at);
    at += value.length;
    arrived(value.length);
  }
  if (at !== expected) throw new Error(`${url.pathname} has ${at} bytes in place of ${expected}; load the page again`);
  return bytes;
}

// The bytes of each file; `watch(done, total)` is called as they come.
export async function bundledFiles(signal, watch) {
  await bundle();
  const cache = await caches()?.open(cacheName()).catch(() => null);
  const total = size();
  let done = 0;
  const arrived = (n) => watch(done += n, total);
  const found = {};
  for (const [name, expected] of Object.entries(list.files)) {
    const url = new URL(name, FOLDER);
    const kept = await cache?.match(url);
    const bytes = kept && new Uint8Array(await kept.arrayBuffer());
    if (bytes?.length === expected) {
      arrived(expected);
      found[name] = bytes;
      continue;
    }
    found[name] = await download(url, expected, signal, arrived);
    // A full disk costs the next download only.
    await cache?.put(url, new Response(found[name])).catch(() => {});
  }
  return found;
}
