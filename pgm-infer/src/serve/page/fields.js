// The settings of pictures, and errors beside the field that they are about.

import { showError } from "./backend.js";
import { $, element, kept, newSeed, put } from "./common.js";
import { MODELS_ORDER, PICTURE_ORDERS } from "./texts.js";

// Fields of the page and what a request calls them.
const NUMBERS = { "picture-steps": "steps", "picture-temperature": "temperature", "picture-cfg": "cfg" };
const FIELDS = ["picture-order", "picture-seed", ...Object.keys(NUMBERS)];

let modelsOrder = ""; // which one it is

export const readFields = () => Object.fromEntries(FIELDS.map((id) => [id, $(id).value]));

export function writeFields(values) {
  for (const id of FIELDS) {
    const field = $(id);
    const value = values[id] ?? "";
    if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value)) field.value = value;
  }
  fieldsChanged();
}

// The settings of a request. An empty field is left out, and so is guidance without a class to guide to.
export function settings(hasClass) {
  const asked = {};
  for (const [id, name] of Object.entries(NUMBERS)) {
    if ($(id).value !== "" && (name !== "cfg" || hasClass)) asked[name] = Number($(id).value);
  }
  if ($("picture-order").value) asked.order = $("picture-order").value;
  return asked;
}

export const seedOf = (field) => (field.value === "" ? newSeed() : Number(field.value));

// Shows what an empty field means.
export function showDefaults({ defaults, n_classes: nClasses }) {
  for (const [id, name] of Object.entries(NUMBERS)) $(id).placeholder = defaults?.[name] ?? (name === "cfg" ? 0 : "");
  $("cfg-field").hidden = !nClasses;
  modelsOrder = defaults?.order ?? "";
  $("picture-order").options[0].text = modelsOrder ? `${MODELS_ORDER}: ${modelsOrder}` : MODELS_ORDER;
  fieldsChanged();
}

function fieldsChanged() {
  put("picture-order-note", PICTURE_ORDERS[$("picture-order").value || modelsOrder] ?? "");
  const seed = $("picture-seed");
  seed.setCustomValidity(Number(seed.value) > Number.MAX_SAFE_INTEGER ? seed.title : "");
}

// Errors

const SETTINGS_OF = { ...Object.fromEntries(Object.entries(NUMBERS).map(([id, name]) => [name, id])), order: "picture-order" };

export function clearErrors() {
  for (const note of document.querySelectorAll(".error.placed")) {
    const field = $(note.dataset.of);
    field.removeAttribute("aria-invalid");
    if (note.dataset.before) field.setAttribute("aria-describedby", note.dataset.before);
    else field.removeAttribute("aria-describedby");
    note.remove();
  }
  for (const id of ["draw-error", "refill-error", "edit-error"]) put(id, "");
}

// Says what is wrong with a field beside it, and goes there.
function complainAt(field, message) {
  const note = element("p", "error placed");
  note.id = `${field.id}-wrong`;
  note.role = "alert";
  note.dataset.of = field.id;
  note.dataset.before = field.getAttribute("aria-describedby") ?? "";
  if (field.tagName === "FIELDSET") field.append(note);
  else field.after(note);
  note.textContent = message;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${note.id} ${note.dataset.before}`.trim());
  const control = field.matches("fieldset") ? field.querySelector("input:not([hidden])") : field;
  control?.focus();
  note.scrollIntoView({ block: "nearest" });
}

// Shows an error: beside its field if the page has it, else in the element `general`. `places` names further fields of the request.
export function explain(error, general, places, again) {
  const id = { ...SETTINGS_OF, seed: "picture-seed", ...places }[error?.param?.replace(/[.[].*/, "")];
  const field = id && $(id);
  showError(error, (message) => {
    if (field && !field.closest("[hidden]")) complainAt(field, message);
    else put(general, message);
  }, again);
}

$("picture-order").replaceChildren(
  new Option(MODELS_ORDER, ""),
  ...Object.keys(PICTURE_ORDERS).map((name) => new Option(name, name)),
);
writeFields(kept.get("picture-settings") ?? {});
$("picture-settings").addEventListener("input", () => {
  fieldsChanged();
  kept.set("picture-settings", readFields());
});
