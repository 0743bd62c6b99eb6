// Convolution: whoever asks about a number sees the terms of its sum.

const FRAME = range(-2, 6); // the image 0 … 4, and two more around it, which is as far as any kernel reaches
const isFar = (index) => index < -1 || index > 5; // met only with padding 2 or dilation 2
const TAPS = range(-1, 1);
const PLACES_OF_TAPS = TAPS.flatMap((n) => TAPS.map((m) => [n, m]));
const NAMES = { a: "a", K: "K", C: "C", da: "∂Loss/∂a", dK: "∂Loss/∂K", delta: "δ" };

// What can be asked about, and the deck's sum for it: the two factors of each term, as [array, row, column]. `over` is
// the array on which the other one lies. With a dilation, n and m count in steps of it.
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
      `The kernel lies on the input, rotated by 180°, its centre on ${place(i, j)}. Each tap multiplies what is under it.`,
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
      "Each output that the pixel reached sends its δ back through the tap between them.",
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
      `δ lies on the input, moved by ${place(0 - d * n, 0 - d * m)}. Each output used this tap once, on the input under its δ.`,
    zeros: "on the zero padding",
  },
};

const named = (name) => `<var class="${name}">${NAMES[name]}</var>`;
const place = (i, j) => `(${signed(i)}, ${signed(j)})`;
const nameOf = ([name, i, j]) => `${NAMES[name]}(${signed(i)},${signed(j)})`;
const valueOf = ([name, i, j]) => arrays[name].get(i, j);
const key = (name, i, j) => `${name},${i},${j}`;

const options = { stride: 1, padding: 0, dilation: 1 };
const lastAsked = { output: [2, 2], input: [2, 2], tap: [-1, -1] };
let asked = "input";
let pinned = false;
let arrays;
const narrow = matchMedia("(max-width: 1199px)"); // as in page.css

const grids = {};
for (const [kind, { cells }] of Object.entries(KINDS)) {
  for (const name of cells) {
    const indices = kind === "tap" ? TAPS : FRAME;
    grids[name] = createGrid(byId(`grid-${name}`), byId(`grid-${name}`).innerText, indices, indices, isFar);
    listen(grids[name].table, kind);
  }
}

// The mouse asks where it is until a click pins the answer; the focus always asks, and so does a finger. Where only the
// grids of one sum are shown, it takes a click to ask about another: they must not change under the mouse.
function listen(table, kind) {
  const ask = (target) => {
    const cell = target.closest("td[tabindex]");
    if (!cell) return;
    asked = kind;
    lastAsked[kind] = [Number(cell.dataset.i), Number(cell.dataset.j)];
    draw();
    // On a narrow screen only the grids of one sum are shown, and this one may just have gone.
    if (cell === document.activeElement && !cell.offsetParent) grids[KINDS[kind].result].at(...lastAsked[kind]).cell.focus();
  };
  table.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && !pinned && (kind === asked || !narrow.matches)) ask(event.target);
  });
  table.addEventListener("focusin", (event) => {
    pinned = false;
    ask(event.target);
  });
  table.addEventListener("click", (event) => {
    if (!event.target.closest("td[tabindex]")) return;
    pinned = !pinned && matchMedia("(hover: hover)").matches;
    ask(event.target);
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  pinned = false;
  draw();
});

function chooseExample() {
  const { examples, a, K } = NUMBERS.convolution;
  const chosen = (each) => Object.entries(options).every(([name, value]) => each[name] === value);
  const { centres, C, delta, da, dK } = examples.find(chosen);
  const image = range(0, a.length - 1);
  arrays = {
    a: field(a, image, image),
    K: field(K, TAPS, TAPS),
    C: field(C, centres, centres),
    delta: field(delta, centres, centres),
    da: field(da, image, image),
    dK: field(dK, TAPS, TAPS),
  };
  const count = `${centres.length} × ${centres.length} output${centres.length > 1 ? "s" : ""}`;
  const margin = Math.max(options.padding, options.dilation);
  byId("bench").style.setProperty("--side", a.length + 2 * margin);
  byId("bench").classList.toggle("near", margin === 1);
  byId("outputs").textContent = `${count}, at rows and columns ${centres.map((each) => signed(each)).join(", ")}`;
  lastAsked.output = nearest(arrays.C.places, lastAsked.output);
  draw();
}

function nearest(places, [i, j]) {
  const distance = ([row, column]) => Math.hypot(row - i, column - j);
  return places.reduce((best, each) => (distance(each) < distance(best) ? each : best));
}

function draw() {
  const kind = KINDS[asked];
  const [i, j] = lastAsked[asked];
  const terms = kind.terms(i, j, options.dilation);
  byId("bench").dataset.asked = asked;
  document.querySelector(`input[name="kind"][value="${asked}"]`).checked = true;
  drawCells(kind, terms);
  drawReading(kind, terms);
  drawTerms(terms);
}

