// Batch norm: a slider changes the first value, and the page shows the three terms of D16.

const { C: START, delta: DELTA, gamma: GAMMA, epsilon: EPSILON, positions: POSITIONS, gradients: GRADIENTS } =
  NUMBERS.batch_norm;
const TERMS = { direct: "direct", mean: "through μ", variance: "through σ²", total: "sum" };
const average = (values) => values.reduce((total, value) => total + value, 0) / values.length;
const subscript = (index) => "₁₂₃₄₅₆"[index];

// The terms of D16 for every value, and the moments and means in them.
function inputGradient(C) {
  const mean = average(C);
  const variance = average(C.map((value) => (value - mean) ** 2));
  const scale = GAMMA / Math.sqrt(variance + EPSILON);
  const meanDelta = average(DELTA);
  const meanProduct = average(C.map((value, i) => DELTA[i] * (value - mean)));
  const terms = C.map((value, i) => {
    const direct = scale * DELTA[i];
    const throughMean = -scale * meanDelta;
    const throughVariance = -GAMMA * (value - mean) * (variance + EPSILON) ** -1.5 * meanProduct;
    return { direct, mean: throughMean, variance: throughVariance, total: direct + throughMean + throughVariance };
  });
  return { mean, variance, meanDelta, meanProduct, terms };
}

const slider = byId("slider");
const valuesAt = (position) => [POSITIONS[position], ...START.slice(1)];
const largest = Math.max(
  ...POSITIONS.flatMap((_, position) => inputGradient(valuesAt(position)).terms.flatMap((each) => Object.values(each)))
    .map(Math.abs),
);
const [LEAST, MOST] = [POSITIONS[0], POSITIONS.at(-1)];
const along = (value) => `${(100 * (value - LEAST)) / (MOST - LEAST)}%`;

const line = makeLine();
const rows = START.map((_, i) => makeRow(i));
byId("values").append(...rows.map(({ item }) => item));

function makeLine() {
  const ticks = range(LEAST, MOST).map((value) => {
    const tick = make("span", { class: "tick" }, signed(value));
    tick.style.left = along(value);
    return tick;
  });
  const band = make("span", { class: "band" });
  const mean = make("span", { class: "centre" }, "μ");
  const dots = START.map((_, i) => make("span", { class: i ? "dot" : "dot moved" }, String(i + 1)));
  byId("line").append(band, ...ticks, mean, ...dots);
  return { band, mean, dots };
}

function makeRow(i) {
  const title = make("h3");
  const check = make("span", { class: "check" });
  const bars = {};
  const list = make("dl");
  for (const [term, text] of Object.entries(TERMS)) {
    const [bar, number] = [make("i"), make("dd")];
    list.append(make("dt", {}, text), make("div", { class: `track ${term}`, "aria-hidden": "true" }, bar), number);
    bars[term] = { bar, number };
  }
  return { item: make("li", { class: i ? "" : "moved" }, title, list, check), title, bars, check };
}

function drawBatchNorm() {
  const position = Number(slider.value);
  const C = valuesAt(position);
  const { mean, variance, meanDelta, meanProduct, terms } = inputGradient(C);
  const deviation = Math.sqrt(variance);
  byId("position").textContent = signed(C[0], 3);
  slider.setAttribute("aria-valuetext", signed(C[0], 3));
  line.mean.style.left = along(mean);
  line.band.style.left = along(Math.max(mean - deviation, LEAST));
  line.band.style.right = `calc(100% - ${along(Math.min(mean + deviation, MOST))})`;
  line.dots.forEach((dot, i) => (dot.style.left = along(C[i])));
  byId("moments").textContent =
    `μ = ${signed(mean, 3)}, σ² = ${signed(variance, 3)}, mean of δ = ${signed(meanDelta, 3)}, ` +
    `mean of δ·(C−μ) = ${signed(meanProduct, 3)}, γ = ${signed(GAMMA, 1)}, ε = 10⁻⁵, m = ${C.length}. The band is μ ± σ.`;
  terms.forEach((term, i) => drawRow(rows[i], i, C[i], term, GRADIENTS[position][i]));
  const total = average(terms.map((term) => term.total)) * C.length;
  byId("batch-norm-check").textContent = `All six sums together: ${signed(Math.abs(total) < 5e-5 ? 0 : total, 4)}`;
  byId("batch-norm-spoken").textContent = Object.entries(TERMS)
    .map(([name, text]) => `${text} ${signed(terms[0][name], 4)}`)
    .join(", ");
}

function drawRow({ title, bars, check }, i, value, term, rule) {
  title.innerHTML =
    `C${subscript(i)} = ${signed(value, 3)}, <var class="delta">δ</var>${subscript(i)} = ${signed(DELTA[i], 2)}`;
  for (const [name, { bar, number }] of Object.entries(bars)) {
    const share = (50 * term[name]) / largest;
    bar.style.left = `${Math.min(50, 50 + share)}%`;
    bar.style.width = `${Math.abs(share)}%`;
    number.textContent = signed(term[name], 4);
  }
  const agrees = Math.abs(term.total - rule) < 5.1e-5; // the rule's number is rounded to four decimals
  check.textContent = `jaxbn gave ${signed(rule, 4)} ${agrees ? "✓" : "✗ they differ"}`;
}

Object.assign(slider, { min: 0, max: POSITIONS.length - 1, step: 1, value: POSITIONS.indexOf(START[0]) });
slider.addEventListener("input", drawBatchNorm);
drawBatchNorm();
