// The deck's sums: the quantities that can be selected, and the terms of each.

const TAPS = range(-1, 1);
const PLACES_OF_TAPS = TAPS.flatMap((n) => TAPS.map((m) => [n, m]));
const NAMES = { a: "a", K: "K", C: "C", da: "∂Loss/∂a", dK: "∂Loss/∂K", delta: "δ" };

// The kinds of numbers that can be selected, with the deck's sum for each: `terms` are the two factors of every term, as
// [array, row, column]. `over` is the array that the other one slides along. With a dilation d, taps are d pixels apart.
const KINDS = {
  output: {
    deck: "D3",
    text: "output",
    cells: ["C", "delta"],
    result: "C",
    over: "a",
    formula: (d) => [`${named("C")}(i, j) =`, `Σₙ Σₘ ${named("a")}(i+${d}n, j+${d}m) · ${named("K")}(−n, −m)`],
    terms: (i, j, d) => PLACES_OF_TAPS.map(([n, m]) => [["a", i + d * n, j + d * m], ["K", -n, -m]]),
    what: (i, j) =>
      `The kernel lies on the input, rotated by 180°, its centre on ${place(i, j)}. ` +
      "Each tap multiplies the number under it.",
    zeros: "on the zero padding",
  },
  input: {
    deck: "D5",
    text: "input pixel",
    cells: ["da", "a"],
    result: "da",
    over: "delta",
    formula: (d) => [`${named("da")}(i′, j′) =`, `Σₙ Σₘ ${named("delta")}(i′+${d}n, j′+${d}m) · ${named("K")}(n, m)`],
    terms: (i, j, d) => PLACES_OF_TAPS.map(([n, m]) => [["delta", i + d * n, j + d * m], ["K", n, m]]),
    what: (i, j) =>
      `The kernel lies on δ, not rotated, its centre on ${place(i, j)}. ` +
      "Each output that the pixel contributed to gives its δ times the tap between them.",
    zeros: "where there is no output: δ is 0 there",
  },
  tap: {
    deck: "D7",
    text: "kernel tap",
    cells: ["dK", "K"],
    result: "dK",
    over: "a",
    formula: (d) => [`${named("dK")}(n, m) =`, `Σᵢ Σⱼ ${named("delta")}(i, j) · ${named("a")}(i−${d}n, j−${d}m)`],
    terms: (n, m, d) => arrays.delta.places.map(([i, j]) => [["delta", i, j], ["a", i - d * n, j - d * m]]),
    what: (n, m, d) =>
      `δ lies on the input, shifted by ${place(0 - d * n, 0 - d * m)}. ` +
      "Each output multiplied this tap by the input under its δ.",
    zeros: "on the zero padding",
  },
};

const named = (name) => `<var class="${name}">${NAMES[name]}</var>`;
const place = (i, j) => `(${signed(i)}, ${signed(j)})`;
const nameOf = ([name, i, j]) => `${NAMES[name]}(${signed(i)},${signed(j)})`;
const valueOf = ([name, i, j]) => arrays[name].get(i, j);
const key = (name, i, j) => `${name},${i},${j}`;

let arrays; // the arrays of the chosen example, by name
