// What the page says: the orders, the examples, and errors in the page's own words.

export const ORDERS = {
  uniform: "In random order, as in training.",
  sequential: "From left to right.",
  "low-discrepancy": "Evenly spread over the text at every step.",
  dilated: "Every 2^k-th token, then the tokens between them.",
  halton: "Along Halton's sequence: evenly spread at every step.",
  confidence: "The most probable of the drawn tokens first.",
  margin: "First where the best token is far more probable than the second.",
  entropy: "First where the model is most certain.",
  "entropy-bounded": "The most certain ones, as many in a step as a bound on entropy allows.",
  remask: "In random order; some decoded tokens are masked and drawn again.",
};

export const EXAMPLES = {
  "a line": "To be, or {12} to be.",
  "a story": "Once upon a time, {*} and they lived happily ever after.",
  "a dialogue": "ROMEO:\n{32}\n\nJULIET:\n{32}\n",
  "a function": "fn add(a: u32, b: u32) -> u32 {\n    {12}\n}\n",
  nothing: "{*}",
};

// The server names the fields of a request; the page has some of them under other names, and no length.
const WORDS = [
  [/, and a longer one must be asked for with length/, ", so shorten the text or its blanks"],
  [/; give a larger length or a blank/, "; shorten it or give it a blank"],
  [/, but length is \d+/, ""],
  [/\btop_([kp])\b/g, "Top-$1"],
  [/^the (template|input_prefix) /, "the text "],
];

// An error of the server as the page says it.
export const inPageWords = (message) => WORDS.reduce((text, [from, to]) => text.replace(from, to), message);
