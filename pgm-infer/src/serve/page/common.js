// What every part of the page uses: elements, storage, requests with a key, and server-sent events.

import { inPageWords } from "./texts.js";

export const $ = (id) => document.getElementById(id);

// The browser may forbid storage, or it may be full; the page works without it. `set` says whether the value was stored.
const storage = (kind) => ({
  get(name) {
    try { return JSON.parse(window[kind].getItem(`pgm-${name}`)); } catch { return null; }
  },
  set(name, value) {
    try { window[kind].setItem(`pgm-${name}`, JSON.stringify(value)); } catch { return false; }
    return true;
  },
});
export const kept = storage("localStorage");
export const session = storage("sessionStorage");

export const models = []; // as `v1/models` lists them
export const chosenModel = () => models.find(({ id }) => id === $("model").value);
export const isPictureModel = (model) => Boolean(model?.grid);

// Chooses a model as a person would, if it is still there.
export function chooseModel(id) {
  if (id === $("model").value || !models.some((model) => model.id === id)) return;
  $("model").value = id;
  $("model").dispatchEvent(new Event("input"));
}

// Text

export const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
export const duration = ({ started, ended = performance.now() }) => `${((ended - started) / 1000).toFixed(1)} s`;
export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// A button that starts nothing is marked with `aria-disabled` and not `disabled`, so that it keeps the keyboard focus.
export const enable = (button, enabled) => button.setAttribute("aria-disabled", String(!enabled));
export const isEnabled = (button) => button.getAttribute("aria-disabled") !== "true";

// Copies a text; false if the browser does not allow it.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain http from another machine a page has no clipboard API.
    const field = element("textarea", "");
    field.value = text;
    document.body.append(field);
    const before = document.activeElement;
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    before?.focus();
    return copied;
  }
}

// Calls `show(share)` in every frame until it returns true, with the share of the waiting steps that are due. So the order of a
// fast model can be seen, and a long run does not lag behind.
export function everyFrame(show) {
  let before = performance.now();
  return new Promise((resolve) => {
    const frame = () => {
      const now = performance.now();
      const share = document.hidden ? 1 : Math.min(1, (now - before) / 300);
      before = now;
      if (show(share, now)) return resolve();
      if (document.hidden) setTimeout(frame, 200); // a hidden page gets no frames
      else requestAnimationFrame(frame);
    };
    frame();
  });
}

// Requests

let key = session.get("key"); // kept until the tab is closed

// An error response; its message as a sentence.
export class ServerError extends Error {
  constructor(said, status, param) {
    const message = inPageWords(said);
    super(`${message.charAt(0).toUpperCase()}${message.slice(1)}`.replace(/[^.!?]$/, "$&."));
    this.status = status;
    this.param = param; // the field of the request that is wrong
  }
}

export async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const { error } = (await response.json().catch(() => null)) ?? {};
  const message = error?.message ?? `the server answered with status ${response.status}`;
  const wait = response.headers.get("Retry-After");
  const later = /^\d+$/.test(wait) ? `; try again in ${count(Number(wait), "second")}` : "";
  throw new ServerError(message.replace(/\.$/, "") + later, response.status, error?.param);
}

// The events of the answer to a posted body: { name, data }.
export async function* post(path, body, signal) {
  const response = await call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const event of events(response.body)) {
    const { error } = event.data;
    if (error) throw new ServerError(error.message, undefined, error.param);
    yield event;
  }
}

// Server-sent events. A chunk may end anywhere, also within a character.
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let name = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A carriage return at the end of a chunk may be the first half of a line break.
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?=[^])/);
      rest = lines.pop();
      for (const line of lines) {
        const [, field, text] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
        if (field === "event") name = text;
        if (field === "data") data.push(text);
        if (line) continue;
        const joined = data.join("\n");
        if (data.length && joined !== "[DONE]") yield { name, data: JSON.parse(joined) };
        name = "";
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// An error as a sentence for `complain`. If a key is missing, the page asks for one and then calls `again`.
export function showError(error, complain, again) {
  if (!(error instanceof ServerError)) return complain("The server cannot be reached.");
  if (error.status !== 401) return complain(error.message);
  if (key) complain("The server does not accept this key.");
  key = null;
  session.set("key", null);
  $("key-form").hidden = false;
  $("key").focus();
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    key = $("key").value;
    session.set("key", key);
    event.target.reset();
    event.target.hidden = true;
    complain("");
    again();
  };
}
