// Pictures: draws some of each chosen class and shows them while they fill.

import {
  $, chooseModel, chosenModel, copy, count, duration, element, enable, isEnabled, kept, models, put, session,
} from "./common.js";
import * as edit from "./edit.js";
import { clearErrors, explain, readFields, seedOf, settings, showDefaults, writeFields } from "./fields.js";
import * as tiles from "./tiles.js";

const MANY = 30; // classes, from which on they can be filtered
const FIELDS_OF = { n: "per-class", class: "classes-field" };

let chosen = new Set(); // indices of classes
let names = []; // of the classes of the model
let last = null; // the pictures shown: { model, classes, each, fields, seed, pictures }
let past = session.get("pictures") ?? [];

export const say = (text) => put("draw-status", text);
export const complain = (text) => put("draw-error", text);
export const { stop } = tiles;

export const about = ({ size: [width, height], grid: [rows, columns], n_classes: n }) =>
  `${width} × ${height} pixels in ${rows} × ${columns} cells${n ? `, ${n} classes` : ""}.`;

// Classes

function showClasses() {
  const field = $("class-filter");
  const wanted = field.hidden ? "" : field.value.trim().toLowerCase();
  for (const chip of $("classes").children) chip.hidden = !chip.textContent.toLowerCase().includes(wanted);
  put("all-classes", wanted ? "All shown" : "All");
  put("no-classes", wanted ? "None shown" : "None");
}

function classesChanged() {
  for (const chip of $("classes").children) chip.firstChild.checked = chosen.has(Number(chip.firstChild.value));
  const first = [...chosen].slice(0, 5).map((index) => names[index]);
  const more = chosen.size > first.length ? ", …" : "";
  put("classes-note", chosen.size
    ? `${chosen.size} of ${names.length} chosen${names.length > MANY ? `: ${first.join(", ")}${more}` : ""}`
    : "None chosen: pictures of no class in particular");
  put("per-class-label", chosen.size ? "Pictures of each" : "Pictures");
  kept.set("classes", { ...kept.get("classes"), [chosenModel().id]: [...chosen] });
}

function chip(name, index) {
  const label = element("label", "chip");
  const box = element("input", "unseen");
  box.type = "checkbox";
  box.value = index;
  label.title = name;
  label.append(box, element("span", "", name));
  return label;
}

function chooseShown(on) {
  for (const { hidden, firstChild } of $("classes").children) {
    if (hidden) continue;
    if (on) chosen.add(Number(firstChild.value));
    else chosen.delete(Number(firstChild.value));
  }
  chosen = new Set([...chosen].sort((a, b) => a - b));
  classesChanged();
}

// The chosen model

let showing = null; // its id

export function show() {
  const model = chosenModel();
  showDefaults(model);
  if (showing !== model.id) {
    if (showing) {
      stop();
      say("Ready.");
    }
    showing = model.id;
    names = tiles.classNames(model);
    $("classes-field").hidden = !names.length;
    $("class-filter").hidden = names.length <= MANY;
    $("class-filter").value = "";
    $("classes").replaceChildren(...names.map(chip));
    const before = kept.get("classes")?.[model.id];
    const few = names.slice(0, names.length > 10 ? 4 : 10).map((_, index) => index);
    chosen = new Set((before ?? few).filter((index) => index < names.length));
    classesChanged();
    showClasses();
    clearErrors();
    if (last?.model !== model.id) showPictures(null);
    edit.show(model, names);
  }
  ready();
}

function ready() {
  for (const id of ["draw", "draw-again"]) enable($(id), !tiles.isRunning() && models.length);
  enable($("draw-stop"), tiles.isRunning());
  edit.ready();
}

// Drawing

// What choosing a finished picture does.
const opensEditor = (classes) => ({
  what: "Edit",
  choose: (tile) => edit.open(tile.b64, classes[tile.number - 1] ?? null, tile.button),
});

