// Grids of pictures, and the run that fills one from the server's events. There is one run at a time.

import { post } from "./backend.js";
import { $, RequestError, chosenModel, count, duration, element, enable, everyFrame, isEnabled, models } from "./common.js";

const SMALL = 128; // pixels; a picture that is smaller is shown with sharp pixels
const AT_ONCE = 64; // pictures of a request, as many as the server draws at once
// Partial pictures of each of n: one a step where n is small. The codec decodes each, which takes longer than a step.
const partialOf = (steps, size, n) => Math.min(steps, Math.max(3, Math.floor((Math.max(...size) < SMALL ? 256 : 16) / n)));

let current = null; // the running request
let changed = () => {}; // is called when a run begins or ends

export const isRunning = () => current !== null;
export const stop = () => current?.abort.abort();
// Stops what fills a list.
export const stopIn = (list) => { if (current?.list === list) stop(); };
export const whenRunsChange = (call) => { changed = call; };

export const pngUrl = (b64) => `data:image/png;base64,${b64}`;

// A file of the browser's download folder.
export function save(blob, name) {
  const link = element("a", "");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const blobOf = (b64) => new Blob([Uint8Array.from(atob(b64), (letter) => letter.charCodeAt(0))], { type: "image/png" });

// What a file of this picture is called.
export const fileName = (...parts) => `${parts.filter((part) => part !== "").join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_")}.png`;

export function showImage(image, [width, height], b64) {
  image.width = width;
  image.height = height;
  image.classList.toggle("pixelated", Math.max(width, height) < SMALL);
  if (b64) image.src = pngUrl(b64);
}

// An item of a grid. `choose(tile)` is called when a finished picture is chosen; `what` says what that does.
function newTile(caption, number, size, { what, choose }) {
  const tile = { item: element("li", ""), button: element("button", ""), image: element("img", ""), caption, number, what };
  tile.model = chosenModel().id;
  tile.button.type = "button";
  tile.image.alt = "";
  showImage(tile.image, size);
  tile.button.append(tile.image);
  tile.item.append(tile.button);
  const line = element("div", "row");
  const name = element("span", "caption", caption);
  name.title = caption;
  line.append(name);
  tile.link = element("a", "", "PNG");
  tile.link.hidden = true;
  tile.link.addEventListener("click", (event) => {
    event.preventDefault();
    save(blobOf(tile.b64), tile.link.download);
  });
  line.append(tile.link);
  tile.item.append(line);
  tile.button.addEventListener("click", () => { if (isEnabled(tile.button)) choose(tile); });
  label(tile, "not drawn yet");
  return tile;
}

function label(tile, state) {
  const named = tile.caption ? `picture ${tile.number} (${tile.caption})` : `picture ${tile.number}`;
  tile.button.setAttribute("aria-label", tile.done ? `${tile.what} ${named}` : `${named}, ${state}`);
  enable(tile.button, tile.done);
}

function finish(tile, { b64, seed }) {
  Object.assign(tile, { b64, seed, done: true });
  tile.image.src = pngUrl(b64);
  tile.button.title = `${tile.what} · seed ${seed}`;
  tile.link.href = pngUrl(b64);
  tile.link.download = fileName(tile.model, tile.caption, `seed-${seed}`);
  tile.link.setAttribute("aria-label", `Save picture ${tile.number} as PNG`);
  tile.link.hidden = false;
  label(tile);
}

function prepare(list, captions, size, on) {
  list.style.setProperty("--tile", Math.max(...size) < SMALL ? "5.5rem" : "9rem");
  const tiles = captions.map((caption, i) => newTile(caption, i + 1, size, on));
  list.replaceChildren(...tiles.map(({ item }) => item));
  return tiles;
}

// Shows finished pictures: { b64, seed, caption }.
export function showPictures(list, pictures, size, on) {
  const tiles = prepare(list, pictures.map(({ caption }) => caption), size, on);
  pictures.forEach((picture, i) => finish(tiles[i], picture));
}

// Whether a run's tiles are still in their list: another picture or model may have taken their place.
const isShown = (run) => run.list.contains(run.tiles[0].item);

// Shows what has arrived. Resolves when the run has ended and all was shown.
const play = (run, watch) => everyFrame((due) => {
  const share = run.abort.signal.aborted ? 1 : due;
  for (const { data, number, finished } of run.queue.splice(0, Math.ceil(run.queue.length * share))) {
    const tile = run.tiles[number];
    if (finished) {
      finish(tile, { b64: data.b64_json, seed: data.seed });
    } else {
      tile.part = data.step / data.n_steps;
      tile.image.src = pngUrl(data.b64_json);
      label(tile, `step ${data.step} of ${data.n_steps}`);
    }
  }
  const nDone = run.tiles.filter(({ done }) => done).length;
  const parts = run.tiles.map(({ done, part }) => (done ? 1 : part ?? 0));
  watch.bar.value = parts.reduce((sum, part) => sum + part, 0) / parts.length;
  if (run.first && isShown(run)) watch.progress(`${nDone} of ${count(run.tiles.length, "picture")} · ${duration(run)}`);
  return run.ended && !run.queue.length;
});

// Fills a grid: posts `asked`, shows the events that are called `event`, and returns the run with its tiles and how it ended.
// More pictures than the server draws at once are several requests; picture i has the seed + i all the same.
export async function fill(list, { path, event, asked, captions }, on, watch) {
  const { size, defaults } = chosenModel();
  const earlier = [...list.children];
  const run = { list, abort: new AbortController(), queue: [], tiles: prepare(list, captions, size, on), started: performance.now() };
  const nPartial = partialOf(asked.steps ?? defaults?.steps ?? 32, size, Math.min(captions.length, AT_ONCE));
  current = run;
  changed();
  watch.bar.value = 0;
  watch.bar.max = 1;
  list.setAttribute("aria-busy", "true");
  list.firstElementChild.scrollIntoView({ block: "nearest" }); // the whole list could push the buttons away
  const played = play(run, watch);
  let arrived = 0;
  try {
    for (let first = 0; first < captions.length; first += AT_ONCE) {
      const n = Math.min(AT_ONCE, captions.length - first);
      const body = { ...asked, n, seed: asked.seed + first, stream: true, partial_images: nPartial };
      if (Array.isArray(asked.class)) body.class = asked.class.slice(first, first + n);
      for await (const { name, data } of post(path, body, run.abort.signal)) {
        const finished = name === `${event}.completed`;
        if (!finished && name !== `${event}.partial_image`) continue;
        run.first ??= performance.now();
        run.queue.push({ data, number: first + data.index, finished });
        arrived += Number(finished);
        if (arrived === first + n) break;
      }
      if (arrived < first + n) break;
    }
  } catch (thrown) {
    run.error = thrown;
  }
  run.ended = performance.now();
  await played;
  current = null;
  list.setAttribute("aria-busy", "false");
  run.dropped = !isShown(run);
  if (run.first === undefined && !run.dropped) list.replaceChildren(...earlier); // nothing came, so nothing is lost
  for (const tile of run.tiles) if (!tile.done) label(tile, "not finished");
  run.complete = arrived === captions.length;
  run.stopped = !run.complete && run.abort.signal.aborted;
  // A stream that ended early, without a word of the server.
  run.broke = !run.complete && !run.stopped && run.first !== undefined && !(run.error instanceof RequestError);
  changed();
  return run;
}

export const classNames = ({ classes, n_classes: n }) => (classes?.length ? classes : Array.from({ length: n ?? 0 }, (_, i) => `${i}`));
export const sizeOf = (id) => models.find((model) => model.id === id)?.size;
