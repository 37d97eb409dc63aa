// The groups of a run: a table to filter and sort, and the story of one group.
const columns = known("index");
const index = columns.step.map((step, at) => ({
  step, group: columns.group[at], source: columns.sources[columns.source[at]], question: columns.questions[columns.question[at]],
  what: columns.whats[columns.what[at]], responses: columns.responses[at], correct: columns.correct[at],
  refinements: columns.refinements[at], refined: columns.refined[at],
}));
const COLUMNS = [
  ["step", "step"], ["group", "group"], ["data source", "source"], ["question", "question"],
  ["correct", "correct"], ["refinements correct", "refined"], ["what happened", "what"],
];
let order = { key: "step", up: true };
const pages = new Pages("groups", index.length, showTable);

function filtered() {
  const [what, source, step, text] = ["what", "source", "step", "text"].map(
    (name) => document.getElementById(`filter-${name}`).value);
  const wanted = text.toLowerCase();
  const found = index.filter((one) =>
    (!what || one.what.includes(what)) && (!source || one.source === source.slice(1)) &&
    (step === "" || one.step === Number(step)) && (!wanted || one.question.toLowerCase().includes(wanted)));
  const sign = order.up ? 1 : -1;
  const value = (one) => Array.isArray(one[order.key]) ? one[order.key].join() : one[order.key];
  if (order.key === "step" && order.up) return found; // as they are
  return found.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return a.step - b.step || a.group - b.group;
    return sign * (typeof x === "number" ? x - y : x.localeCompare(y));
  });
}

function showTable(list) {
  document.querySelector("#table tbody").replaceChildren(...list.map((one) => {
    const row = make("tr");
    for (const [, key] of COLUMNS) {
      const cell = make("td");
      if (key === "question") cell.append(make("a", one.question, { href: `#step=${one.step}&group=${one.group}` }));
      else if (key === "correct") cell.textContent = `${one.correct} of ${one.responses}`;
      else if (key === "refined") cell.textContent = one.refinements ? `${one.refined} of ${one.refinements}` : "";
      else cell.textContent = Array.isArray(one[key]) ? one[key].join(", ") : one[key];
      row.append(cell);
    }
    return row;
  }));
}

// Words that differ: the longest common subsequence of the two texts' words.
function difference(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/\s+|[^\s]+/g) || []);
  if (a.length * b.length > 4e6) return null; // both very long: not worth a frozen page
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const parts = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) parts.push(["same", a[i++], j++]);
    else if (j >= b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) parts.push(["del", a[i++]]);
    else parts.push(["ins", b[j++]]);
  }
  return parts;
}

function marked(before, after) {
  const block = make("pre"), parts = difference(before, after);
  if (!parts) block.append(make("span", "(too long to be compared) ", { class: "quiet" }), after);
  else for (const [kind, text] of parts) block.append(kind === "same" ? text : make(kind, text));
  return block;
}

function head(title, item) {
  const line = make("h4", `${title}: `);
  line.append(verdict(item.correct), make("span", ` score ${item.score}, ${item.tokens} tokens` +
    (page.longest && item.tokens >= page.longest ? ", truncated" : ""), { class: "quiet" }));
  return line;
}

function told(critique, right) {
  const parts = [make("h4", "Critique")];
  if (critique.text == null) parts.push(make("p", "none: this response was skipped", { class: "quiet" }));
  else parts.push(make("pre", critique.text || "(no text)"));
  if (critique.verdict != null) {
    const agrees = critique.verdict === right;
    parts.push(make("p", `the critic says ${critique.verdict ? "correct" : "wrong"}${agrees ? "" : ": it disagrees with the reward"}`,
      { class: agrees ? "quiet" : "bad" }));
  }
  const notes = [critique.retries && `asked ${critique.retries} times more`, !critique.valid && "a fallback", critique.reason];
  if (notes.some(Boolean)) parts.push(make("p", notes.filter(Boolean).join("; "), { class: "quiet" }));
  return parts;
}

function story(response, slot) {
  const box = make("article", "", { class: "story" });
  const columns = make("div", "", { class: "columns" });
  const first = make("div");
  first.append(head(`Response ${slot}`, response), make("pre", response.text));
  columns.append(first);
  if (response.critique) {
    const column = make("div");
    column.append(...told(response.critique, response.correct));
    columns.append(column);
  }
  if (response.refinement) {
    const column = make("div");
    column.append(head("Refinement", response.refinement), marked(response.text, response.refinement.text));
    if (response.refinement.critique) column.append(...told(response.refinement.critique, response.refinement.correct));
    columns.append(column);
  }
  box.append(columns);
  if (response.outcome) box.append(make("p", `outcome: ${response.outcome}`, { class: "quiet" }));
  return box;
}

