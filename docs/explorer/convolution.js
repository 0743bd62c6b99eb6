// Convolution: the reader selects a number and sees the terms of its sum.

const FRAME = range(-2, 6); // the image 0 … 4 and two rows around it, which is as far as any kernel reaches
const isFar = (index) => index < -1 || index > 5; // rows that only padding 2 or dilation 2 reaches
const options = { stride: 1, padding: 0, dilation: 1 };
const lastAsked = { output: [2, 2], input: [2, 2], tap: [-1, -1] };
let asked = "input";
let pinned = false;
const narrow = matchMedia("(max-width: 1199px)"); // the same width as in page.css

const grids = {};
for (const [kind, { cells }] of Object.entries(KINDS)) {
  for (const name of cells) {
    const indices = kind === "tap" ? TAPS : FRAME;
    grids[name] = createGrid(byId(`grid-${name}`), byId(`grid-${name}`).innerText, indices, indices, isFar);
    listen(grids[name].table, kind);
  }
}

// The mouse selects the number that it points at, until a click pins the selection. The focus of the keyboard and a tap
// always select. On a narrow page, which shows only the grids of one sum, a click is needed to select another sum, so
// that the grids do not change while the mouse moves.
function listen(table, kind) {
  const ask = (cell) => {
    asked = kind;
    lastAsked[kind] = [Number(cell.dataset.i), Number(cell.dataset.j)];
    draw();
    if (!cell.offsetParent) grids[KINDS[kind].result].at(...lastAsked[kind]).cell.focus(); // its grid is now hidden
  };
  const on = (type, react) =>
    table.addEventListener(type, (event) => {
      const cell = event.target.closest("td[tabindex]");
      if (cell) react(cell, event);
    });
  on("pointerover", (cell, { pointerType }) => {
    if (pointerType === "mouse" && !pinned && (kind === asked || !narrow.matches)) ask(cell);
  });
  on("focusin", (cell) => {
    if (!cell.matches(":focus-visible")) return; // a click follows
    pinned = false;
    ask(cell);
  });
  on("click", (cell) => {
    const again = pinned && cell.matches(".here, .sum");
    pinned = !again && matchMedia("(hover: hover)").matches;
    ask(cell);
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

const currentTerms = () => KINDS[asked].terms(...lastAsked[asked], options.dilation);

function draw() {
  const kind = KINDS[asked];
  const terms = currentTerms();
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
  const columns = Math.sqrt(terms.length); // the terms form a square, like the window or the outputs that they belong to
  const container = byId("terms");
  container.style.setProperty("--columns", columns);
  container.classList.toggle("many", columns > 3);
  container.replaceChildren(
    ...terms.map(([left, right], index) => {
      const [one, other] = [signed(valueOf(left)), signed(valueOf(right))];
      const product = signed(valueOf(left) * valueOf(right));
      const missing = [left, right].some(([name, i, j]) => !arrays[name].has(i, j));
      const colour = ([name], text) => make("span", { class: name }, text);
      const bracketed = valueOf(right) < 0 ? `(${other})` : other;
      return make(
        "button",
        {
          type: "button",
          tabindex: index ? -1 : 0,
          class: missing ? "term missing" : "term",
          "data-i": Math.floor(index / columns),
          "data-j": index % columns,
          "aria-label": `${nameOf(left)} times ${nameOf(right)}: ${one} times ${other} = ${product}`,
        },
        make("span", { class: "names" }, `${nameOf(left)}·${nameOf(right)}`),
        make("span", { class: "factors" }, colour(left, one), "·", colour(right, bracketed)),
        make("span", { class: "product" }, product),
      );
    }),
  );
}

// Highlights the two factors of the term that the mouse points at or that has the focus.
function drawPair(target) {
  const index = [...byId("terms").children].indexOf(target?.closest(".term"));
  const pair = (currentTerms()[index] ?? []).map((factor) => key(...factor));
  for (const [name, { cells }] of Object.entries(grids)) {
    for (const { i, j, cell } of cells.values()) cell.classList.toggle("pair", pair.includes(key(name, i, j)));
  }
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
for (const type of ["pointerover", "focusin"]) byId("terms").addEventListener(type, ({ target }) => drawPair(target));
for (const type of ["pointerleave", "focusout"]) byId("terms").addEventListener(type, () => drawPair(null));
chooseExample();
