// Has the models and fills texts, one step at a time: between two steps it looks for messages, so that Stop is heard.
// Calls and answers are described in worker_calls.js.

import { bundle, bundledFiles, remove } from "./bundle.js";

const models = new Map(); // by name
const stopped = new Map(); // an AbortController for each call that is not over
const programs = new Map(); // a promise of the program of each device, or of why it cannot be started
let loading = false; // whether the last call loads a model

async function start(device) {
  const program = await (device === "webgpu" ? import("./pgm_web_gpu.js") : import("./pgm_web.js"));
  await program.default();
  return program;
}

function programOf(device) {
  if (!programs.has(device)) {
    programs.set(device, start(device).catch((error) => {
      programs.delete(device);
      return error;
    }));
  }
  return programs.get(device);
}

// Ends a turn of the worker, so that waiting messages are read. A timer would wait for 4 ms.
const { port1, port2 } = new MessageChannel();
const waiting = [];
port1.onmessage = () => waiting.shift()();
const turn = () => new Promise((resolve) => {
  waiting.push(resolve);
  port2.postMessage(null);
});

const bytesOf = async (file) => {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} cannot be read; was it moved or changed? Open the folder again.`);
  }
};

const handlers = {
  // What is known of the bundled model before it is loaded.
  bundle: () => bundle(),

  remove: () => remove(),

  // Loads a model under a name on a device, from the files of a folder or the bundled ones, and describes it.
  async load({ model: name, device, files }, { signal, report }) {
    const bytes = {};
    const starting = programOf(device); // comes at the same time
    if (files) {
      for (const [file, blob] of Object.entries(files)) bytes[file] = await bytesOf(blob);
    } else {
      Object.assign(bytes, await bundledFiles(signal, (done, total) => report({ stage: "download", done, total })));
    }
    report({ stage: "program", done: 0, total: 1 });
    const stop = new Promise((resolve) => { signal.addEventListener("abort", resolve); });
    const program = await Promise.race([starting, stop]);
    signal.throwIfAborted();
    if (program instanceof Error) throw new Error(`the program cannot be started: ${program.message}`);
    report({ stage: "read", done: 0, total: 1 });
    const model = await program.Model.load(
      bytes["config.json"], bytes["model.safetensors"], bytes["tokenizer.json"], bytes["generation_config.json"],
      (share) => report({ stage: "read", done: share, total: 1 }),
    );
    models.get(name)?.free();
    models.set(name, model);
    return JSON.parse(model.describe(name));
  },

  // Frees the memory of a model.
  close({ model: name }) {
    models.get(name)?.free();
    models.delete(name);
  },

  // Fills a text: reports the events of the server's `infill`. The last one has the whole answer.
  async infill({ model: name, body }, { signal, report }) {
    const model = models.get(name);
    if (!model) throw new Error(`the model ${name} is not loaded`);
    const began = performance.now();
    const json = await model.infill(body, async (step) => {
      report({ name: "denoise", data: JSON.parse(step) });
      await turn();
      return signal.aborted;
    });
    if (json === null) return;
    const answer = JSON.parse(json);
    const [n, ms] = [answer.tokens_predicted, performance.now() - began];
    answer.timings = { predicted_n: n, predicted_ms: ms, predicted_per_second: (1000 * n) / ms };
    report({ name: "", data: answer });
  },
};

// The program has trapped and is in no defined state any more: the page ends this worker.
function crash() {
  const why = self.panicMessage ?? "perhaps it needs more memory than a page may have, which is 4 GB at most";
  const next = loading ? "" : "; generate again to load it again";
  self.postMessage({ crash: `the model failed: ${why.replace(/\s+/g, " ")}${next}` });
}

// Rust's futures are polled in microtasks of their own: a trap in one reaches no `catch`, and its promise never settles.
self.addEventListener("error", (event) => {
  if (!(event.error instanceof WebAssembly.RuntimeError)) return;
  event.preventDefault();
  crash();
});

self.onmessage = async ({ data: { id, name, ...values } }) => {
  if (name === "stop") return stopped.get(id)?.abort();
  loading = name === "load";
  const abort = new AbortController();
  stopped.set(id, abort);
  const report = (value) => self.postMessage({ id, report: value });
  try {
    const result = await handlers[name](values, { signal: abort.signal, report });
    self.postMessage({ id, result });
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) {
      crash();
    } else if (abort.signal.aborted) {
      self.postMessage({ id, result: null });
    } else {
      self.postMessage({ id, error: { message: error.message, param: error.param } });
    }
  } finally {
    stopped.delete(id);
  }
};
