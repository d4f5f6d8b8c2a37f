// A model in this page in place of a server: the exports of the server's backend.js, over a worker that has the model.

import { RequestError } from "./common.js";
import { offer, restore } from "./local.js";
import { ask } from "./worker_calls.js";

export const WAITING = "The first step is computed…";

// Offers the bundled model and those that are opened; `page` as in the server's file.
export const connect = (page) => offer(page);

// The events of a request: { name, data }. `path` is always `infill`.
export async function* post(path, body, signal) {
  const stopped = new Promise((resolve) => { signal.addEventListener("abort", resolve, { once: true }); });
  await Promise.race([restore(body.model), stopped]);
  if (signal.aborted) return;
  const events = [];
  let wake = () => {};
  let ended = false;
  let error = null;
  const abort = () => { ended = true; wake(); };
  signal.addEventListener("abort", abort);
  const asked = ask("infill", { model: body.model, body: JSON.stringify(body) }, (event) => {
    events.push(event);
    wake();
  }, signal);
  asked.catch((thrown) => { error = thrown; }).finally(abort);
  try {
    for (;;) {
      while (events.length && !signal.aborted) yield events.shift();
      if (ended) break;
      await new Promise((resolve) => { wake = resolve; });
    }
  } finally {
    signal.removeEventListener("abort", abort);
  }
  if (error && !signal.aborted) throw error;
}

// An error as a sentence for `complain`.
export function showError(error, complain) {
  complain(error instanceof RequestError ? error.message : `The page failed: ${error?.message ?? error}.`);
}
