// The server as the page sees it: its models, the events of a request, and its errors. A page without a server has another
// file of this name with the same exports (examples/web).

import { $, RequestError, count, session } from "./common.js";

export const WAITING = "Waiting for the server…";

let key = session.get("key"); // kept until the tab is closed

// Waits until the models are loaded, then lists them. `list(models, id)` may be called again when there are others, with the
// one to show.
export async function connect({ say, complain, list }) {
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
    list((await (await call("v1/models")).json()).data);
  } catch (error) {
    say("");
    showError(error, complain, () => connect({ say, complain, list }));
  }
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const { error } = (await response.json().catch(() => null)) ?? {};
  const message = error?.message ?? `the server answered with status ${response.status}`;
  const wait = response.headers.get("Retry-After");
  const later = /^\d+$/.test(wait) ? `; try again in ${count(Number(wait), "second")}` : "";
  throw new RequestError(message.replace(/\.$/, "") + later, response.status, error?.param);
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
    if (error) throw new RequestError(error.message, undefined, error.param);
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
  if (!(error instanceof RequestError)) return complain("The server cannot be reached.");
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
