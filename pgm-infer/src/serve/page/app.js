// The page of `pgm-infer serve`: it sends a text with blanks to `infill` and shows every sampling step.
// Addresses are relative, so that the page also works behind a proxy that adds a prefix.

import { EXAMPLES, ORDERS, inPageWords } from "./texts.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["steps", "temperature", "top-p", "top-k"];
const FIELDS = ["model", "order", "seed", ...NUMBERS];
const FADE = 1200; // ms, as in style.css

// The browser may forbid storage, or it may be full; the page works without it.
const storage = (kind) => ({
  get(name) {
    try { return JSON.parse(window[kind].getItem(`pgm-${name}`)); } catch { return null; }
  },
  set(name, value) {
    try { window[kind].setItem(`pgm-${name}`, JSON.stringify(value)); } catch { /* see above */ }
  },
});
const kept = storage("localStorage");
const session = storage("sessionStorage");

let key = session.get("key"); // kept until the tab is closed
let models = [];
let current = null; // the running request
let shown = null; // the displayed result: { segments, seed, letters }
let past = session.get("history") ?? [];

// Messages

const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const say = (text) => put("status", text);
const complain = (text) => put("error", text);
const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const duration = ({ started, ended = performance.now() }) => `${((ended - started) / 1000).toFixed(1)} s`;

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// Requests