export async function generate(again) {
  if (tiles.isRunning() || !models.length || !$("draw-form").reportValidity()) return;
  const model = chosenModel();
  const entry = again ?? { model: model.id, classes: [...chosen], each: Number($("per-class").value), fields: readFields() };
  const seed = again?.seed ?? seedOf($("picture-seed"));
  const asked = { model: model.id, ...(again?.asked ?? settings(entry.classes.length > 0)), seed };
  const each = (value) => Array(entry.each).fill(value);
  const classes = entry.classes.flatMap(each);
  if (classes.length) asked.class = classes;
  const captions = classes.length ? classes.map((index) => names[index]) : each("");
  clearErrors();
  say("Waiting for the server…");
  put("draw-progress", "");
  $("draw-tools").hidden = true;
  const request = { path: "v1/images/generations", event: "image_generation", asked, captions };
  const run = await tiles.fill($("tiles"), request, opensEditor(classes), {
    bar: $("draw-bar"),
    progress: (text) => { say("Drawing…"); put("draw-progress", text); },
  });
  if (showing !== model.id) return say("Ready."); // another model is chosen by now
  const done = run.tiles.filter((tile) => tile.done);
  if (done.length) {
    const pictures = done.map(({ b64, seed: used, caption, number }) =>
      ({ b64, seed: used, caption, class: classes[number - 1] ?? null }));
    last = { ...entry, asked, seed: done[0] === run.tiles[0] ? done[0].seed : seed, pictures };
    remember(last);
  }
  showTools();
  if (run.complete) {
    const rate = done.length / ((run.ended - run.started) / 1000);
    const steps = asked.steps ?? model.defaults?.steps;
    put("draw-progress", `${count(done.length, "picture")}${steps ? ` · ${count(steps, "step")}` : ""} · ` +
      `${rate.toPrecision(2)} pictures/s · ${duration(run)}`);
    say("Done.");
  } else if (run.stopped) {
    say(`Stopped after ${count(done.length, "finished picture")}.`);
  } else if (run.broke) {
    say("");
    complain("The stream broke off; the pictures so far are kept.");
  } else {
    say("");
    explain(run.error, "draw-error", FIELDS_OF, () => generate(again));
  }
}

function showTools() {
  $("draw-tools").hidden = !last;
  put("draw-seed", String(last?.seed ?? ""));
}

// Shows finished pictures of an earlier run, or none.
function showPictures(entry) {
  last = entry;
  $("draw-bar").value = entry ? 1 : 0;
  $("draw-bar").max = 1;
  put("draw-progress", entry ? count(entry.pictures.length, "picture") : "");
  $("tiles").replaceChildren();
  if (entry) {
    tiles.showPictures($("tiles"), entry.pictures, chosenModel().size, opensEditor(entry.pictures.map((picture) => picture.class)));
  }
  showTools();
}

// Earlier pictures

// As many of the newest as the browser stores.
function remember(entry) {
  past = [entry, ...past].slice(0, 12);
  for (let n = past.length; n > 0 && !session.set("pictures", past.slice(0, n)); n -= 1);
  showPast();
}

function showPast() {
  $("past-note").hidden = past.length > 0;
  $("past").replaceChildren(...past.map((entry) => {
    const button = element("button", "");
    button.type = "button";
    button.title = "Show these pictures, with their classes and settings";
    const strip = element("span", "strip");
    for (const { b64 } of entry.pictures.slice(0, 5)) {
      const image = element("img", "");
      image.alt = "";
      tiles.showImage(image, tiles.sizeOf(entry.model) ?? [36, 36], b64);
      strip.append(image);
    }
    const captions = [...new Set(entry.pictures.map(({ caption }) => caption).filter(Boolean))].join(", ");
    button.append(
      strip,
      ...(captions ? [element("span", "past", captions)] : []),
      element("span", "note", `seed ${entry.seed} · ${count(entry.pictures.length, "picture")}`),
    );
    button.addEventListener("click", () => {
      if (!models.length) return say("The models are not known yet.");
      if (tiles.isRunning()) return say("A run is going on; stop it first.");
      chooseModel(entry.model);
      if (chosenModel().id !== entry.model) return complain(`The server no longer has the model ${entry.model}.`);
      writeFields(entry.fields);
      kept.set("picture-settings", readFields());
      chosen = new Set(entry.classes);
      classesChanged();
      $("per-class").value = entry.each;
      keepNumber();
      clearErrors();
      showPictures(entry);
      say("Earlier pictures.");
    });
    const item = element("li", "");
    item.append(button);
    return item;
  }));
}

// Events

const keepNumber = () => kept.set("per-class", $("per-class").value);

$("per-class").value = kept.get("per-class") ?? 2;
$("per-class").addEventListener("input", keepNumber);
$("classes").addEventListener("change", ({ target }) => {
  if (target.checked) chosen.add(Number(target.value));
  else chosen.delete(Number(target.value));
  chosen = new Set([...chosen].sort((a, b) => a - b));
  classesChanged();
});
$("class-filter").addEventListener("input", showClasses);
$("class-filter").addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
$("all-classes").addEventListener("click", () => chooseShown(true));
$("no-classes").addEventListener("click", () => chooseShown(false));
$("draw-form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("draw-stop").addEventListener("click", stop);
$("draw-again").addEventListener("click", () => { if (last && isEnabled($("draw-again"))) generate(last); });
$("copy-draw-seed").addEventListener("click", async () => {
  if (!last) return;
  if (await copy(String(last.seed))) say("The seed was copied.");
  else complain("The browser does not allow copying the seed.");
});
tiles.whenRunsChange(ready);
showPast();
