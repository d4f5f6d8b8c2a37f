// What every part of the page uses: elements, storage, the models, and errors.

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

// Errors

// Why a request is refused or has failed, as a sentence.
export class RequestError extends Error {
  constructor(said, status, param) {
    const message = inPageWords(said);
    const isFile = /^\S+\.\w/.test(message); // a name stays as it is
    super(`${isFile ? message[0] : message.charAt(0).toUpperCase()}${message.slice(1)}`.replace(/[^.!?]$/, "$&."));
    this.status = status;
    this.param = param; // the field of the request that is wrong
  }
}
