// Texts with blanks: sends one to `infill` and shows every sampling step.

import { WAITING, post, showError } from "./backend.js";
import {
  $, RequestError, chooseModel, chosenModel, copy, count, duration, element, enable, everyFrame, kept, models, newSeed, put, session,
} from "./common.js";
import { EXAMPLES, MODELS_ORDER, ORDERS } from "./texts.js";

const NUMBERS = ["steps", "temperature", "top-p", "top-k"];
const FIELDS = ["model", "order", "seed", ...NUMBERS];
const FADE = 1200; // ms, as in style.css

let current = null; // the running request
let modelsOrder = ""; // the order of a request that names none
let shown = null; // the displayed result: { segments, seed, letters }
let past = session.get("history") ?? [];

// Messages

export const say = (text) => put("status", text);
export const complain = (text) => put("error", text);

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
  if (!$("order-field").hidden && fields.order) asked.order = fields.order;
  return asked;
}

// Shows the fields of the chosen model.
export function show() {
  const model = chosenModel();
  const continues = model?.kind === "autoregressive";
  $("order-field").hidden = continues;
  for (const id of NUMBERS) $(id).placeholder = model?.defaults?.[id.replace("-", "_")] ?? "";
  modelsOrder = model?.defaults?.order ?? "";
  $("order").options[0].text = modelsOrder ? `${MODELS_ORDER}: ${modelsOrder}` : MODELS_ORDER;
  fieldsChanged();
  ready();
}

// What the page says about a model of texts.
export const about = (model) => `${model.context_length} tokens in all.` +
  `${model.kind === "autoregressive" ? " It only continues a text." : ""}`;

function fieldsChanged() {
  put("order-note", ORDERS[$("order").value || modelsOrder] ?? "");
  $("seed").setCustomValidity(Number($("seed").value) > Number.MAX_SAFE_INTEGER ? $("seed").title : "");
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
function display(segments, seed, letters = []) {
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

// Shows steps as they arrive. Resolves when the run has ended and all steps were shown.
const play = (run) => everyFrame((due, now) => {
  if (current !== run) return true;
  const share = run.abort.signal.aborted ? 1 : due;
  const steps = run.queue.splice(0, Math.ceil(run.queue.length * share));
  for (const step of steps) {
    run.letters = aged(run.letters, step.segments, now);
    run.tokens += step.decoded.length - (step.forgotten?.length ?? 0);
    run.evaluations += Number(step.decoded.length > 0);
    run.last = step;
  }
  if (steps.length) {
    display(run.last.segments, run.last.seed, run.letters);
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
  return run.ended && !run.queue.length;
});

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

function ready() {
  for (const id of ["generate", "again"]) enable($(id), !current && models.length);
  enable($("stop"), current);
  $("result").setAttribute("aria-busy", String(!!current));
}

export async function generate(wantedSeed) {
  if (current || !models.length || !$("form").reportValidity()) return;
  const text = $("text").value;
  const fields = readFields();
  const seed = wantedSeed ?? (fields.seed === "" ? newSeed() : Number(fields.seed));
  const run = { abort: new AbortController(), row: [], queue: [], letters: [], tokens: 0, evaluations: 0 };
  run.started = performance.now();
  current = run;
  ready();
  complain("");
  say(WAITING);
  put("progress", "");
  $("bar").value = 0;
  $("result").scrollIntoView({ block: "nearest" });

  const played = play(run);
  let error;
  try {
    for await (const { name, data } of post("infill", body(text, fields, seed), run.abort.signal)) {
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
    display(segments, answer.seed, aged(run.letters, segments));
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
    if (run.first && !(error instanceof RequestError)) complain(`The stream broke off ${where}; the text so far is kept.`);
    else showError(error, complain, () => generate(wantedSeed));
  }
  // Where animations are off, this removes the colour of the newest tokens.
  const settled = shown;
  setTimeout(() => {
    if (shown && shown === settled) display(shown.segments, shown.seed);
  }, FADE);
}

export const stop = () => current?.abort.abort();

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
      chooseModel(entry.fields.model);
      writeFields(entry.fields);
      fieldsChanged();
      display(entry.segments, entry.seed);
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

async function copyAndSay(text, what) {
  if (await copy(text)) say(`The ${what} was copied.`);
  else complain(`The browser does not allow copying the ${what}.`);
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
$("order").replaceChildren(new Option(MODELS_ORDER, ""), ...Object.keys(ORDERS).map((name) => new Option(name, name)));
const typed = kept.get("text");
if (typeof typed === "string") $("text").value = typed;
$("text").addEventListener("input", keepText);
writeFields(kept.get("settings") ?? {});
fieldsChanged();
showHistory();

$("settings").addEventListener("input", () => {
  fieldsChanged();
  kept.set("settings", readFields());
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("stop").addEventListener("click", stop);
$("again").addEventListener("click", () => { if (shown) generate(shown.seed); });
$("copy-seed").addEventListener("click", () => { if (shown) copyAndSay(String(shown.seed), "seed"); });
$("copy-text").addEventListener("click", () => { if (shown) copyAndSay(joined(shown.segments), "text"); });
