// Helpers for both parts of the page: creating elements, arrays with the deck's indices, moving with the arrow keys.

const NUMBERS = JSON.parse(document.getElementById("numbers").textContent);
const byId = (id) => document.getElementById(id);
const signed = (number, digits = 0) => number.toFixed(digits).replace("-", "−");
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, step) => first + step);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// An array with the deck's indices. Entries outside of it are zero: the padding of D9, and δ outside its range (D5).
function field(values, rows, columns) {
  const at = (i, j) => values[rows.indexOf(i)]?.[columns.indexOf(j)];
  const places = rows.flatMap((i) => columns.map((j) => [i, j]));
  return { places, has: (i, j) => at(i, j) !== undefined, get: (i, j) => at(i, j) ?? 0 };
}

// A table of cells with the indices on its edges. Each cell has a place for its number and one for the factor that it is
// multiplied by. Rows and columns for which `isFar` is true are marked, so that the style sheet can hide them.
function createGrid(figure, label, rows, columns, isFar) {
  const cells = new Map();
  const table = make("table", { role: "grid", "aria-label": label });
  const far = (index) => (isFar(index) ? { "data-far": "" } : {});
  const edge = (index) => make("th", { "aria-hidden": "true", ...far(index) }, signed(index));
  table.append(make("tr", { role: "presentation" }, make("td", { role: "presentation" }), ...columns.map(edge)));
  for (const i of rows) {
    const row = make("tr", { role: "row", ...far(i) }, edge(i));
    for (const j of columns) {
      const value = make("span", { class: "value" });
      const factor = make("span", { class: "factor" });
      const cell = make("td", { "data-i": i, "data-j": j, ...far(j) }, value, factor);
      cells.set(`${i},${j}`, { i, j, cell, value, factor });
      row.append(cell);
    }
    table.append(row);
  }
  figure.append(table);
  moveByArrows(table);
  return { table, cells, at: (i, j) => cells.get(`${i},${j}`) };
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// Arrow keys move the focus to the next element with data-i and data-j that can have it; the Tab key stops only once.
function moveByArrows(container) {
  container.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const from = event.target.closest("[data-i]");
    if (!step || !from) return;
    event.preventDefault();
    let [i, j] = [Number(from.dataset.i), Number(from.dataset.j)];
    for (let steps = 0; steps < 10; steps++) {
      [i, j] = [i + step[0], j + step[1]];
      const next = container.querySelector(`[data-i="${i}"][data-j="${j}"][tabindex]`);
      if (next) return next.focus();
    }
  });
}

// A choice between several values: native radio buttons in a row.
function createChoice(legend, name, options, chosen, choose) {
  const buttons = options.map(([value, text]) => {
    const input = make("input", { type: "radio", name, value });
    input.checked = value === chosen;
    input.addEventListener("change", () => choose(value));
    return make("label", {}, input, make("span", {}, text));
  });
  return make("fieldset", {}, make("legend", {}, legend), make("div", { class: "choice" }, ...buttons));
}
