// Calls of the worker: each has a number, gets any number of reports, and ends with a result or an error.

import { RequestError } from "./common.js";

const OLD_BROWSER = "this browser cannot run the model; take one with WebAssembly SIMD: Chrome or Edge 100, Firefox 114, Safari 16.4, " +
  "or a later one";

let worker = null;
let nextId = 0;
let failed = () => {}; // is called when a worker has ended with all its models
const calls = new Map(); // those that are not over

export const whenWorkerFails = (call) => { failed = call; };

// A worker that has failed takes no calls any more; the next call begins a new one.
function end(message) {
  worker?.terminate();
  worker = null;
  for (const { reject } of calls.values()) reject(new RequestError(message));
  calls.clear();
  failed();
}

function begin() {
  worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { id, report, result, error, crash } }) => {
    if (crash) return end(crash);
    const call = calls.get(id);
    if (!call) return;
    if (report) return call.report(report);
    calls.delete(id);
    if (error) call.reject(new RequestError(error.message, undefined, error.param));
    else call.resolve(result);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    end(event.message ? `the worker failed: ${event.message}` : OLD_BROWSER);
  };
}

// Calls `name` with `values`. `report` gets what comes before the result. With an aborted `signal` the worker is told to stop,
// and the result is null.
export function ask(name, values = {}, report = () => {}, signal = null) {
  if (!worker) begin();
  const id = nextId;
  nextId += 1;
  const of = worker;
  return new Promise((resolve, reject) => {
    calls.set(id, { resolve, reject, report });
    const stop = () => { if (calls.has(id)) of.postMessage({ id, name: "stop" }); };
    signal?.addEventListener("abort", stop, { once: true });
    of.postMessage({ id, name, ...values });
    if (signal?.aborted) stop();
  });
}
