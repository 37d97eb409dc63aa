// The problems of an evaluation: each with the responses of every model, and their verdicts.
const problems = known("problem-list");

const rate = (responses) => responses.filter((each) => each.correct).length / responses.length;

function solved(one) {
  const all = one.models.map((model) => model.responses).filter((each) => each.length).map(rate), kinds = [];
  if (all.every((each) => each === 0)) kinds.push("by no response");
  else kinds.push(all.every((each) => each === 1) ? "by every response" : "by some");
  if (new Set(all).size > 1) kinds.push("differently by the models");
  return kinds;
}

function responses(model, texts) {
  const box = make("div");
  box.append(make("h4", model.name));
  model.responses.forEach((each, at) => {
    const line = make("p", `${each.mode}: `);
    line.append(verdict(each.correct), make("span", each.answer ? ` answer ${each.answer}` : " no answer", { class: "quiet" }));
    box.append(line, make("pre", texts[at]));
  });
  return box;
}

function problem(one) {
  const box = make("details", "", { class: "story" });
  const counts = one.models.filter((model) => model.responses.length)
    .map((model) => `${model.name} ${(100 * rate(model.responses)).toFixed(0)}%`).join(", ");
  box.append(make("summary", `${one.benchmark}, ${one.id}: ${counts}`));
  box.addEventListener("toggle", async () => { // texts are loaded when they are looked at
    if (!box.open || box.childElementCount > 1) return;
    const body = make("div");
    box.append(body);
    try {
      const texts = (await load(one.piece))[one.at];
      const columns = make("div", "", { class: "columns" });
      columns.append(...one.models.map((model, which) => responses(model, texts.responses[which])));
      body.append(make("pre", texts.prompt), make("p", `true answer: ${one.answer}`), columns);
    } catch (error) {
      body.append(make("p", error.message, { class: "problem" }));
    }
  });
  return box;
}

const pages = new Pages("problems", problems.length, (list) =>
  document.getElementById("list").replaceChildren(...list.map(problem)));

function filtered() {
  const [benchmark, kind, text] = ["benchmark", "solved", "text"].map((name) => document.getElementById(`filter-${name}`).value);
  return problems.filter((one) => (!benchmark || one.benchmark === benchmark) && (!kind || solved(one).includes(kind)) &&
    (!text || `${one.id} ${one.begins}`.toLowerCase().includes(text.toLowerCase())));
}

const choice = document.getElementById("filter-benchmark");
choice.append(make("option", "all", { value: "" }));
for (const name of new Set(problems.map((one) => one.benchmark))) choice.append(make("option", name));
const form = document.getElementById("filter");
for (const event of ["input", "change"]) form.addEventListener(event, () => pages.set(filtered()));
form.addEventListener("submit", (event) => event.preventDefault());
pages.set(filtered());
