// What the page says: titles, orders, examples, and errors in the page's own words.

export const TITLES = {
  blanks: {
    title: "Fill in the blanks",
    text: "A Partition Generative Model fills blanks anywhere in a text, several tokens at a time and in any order.",
  },
  pictures: {
    title: "Draw pictures",
    text: "A model of pictures fills the cells of a grid, several at a time and in any order. " +
      "Any part of a picture can be drawn again.",
  },
};

// Kinds of models whose names are written otherwise.
export const KINDS = { maskgit: "MaskGIT" };

// The choice of no order.
export const MODELS_ORDER = "the model’s";

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

// Where the words differ for pictures.
export const PICTURE_ORDERS = {
  ...ORDERS,
  sequential: "Row by row, from left to right.",
  "low-discrepancy": "Evenly spread over the rows at every step.",
  dilated: "Every 2^k-th cell, then the cells between them.",
  halton: "Along Halton's sequence: evenly spread over the picture at every step.",
  confidence: "The most probable of the drawn cells first.",
  margin: "First where the best code is far more probable than the second.",
  remask: "In random order; some decoded cells are opened and drawn again.",
};

export const EXAMPLES = {
  "a verse": "And the king said, {12} the people {8}.",
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
  [/\bcfg\b/g, "guidance"],
  [/^n (?=must|is)/, "the number of pictures "],
];

// An error of the server as the page says it.
export const inPageWords = (message) => WORDS.reduce((text, [from, to]) => text.replace(from, to), message);