// The tokens of a refinement, coloured by f(p) or by its gradient weight f(1-f).
function coloured(row) {
  const box = make("div", "", { class: "tokens story" });
  const choice = make("select", "", { "aria-label": "colour the tokens by" });
  for (const [value, label] of [["f", "f(p)"], ["weight", "gradient weight f(1-f), times 4"]]) {
    choice.append(make("option", label, { value }));
  }
  const text = make("p");
  const paint = () => text.replaceChildren(...row.tokens.map((token, place) => {
    const p = row.probs[place], f = p / (p + page.gamma), value = choice.value === "f" ? f : 4 * f * (1 - f);
    return make("span", token, {
      title: `p ${p}, f ${f.toFixed(3)}, f(1-f) ${(f * (1 - f)).toFixed(3)}`,
      style: `background: rgba(26, 127, 75, ${(0.75 * value).toFixed(2)})`,
    });
  }));
  choice.addEventListener("change", paint);
  paint();
  box.append(make("span", "Tokens of the refinement, by "), choice, text);
  return box;
}

function trained(rows) {
  const table = make("table", "", { class: "rows" });
  const line = make("tr");
  line.append(make("th", "slot"), make("th", "row"), make("th", "advantage"), make("th", "reward of a role"));
  table.append(line, ...rows.map((row, slot) => {
    const one = make("tr");
    one.append(make("td", slot), make("td", row.origin), make("td", row.advantage == null ? "not a number" : row.advantage.toFixed(3), { class: "number" }), make("td", row.reward == null ? "" : row.reward.toFixed(3), { class: "number" }));
    return one;
  }));
  return table;
}

async function showGroup() {
  const found = /^#step=(\d+)&group=(\d+)$/.exec(location.hash);
  if (!found) return;
  const [step, number] = [Number(found[1]), Number(found[2])];
  const section = document.getElementById("group"), asked = location.hash;
  try {
    const group = (await load(`step-${step}`))[number];
    if (location.hash !== asked) return; // another one has been asked for
    if (!group) throw new Error(`step ${step} has no group ${number}`);
    section.replaceChildren(
      make("h3", `Step ${step}, group ${number}`), make("p", group.reason), make("h4", "Question"), make("pre", group.question),
      make("p", `true answer: ${group.ground_truth}`), ...group.responses.map(story));
    if (group.rows && group.rows.length) {
      section.append(make("h4", "Rows that were trained on"), trained(group.rows));
      section.append(...group.rows.filter((row) => row.tokens).map(coloured));
      for (const row of group.rows) {
        if (row.text != null) section.append(make("p", `What the policy said as ${row.origin}`), make("pre", row.text));
      }
    }
  } catch (error) {
    section.replaceChildren(make("p", error.message, { class: "problem" }));
  }
  section.scrollIntoView();
}

function move(by) {
  const found = /^#step=(\d+)&group=(\d+)$/.exec(location.hash);
  const at = found ? pages.list.findIndex((one) => one.step === Number(found[1]) && one.group === Number(found[2])) : -1;
  const next = pages.list[at + by];
  if (!next) return;
  pages.turn(PAGE * Math.floor((at + by) / PAGE));
  location.hash = `#step=${next.step}&group=${next.group}`;
}

function begin() {
  const headRow = make("tr");
  for (const [label, key] of COLUMNS) {
    const cell = make("th"), button = make("button", label, { type: "button" });
    button.addEventListener("click", () => {
      order = { key, up: order.key === key ? !order.up : true };
      pages.set(filtered());
    });
    cell.append(button);
    headRow.append(cell);
  }
  document.querySelector("#table thead").append(headRow);
  const options = { what: [...new Set(columns.whats.flat())].sort().map((one) => [one, one]),
    source: columns.sources.map((one) => [one || "(none)", `=${one}`]) };
  for (const [id, choices] of Object.entries(options)) {
    const choice = document.getElementById(`filter-${id}`);
    choice.append(make("option", "all", { value: "" }), ...choices.map(([label, value]) => make("option", label, { value })));
  }
  const form = document.getElementById("filter");
  for (const event of ["input", "change"]) form.addEventListener(event, () => pages.set(filtered()));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (event.key === "j") move(1);
    if (event.key === "k") move(-1);
  });
  window.addEventListener("hashchange", showGroup);
  pages.set(filtered());
  showGroup();
}

begin();
