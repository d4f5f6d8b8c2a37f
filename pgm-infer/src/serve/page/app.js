// The page of `pgm-infer serve`: waits for the models, offers them, and shows the part for the chosen one: texts with blanks
// (blanks.js) or pictures (pictures.js). What answers is behind backend.js. Addresses are relative, so that the page also works
// behind a proxy that adds a prefix.

import { connect } from "./backend.js";
import * as blanks from "./blanks.js";
import { $, chosenModel, isPictureModel, kept, models, put } from "./common.js";
import * as pictures from "./pictures.js";
import { KINDS, TITLES } from "./texts.js";

let part = null; // the visible one

function showPart(next) {
  if (part === next) return;
  part?.stop();
  part = next;
  $("blanks").hidden = part !== blanks;
  $("pictures").hidden = part !== pictures;
  const { title, text } = TITLES[part === pictures ? "pictures" : "blanks"];
  document.title = title;
  put("title", title);
  put("title-text", text);
  kept.set("part", part === pictures ? "pictures" : "blanks");
}

function showModel() {
  const model = chosenModel();
  if (!model) return;
  showPart(isPictureModel(model) ? pictures : blanks);
  const kind = KINDS[model.kind] ?? model.kind;
  const article = /^[aeiou]/.test(kind) ? "an" : "a";
  const name = models.length < 2 ? `${model.id}: ${article}` : article.replace("a", "A");
  put("model-note", `${name} ${kind} model, ${part.about(model)}`);
  part.show();
}

// Offers the models, and shows the one called `id`, or else that of before.
function list(found, id) {
  models.splice(0, models.length, ...found);
  $("model").replaceChildren(...models.map((model) => new Option(model.id, model.id)));
  const chosen = id ?? kept.get("model") ?? kept.get("settings")?.model;
  if (models.some((model) => model.id === chosen)) $("model").value = chosen;
  $("model-field").hidden = models.length < 2;
  showModel();
  for (const each of [blanks, pictures]) each.say("Ready.");
}

$("model").addEventListener("input", () => {
  kept.set("model", $("model").value);
  showModel();
});
document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.defaultPrevented) return;
  if (event.key === "Escape") part.stop();
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  part.generate();
});

showPart(kept.get("part") === "pictures" ? pictures : blanks);
connect({ list, say: (text) => part.say(text), complain: (text) => part.complain(text) });
