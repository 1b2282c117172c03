"use strict";
// Whatever comes from a corpus, a vocabulary or a user becomes text of an element, never markup.

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // a string becomes a text node
  return made;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the service cannot be reached; is it still running?");
  }
  const answer = await response.json().catch(() => ({ error: `the service answered with status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Show what `work` makes of a form, or its error; the form's button waits meanwhile. It is not disabled, since the
// keyboard's focus would leave it.
async function submit(form, error, work) {
  const button = form.querySelector("button[type=submit]");
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true";
  error.textContent = "";
  try {
    await work();
  } catch (problem) {
    error.textContent = problem.message;
  } finally {
    button.ariaDisabled = null;
  }
}

function score(value) {
  return element("span", { class: "score" }, value === null ? "" : ` ${value.toFixed(2)}`);
}

function translation(source, answer) {
  const made = element("div", { class: "translation" });
  const cut = answer.is_cut ? " … (cut at its longest length)" : "";
  made.append(element("p", { class: "source", dir: "auto" }, source));
  made.append(element("p", { class: "best", dir: "auto" }, (answer.text || "(nothing)") + cut));
  if (answer.n_best.length > 1) {
    const items = answer.n_best.map((each) => element("li", { dir: "auto" }, each.text || "(nothing)", score(each.score)));
    made.append(element("ol", { "aria-label": "best translations, with log-probability by length" }, ...items));
  }
  return made;
}

// A button that asks for the neighbours of a word of a text, or of a token, which need not be spelled like one.
let askedToken = null;
function word(text, side, isToken) {
  const button = element("button", { type: "button", class: "word" }, text);
  button.addEventListener("click", () => {
    byId("word").value = text;
    byId("side").value = side;
    askedToken = isToken ? text : null;
    byId("neighbours").requestSubmit();
  });
  return button;
}

function showAttention(attention) {
  const table = byId("weights");
  byId("attention").hidden = attention === undefined;
  table.replaceChildren();
  byId("attention-note").textContent = attention?.note ?? "";
  if (!attention?.weights) return;
  const head = attention.source.map((token) => element("th", { scope: "col" }, word(token, "source", false)));
  table.append(element("tr", {}, element("td", { "aria-hidden": "true" }), ...head));
  attention.weights.forEach((weights, row) => {
    const cells = weights.map((weight, column) => {
      const text = weight.toFixed(2);
      const title = `${attention.target[row]} looks at ${attention.source[column]}: ${text}`;
      const cell = element("td", { title }, element("span", { class: "unseen" }, text));
      cell.style.setProperty("--weight", weight);
      return cell;
    });
    table.append(element("tr", {}, element("th", { scope: "row" }, word(attention.target[row], "target", false)), ...cells));
  });
}

async function translate() {
  const lines = byId("text").value.split(/\r\n|\r|\n/).filter((line) => line.trim());
  const [beam_size, n_best] = ["beam_size", "n_best"].map((id) => Number(byId(id).value));
  const attention = lines.length === 1;
  const { translations } = await ask("/translate", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: lines, beam_size, n_best: Math.min(n_best, beam_size), attention }),
  });
  byId("translations").replaceChildren(...translations.map((answer, number) => translation(lines[number], answer)));
  showAttention(translations[0].attention);
}

async function neighbours() {
  const { value } = byId("word");
  const found = byId("found");
  const walks = found.contains(document.activeElement); // from word to word, of which the old ones go
  const token = value === askedToken;
  const answer = await ask(`/neighbours?${new URLSearchParams({ word: value, side: byId("side").value, token })}`);
  found.replaceChildren();
  if (answer.note) found.append(element("p", { class: "hint" }, answer.note));
  const items = answer.neighbours.map((each) => element("li", {}, word(each.word, answer.side, true), score(each.score)));
  found.append(element("ol", { "aria-label": `words closest to ${answer.word}, with their cosine` }, ...items));
  if (walks) found.querySelector("button")?.focus();
}

byId("translate").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(event.target, byId("translate-error"), translate);
});
byId("neighbours").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(event.target, byId("neighbours-error"), neighbours);
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("translate").requestSubmit();
});
ask("/health").then(
  (about) => {
    const ranks = about.ranks === 1 ? "one process" : `${about.ranks} ranks`;
    byId("about").textContent = `run ${about.run}, ${ranks}`;
    for (const id of ["beam_size", "n_best"]) {
      const most = about.limits.max_beam_size;
      byId(id).max = most;
      byId(id).value = Math.min(Number(byId(id).value), most);
    }
  },
  (problem) => {
    byId("translate-error").textContent = problem.message;
  },
);