function drawCells(kind, terms) {
  const [i, j] = lastAsked[asked];
  const lit = new Map();
  for (const [left, right] of terms) {
    for (const [factor, other] of [[left, right], [right, left]]) {
      lit.set(key(...factor), factor[0] === kind.over ? `×${signed(valueOf(other))}` : "");
    }
  }
  for (const [name, { cells }] of Object.entries(grids)) {
    const askable = Object.keys(KINDS).find((each) => KINDS[each].cells.includes(name));
    const [stopI, stopJ] = lastAsked[askable];
    for (const { i: row, j: column, cell, value, factor } of cells.values()) {
      const has = arrays[name].has(row, column);
      const light = lit.get(key(name, row, column));
      const padding = name === "a" && !has && inPadding(row) && inPadding(column);
      const here = askable === asked && row === i && column === j;
      cell.className = [
        has ? "has" : padding ? "padding" : "outside",
        light === undefined ? "" : `lit ${name}`,
        here ? (name === kind.result ? "sum" : "here") : "",
      ].join(" ");
      value.textContent = has || padding || light !== undefined ? signed(arrays[name].get(row, column)) : "";
      factor.textContent = light ?? "";
      factor.className = `factor ${kind.over === "delta" || asked === "output" ? "K" : "delta"}`;
      if (has) {
        cell.tabIndex = row === stopI && column === stopJ ? 0 : -1;
        cell.setAttribute("role", "gridcell");
        cell.setAttribute("aria-label", `${nameOf([name, row, column])} = ${signed(arrays[name].get(row, column))}`);
      } else {
        cell.removeAttribute("tabindex");
        cell.setAttribute("role", "presentation");
        cell.removeAttribute("aria-label");
      }
    }
  }
}

const inPadding = (index) => index >= -options.padding && index <= NUMBERS.convolution.a.length - 1 + options.padding;

function drawReading(kind, terms) {
  const [i, j] = lastAsked[asked];
  const sum = terms.reduce((total, [left, right]) => total + valueOf(left) * valueOf(right), 0);
  const rule = arrays[kind.result].get(i, j);
  const name = nameOf([kind.result, i, j]);
  const agrees = sum === rule ? "✓" : "✗ they differ";
  const [left, right] = kind.formula(options.dilation > 1 ? options.dilation : "");
  byId("formula").innerHTML = `<span>${left}</span> <span>${right} <b class="deck">${kind.deck}</b></span>`;
  byId("asked").textContent = name;
  byId("sum").textContent = signed(sum);
  byId("check").textContent = `jaxbn gave ${signed(rule)} ${agrees}`;
  byId("what").textContent = `${kind.what(i, j, options.dilation)} ${aboutZeros(kind, terms)}`;
  byId("hint").textContent = !matchMedia("(hover: hover)").matches
    ? ""
    : pinned
      ? "Pinned. Click the number again, or press Escape, to let it go."
      : "Click a number to pin it.";
  byId("spoken").textContent = `${name}: ${terms.length} terms, sum ${signed(sum)}, jaxbn gave ${signed(rule)}`;
}

function aboutZeros(kind, terms) {
  const count = terms.filter(([left, right]) => ![left, right].every(([name, i, j]) => arrays[name].has(i, j))).length;
  if (!count) return "";
  return `${count} of the ${terms.length} ${count > 1 ? "lie" : "lies"} ${kind.zeros}.`;
}

function drawTerms(terms) {
  const columns = Math.sqrt(terms.length); // a window, or all outputs: square, as they lie on the grid
  const container = byId("terms");
  container.style.setProperty("--columns", columns);
  container.classList.toggle("many", columns > 3);
  container.replaceChildren(
    ...terms.map(([left, right], index) => {
      const product = valueOf(left) * valueOf(right);
      const missing = [left, right].some(([name, i, j]) => !arrays[name].has(i, j));
      const colour = (each, text) => make("span", { class: each[0] }, text);
      const rightText = valueOf(right) < 0 ? `(${signed(valueOf(right))})` : signed(valueOf(right));
      return make(
        "button",
        {
          type: "button",
          tabindex: index ? -1 : 0,
          class: missing ? "term missing" : "term",
          "data-i": Math.floor(index / columns),
          "data-j": index % columns,
          "aria-label": `${nameOf(left)} times ${nameOf(right)}: ${signed(valueOf(left))} times ${signed(valueOf(right))} = ${signed(product)}`,
        },
        make("span", { class: "names" }, `${nameOf(left)}·${nameOf(right)}`),
        make("span", { class: "factors" }, colour(left, signed(valueOf(left))), "·", colour(right, rightText)),
        make("span", { class: "product" }, signed(product)),
      );
    }),
  );
  const light = (target) => {
    const term = target?.closest(".term");
    const pair = term ? terms[[...container.children].indexOf(term)].map((each) => key(...each)) : [];
    for (const [name, { cells }] of Object.entries(grids)) {
      for (const { i, j, cell } of cells.values()) cell.classList.toggle("pair", pair.includes(key(name, i, j)));
    }
  };
  container.onpointerover = container.onfocusin = (event) => light(event.target);
  container.onpointerleave = container.onfocusout = () => light(null);
}

const choices = Object.entries(NUMBERS.convolution.choices).map(([name, values]) =>
  createChoice(
    name,
    name,
    values.map((value) => [value, String(value)]),
    options[name],
    (value) => {
      options[name] = value;
      pinned = false;
      chooseExample();
    },
  ),
);
byId("choices").append(...choices);
byId("kinds").append(
  createChoice(
    "Ask about",
    "kind",
    Object.entries(KINDS).map(([kind, { text }]) => [kind, text]),
    asked,
    (kind) => {
      asked = kind;
      pinned = false;
      draw();
    },
  ),
);
moveByArrows(byId("terms"));
chooseExample();