// An error response; its message as a sentence.
class ServerError extends Error {
  constructor(said, status) {
    const message = inPageWords(said);
    super(`${message.charAt(0).toUpperCase()}${message.slice(1)}`.replace(/[^.!?]$/, "$&."));
    this.status = status;
  }
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `the server answered with status ${response.status}`;
  const wait = response.headers.get("Retry-After");
  const later = /^\d+$/.test(wait) ? `; try again in ${count(Number(wait), "second")}` : "";
  throw new ServerError(message.replace(/\.$/, "") + later, response.status);
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
        if (data.length) yield { name, data: JSON.parse(data.join("\n")) };
        name = "";
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Waits until the models are loaded, then lists them.
async function connect() {
  for (;;) {
    try {
      const health = await fetch("health", { cache: "no-store" });
      const { status } = await health.json();
      if (health.ok || status === "failing") break;
      say(status === "stopping" ? "The server is stopping." : "The model is loading…");
    } catch {
      say("The server cannot be reached; trying again…");
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  try {
    models = (await (await call("v1/models")).json()).data;
  } catch (error) {
    say("");
    return showError(error, connect);
  }
  $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  const { model } = kept.get("settings") ?? {};
  if (models.some(({ id }) => id === model)) $("model").value = model;
  $("model-field").hidden = models.length < 2;
  showModel();
  ready();
  say("Ready.");
}

// Shows an error. If a key is missing, the page asks for one and then calls `again`.
function showError(error, again) {
  if (error.status !== 401) return complain(error instanceof ServerError ? error.message : "The server cannot be reached.");
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

// Settings

const readFields = () => Object.fromEntries(FIELDS.map((id) => [id, $(id).value]));

function writeFields(values) {
  for (const id of FIELDS) {
    const field = $(id);
    const value = values[id] ?? "";
    if (field.tagName !== "SELECT") field.value = value;
    else if ([...field.options].some((option) => option.value === value)) field.value = value;
  }
}

// A text without a blank gets one at its end, so that the server continues it.
function withBlank(text) {
  const found = text.match(/\\[{_\\]|\{\*\}|\{\d+\}|___/g) ?? [];
  if (found.some((part) => part[0] !== "\\")) return text;
  const lone = /\\*$/.exec(text)[0].length % 2; // otherwise a last backslash would escape the brace
  return `${text}${lone ? "\\" : ""}{*}`;
}

function body(text, fields, seed) {
  const asked = { template: withBlank(text), blank: 8, seed, stream: true, stream_options: { denoise: true } };
  if (fields.model) asked.model = fields.model;
  for (const id of NUMBERS) {
    if (fields[id] !== "") asked[id.replace("-", "_")] = Number(fields[id]);
  }
  if (!$("order-field").hidden) asked.order = fields.order;
  return JSON.stringify(asked);
}

function showModel() {
  const model = models.find(({ id }) => id === $("model").value);
  if (!model) return;
  const continues = model.kind === "autoregressive";
  $("order-field").hidden = continues;
  put("model-note", `${models.length < 2 ? `${model.id}: a` : "A"}${continues ? "n" : ""} ${model.kind} model, ` +
    `${model.context_length} tokens in all.${continues ? " It only continues a text." : ""}`);
  for (const id of NUMBERS) $(id).placeholder = model.defaults?.[id.replace("-", "_")] ?? "";
}

function fieldsChanged() {
  put("order-note", ORDERS[$("order").value]);
  $("seed").setCustomValidity(Number($("seed").value) > Number.MAX_SAFE_INTEGER ? $("seed").title : "");
  showModel();
}

// The result

// The time when each generated character was decoded. A step adds and removes characters, so the old list is matched with
// the new one from left to right. Tokens cannot be matched: several may share a character.
function aged(old, segments, now) {
  const letters = [];
  let at = 0;
  for (const { kind, text } of segments) {
    if (kind !== "decoded" && kind !== "new") continue;
    for (const letter of text) {
      let born = now;
      if (kind === "decoded") {
        while (at < old.length && old[at].letter !== letter) at += 1; // masked again
        born = old[at]?.born ?? -Infinity;
        at += 1;
      }
      letters.push({ letter, born });
    }
  }
  return letters;
}

function cells(n) {
  const open = element("span", "open");
  open.setAttribute("role", "img");
  open.setAttribute("aria-label", count(n, "open token"));
  for (let i = 0; i < n; i += 1) open.append(element("span", "cell"));
  return open;
}

function made(text, age) {
  const fresh = age < FADE;
  const span = element("span", fresh ? "made fresh" : "made", text);
  if (fresh) span.style.animationDelay = `${-age}ms`; // the fading continues
  return span;
}

// Rebuilds the result each time: a text is short, and there is at most one update per frame. Letters without a time are old.
function show(segments, seed, letters = []) {
  shown = { segments, seed, letters };
  const now = performance.now();
  const nodes = [];
  let at = 0;
  for (const { kind, text, n } of segments) {
    if (kind === "open") nodes.push(cells(n));
    else if (kind === "given") nodes.push(element("span", "given", text));
    else {
      const runs = []; // letters that were decoded together
      for (const letter of text) {
        const born = letters[at]?.born ?? -Infinity;
        at += 1;
        if (runs.at(-1)?.born !== born) runs.push({ born, text: "" });
        runs.at(-1).text += letter;
      }
      nodes.push(...runs.map((run) => made(run.text, now - run.born)));
    }
  }
  $("result").replaceChildren(...nodes);
  put("seed-used", String(seed));
  $("tools").hidden = false;
}

const joined = (segments) => segments.map(({ kind, text, n }) => (kind === "open" ? `{${n}}` : text)).join("");

// Shows steps as they arrive. Each frame shows a share of the steps that wait, so that the order of a fast model can be seen
// and a long run does not lag behind. Resolves when the run has ended and all steps were shown.
function play(run) {
  let before = performance.now();
  return new Promise((resolve) => {
    const frame = () => {
      if (current !== run) return resolve();
      const now = performance.now();
      const share = document.hidden || run.abort.signal.aborted ? 1 : Math.min(1, (now - before) / 300);
      before = now;
      const due = run.queue.splice(0, Math.ceil(run.queue.length * share));
      for (const step of due) {
        run.letters = aged(run.letters, step.segments, now);
        run.tokens += step.decoded.length - (step.forgotten?.length ?? 0);
        run.evaluations += Number(step.decoded.length > 0);
        run.last = step;
      }
      if (due.length) {
        show(run.last.segments, run.last.seed, run.letters);
        $("bar").max = run.last.n_steps;
        $("bar").value = run.last.step;
        say("Filling…");
      }
      if (run.last) {
        const { step, n_steps, at } = run.last;
        const time = at - run.first.at; // a rate needs some time
        const rate = time > 50 ? ` · ${Math.round((1000 * run.tokens) / time)} tokens/s` : "";
        put("progress", `Step ${step} of ${n_steps}${rate} · ${duration(run)}`);
      }
      if (run.ended && !run.queue.length) return resolve();
      if (document.hidden) setTimeout(frame, 200); // a hidden page gets no frames
      else requestAnimationFrame(frame);
    };
    frame();
  });
}

// Applies a step to a row of cells { kind, text }, and returns the row in segments. The first step tells the whole row, later
// ones their changes by positions.
function applied(row, step) {
  for (const { kind, text, n } of step.segments ?? []) {
    for (let i = 0; i < n; i += 1) row.push({ kind, text: i ? "" : text ?? "" });
  }
  for (const cell of row) if (cell.kind === "new") cell.kind = "decoded";
  for (const position of step.forgotten ?? []) row[position] = { kind: "open", text: "" };
  for (const { position, text } of step.decoded) row[position] = { kind: "new", text };
  for (const { position, text } of step.changed ?? []) row[position].text = text;
  const segments = [];
  for (const { kind, text } of row) {
    if (segments.at(-1)?.kind !== kind) segments.push(kind === "open" ? { kind, n: 0 } : { kind, text: "" });
    if (kind === "open") segments.at(-1).n += 1;
    else segments.at(-1).text += text;
  }
  return segments.filter((segment) => segment.kind === "open" || segment.text);
}

// The finished text in given and generated parts: from the answer's blanks, or from the last step, whichever joins to exactly
// the text. A step may end within a character of several tokens.
function finished({ answer, first, last }) {
  const blanks = [...(answer.blanks ?? [])];
  const filled = first?.segments.map((part) =>
    part.kind === "open" ? { kind: "decoded", text: blanks.shift() ?? "" } : part);
  const played = last?.segments.map((part) => (part.kind === "new" ? { kind: "decoded", text: part.text } : part));
  return [filled, played].find((segments) => segments && joined(segments) === answer.text)
    ?? [{ kind: "decoded", text: answer.text }];
}

// Running

// `aria-disabled` and not `disabled`, so that a button keeps the keyboard focus.
function ready() {
  for (const id of ["generate", "again"]) $(id).setAttribute("aria-disabled", String(!!current || !models.length));
  $("stop").setAttribute("aria-disabled", String(!current));
  $("result").setAttribute("aria-busy", String(!!current));
}

async function generate(wantedSeed) {
  if (current || !models.length || !$("form").reportValidity()) return;
  const text = $("text").value;
  const fields = readFields();
  const seed = wantedSeed ?? (fields.seed === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(fields.seed));
  const run = { abort: new AbortController(), row: [], queue: [], letters: [], tokens: 0, evaluations: 0 };
  run.started = performance.now();
  current = run;
  ready();
  complain("");
  say("Waiting for the server…");
  put("progress", "");
  $("bar").value = 0;
  $("result").scrollIntoView({ block: "nearest" });

  const played = play(run);
  let error;
  try {
    const response = await call("infill", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: body(text, fields, seed),
      signal: run.abort.signal,
    });
    for await (const { name, data } of events(response.body)) {
      if (data.error) throw new ServerError(data.error.message);
      if (name === "denoise") {
        const step = { ...data, segments: applied(run.row, data), at: performance.now() };
        run.first ??= step;
        run.queue.push(step);
      } else if (data.stop) {
        run.answer = data;
        break;
      }
    }
  } catch (thrown) {
    error = thrown;
  }
  run.ended = performance.now();
  await played;
  if (current !== run) return; // another result is displayed by now
  current = null;
  ready();

  const { answer, last } = run;
  const where = last ? `at step ${last.step} of ${last.n_steps}` : "before the first step";
  if (answer) {
    const segments = finished(run);
    show(segments, answer.seed, aged(run.letters, segments));
    const speed = answer.timings?.predicted_per_second;
    $("bar").value = $("bar").max;
    put("progress", `${count(answer.steps, "step")} · ${count(run.evaluations, "evaluation")} · ` +
      `${count(answer.tokens_predicted, "token")}` +
      `${speed ? ` · ${Math.round(speed)} tokens/s` : ""} · ${duration(run)}`);
    say("Done.");
    remember({ text, fields, segments, seed: answer.seed, steps: answer.steps });
  } else if (run.abort.signal.aborted) {
    say(`Stopped ${where}.`);
  } else {
    say("");
    if (error instanceof ServerError) showError(error, () => generate(wantedSeed));
    else if (run.first) complain(`The stream broke off ${where}; the text so far is kept.`);
    else complain("The server cannot be reached.");
  }
  // Where animations are off, this removes the colour of the newest tokens.
  const settled = shown;
  setTimeout(() => {
    if (shown && shown === settled) show(shown.segments, shown.seed);
  }, FADE);
}

const stop = () => current?.abort.abort();

// Earlier results

function remember(entry) {
  past = [entry, ...past].slice(0, 12);
  session.set("history", past);
  showHistory();
}

function showHistory() {
  $("history-note").hidden = past.length > 0;
  $("history").replaceChildren(...past.map((entry) => {
    const button = element("button", "");
    button.type = "button";
    button.title = "Show this result, with its text and settings";
    button.append(
      element("span", "past", joined(entry.segments).trim().replace(/\s+/g, " ").slice(0, 80) || "(nothing)"),
      element("span", "note", `seed ${entry.seed} · ${count(entry.steps, "step")}`),
    );
    button.addEventListener("click", () => {
      stop();
      current = null;
      ready();
      $("text").value = entry.text;
      keepText();
      writeFields(entry.fields);
      fieldsChanged();
      show(entry.segments, entry.seed);
      put("progress", count(entry.steps, "step"));
      complain("");
      say("An earlier result.");
    });
    const item = element("li", "");
    item.append(button);
    return item;
  }));
}

// Events

// The text is kept over a reload, as the settings are.
const keepText = () => kept.set("text", $("text").value);

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
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
    if (!copied) return complain(`The browser does not allow copying the ${what}.`);
  }
  say(`The ${what} was copied.`);
}

// As an editing command, so that it can be undone.
function insert(text, all = false) {
  $("text").focus();
  if (all) $("text").select();
  document.execCommand("insertText", false, text);
}

for (const [name, text] of Object.entries(EXAMPLES)) {
  const button = element("button", "small", name);
  button.type = "button";
  button.addEventListener("click", () => insert(text, true));
  $("examples").append(button);
}
for (const button of document.querySelectorAll("[data-insert]")) {
  button.addEventListener("click", () => insert(button.dataset.insert));
}
$("order").replaceChildren(...Object.keys(ORDERS).map((name) => new Option(name, name)));
const typed = kept.get("text");
if (typeof typed === "string") $("text").value = typed;
$("text").addEventListener("input", keepText);
writeFields(kept.get("settings") ?? {});
fieldsChanged();
showHistory();

$("settings").addEventListener("input", () => {
  fieldsChanged();
  if (models.length) kept.set("settings", readFields());
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("stop").addEventListener("click", stop);
$("again").addEventListener("click", () => { if (shown) generate(shown.seed); });
$("copy-seed").addEventListener("click", () => { if (shown) copy(String(shown.seed), "seed"); });
$("copy-text").addEventListener("click", () => { if (shown) copy(joined(shown.segments), "text"); });
document.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Escape") stop();
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  generate();
});

connect();
