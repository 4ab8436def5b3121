// The page of charter rate. A choice is sent until the server has stored it; only then does the next pair come.

import { create, fill } from "./text.js";

const KEYS = { 1: "first", ArrowLeft: "first", 2: "second", ArrowRight: "second", 3: "tie", t: "tie", s: "skip" };
const UNREAD_MS = 300; // a choice made sooner after a pair appears was meant for the one before
const RETRY_MS = [500, 1000, 2000, 4000];
const state = { csrf: "", rater: "", item: null, tally: null, busy: false, shownAt: 0, lastNote: "" };
const $ = (id) => document.getElementById(id);

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body) {
  const request = { cache: "no-store", credentials: "same-origin" };
  if (body !== undefined) {
    request.method = "POST";
    request.headers = { "Content-Type": "application/json", "X-CSRF-Token": state.csrf };
    request.body = JSON.stringify(body);
  }
  const response = await fetch(path, request);
  const answer = await response.json();
  if (!response.ok) throw new Refusal(response.status, answer.error);
  return answer;
}

const unreachable = (error) => !(error instanceof Refusal) || error.status === 503;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function insist(path, body) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await ask(path, body);
    } catch (error) {
      if (!unreachable(error)) throw error;
      say(error instanceof Refusal ? error.message : "The server can't be reached. Your choice is kept; trying again …", true);
      await wait(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
    }
  }
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// What the browser keeps, so that a reload or a dead server loses nothing. Without storage the page works all the same.
const kept = {
  get(key) {
    try {
      return localStorage.getItem(`${key}:${state.rater}`);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      if (value) localStorage.setItem(`${key}:${state.rater}`, value);
      else localStorage.removeItem(`${key}:${state.rater}`);
    } catch {
      // storage is off or full: the server's copy is the one that counts
    }
  },
};

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function choose(choice) {
  if (!ready()) return;
  const body = { id: newId(), pair_id: state.item.pair_id, choice, note: $("note").value };
  kept.set("pending", JSON.stringify(body));
  for (const side of ["first", "second"]) $(`card-${side}`).classList.toggle("chosen", side === choice || choice === "tie");
  await during(() => deliver(body));
}

const ready = () => state.item && !state.busy && performance.now() - state.shownAt > UNREAD_MS;

async function deliver(body) {
  try {
    const answer = await insist("/label", body);
    settle(body);
    state.lastNote = body.note;
    show(answer);
    say(body.choice === "skip" ? "Skipped." : "Saved.");
  } catch (error) {
    if (error.status !== 409 && error.status !== 404) throw error;
    settle(body);
    show(await insist("/next", {}));
    say(error.message, true);
  }
}

function settle(body) {
  kept.set("pending", null);
  kept.set(`note:${body.pair_id}`, null);
}

async function undo() {
  const id = state.tally?.my_last_id;
  if (state.busy || !id) return;
  await during(async () => {
    const answer = await insist("/undo", { id });
    show(answer);
    if (state.lastNote && !$("note").value) openNote(state.lastNote);
    state.lastNote = "";
    say("Taken back: choose again.");
  });
}

async function during(work) {
  state.busy = true;
  document.body.classList.add("busy");
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    state.busy = false;
    document.body.classList.remove("busy");
  }
}

function only(id) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== id;
  $("bar").hidden = id !== "task";
  for (const quiet of ["progress", "count", "show-agreement", "rater"]) $(quiet).hidden = id === "join";
}

function show(answer) {
  state.item = answer.item;
  state.tally = answer.tally;
  showProgress(answer.tally);
  if (!answer.item) return showEnd(answer.tally);
  only("task");
  const { pair_id, principle, messages, responses } = answer.item;
  $("question-label").textContent = principle ? "Principle" : "Question";
  fill($("principle"), principle ?? "Which response is better?");
  $("conversation").replaceChildren(...messages.map(turn));
  fill($("first"), responses[0]);
  fill($("second"), responses[1]);
  for (const card of document.querySelectorAll("article")) card.classList.remove("chosen");
  const draft = kept.get(`note:${pair_id}`);
  if (draft) openNote(draft);
  else closeNote();
  $("undo").disabled = !answer.tally.my_last_id;
  window.scrollTo(0, 0);
  $("conversation").scrollTop = $("conversation").scrollHeight;
  state.shownAt = performance.now();
}

function turn(message) {
  const element = create("div", `turn ${message.role}`);
  const said = create("div", "said");
  said.dir = "auto";
  fill(said, message.content);
  element.append(create("h2", "", { user: "Person", assistant: "Assistant", system: "System" }[message.role]), said);
  return element;
}

function showProgress(tally) {
  $("progress").max = tally.wanted;
  $("progress").value = tally.done;
  $("count").textContent = `${tally.done} of ${tally.wanted}`;
  $("count").title = `${tally.mine} labels and ${tally.my_skips} skips are yours`;
  $("rater").textContent = state.rater;
}

function showEnd(tally) {
  only("end");
  const open = tally.wanted - tally.done;
  $("end-title").textContent = open ? "Nothing left for you." : "All done. Thank you.";
  $("end-text").textContent = open
    ? `${open === 1 ? "One label is" : `${open} labels are`} still wanted, from other people or on pairs that somebody has open now.`
    : `${tally.num_pairs} pairs are labelled.`;
  $("end-undo").hidden = !tally.my_last_id;
  $("look-again").hidden = !open;
  const yours = [["Your labels", String(tally.mine)], ["Your skips", String(tally.my_skips)]];
  list($("end-figures"), yours);
  ask("/agreement").then((figures) => list($("end-figures"), [...yours, ...describe(figures)]), (error) => say(error.message));
}

const percent = (x) => `${Math.round(100 * x)} %`;

function describe(figures) {
  const range = ({ value, low, high }) => (value === null ? "–" : `${percent(value)} (${percent(low)} to ${percent(high)})`);
  return [
    ["Pairs with two raters", String(figures.num_shared)],
    ["Krippendorff’s alpha", figures.alpha.value === null ? "–" : figures.alpha.value.toFixed(2)],
    ["Same verdict", range(figures.raw)],
    ["Chose response 1", range(figures.chose_first)],
  ];
}

function list(element, rows) {
  element.replaceChildren(...rows.flatMap(([name, value]) => [create("dt", "", name), create("dd", "", value)]));
}

function openNote(text) {
  $("note-box").hidden = false;
  $("note").value = text;
  $("note-button").setAttribute("aria-expanded", "true");
}

function closeNote() {
  if ($("note-box").contains(document.activeElement)) document.activeElement.blur();
  $("note-box").hidden = true;
  $("note").value = "";
  $("note-button").setAttribute("aria-expanded", "false");
}

function focusNote() {
  openNote($("note").value);
  $("note").focus();
}

function onKey(event) {
  if (event.key === "Escape" && event.target === $("note")) return $("note").blur();
  const typing = event.target.matches("input, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "?") $("help").showModal();
  else if (key === "u") undo();
  else if (key === "n" && state.item) focusNote();
  else if (key in KEYS) choose(KEYS[key]);
  else return;
  event.preventDefault();
}

async function join(event) {
  event.preventDefault();
  await during(async () => {
    Object.assign(state, await ask("/join", { name: $("name").value }));
    await begin();
  });
}

async function begin() {
  const pending = kept.get("pending");
  if (pending) await deliver(JSON.parse(pending));
  else show(await insist("/next", {}));
}

async function start() {
  if (location.search) history.replaceState(null, "", "/"); // the token doesn't stay in the address bar
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-choice]");
    if (button) choose(button.dataset.choice);
  });
  $("join-form").addEventListener("submit", join);
  $("note").addEventListener("input", () => state.item && kept.set(`note:${state.item.pair_id}`, $("note").value));
  $("note-button").addEventListener("click", focusNote);
  for (const id of ["undo", "end-undo"]) $(id).addEventListener("click", undo);
  $("look-again").addEventListener("click", () => during(begin));
  $("show-help").addEventListener("click", () => $("help").showModal());
  $("rater").addEventListener("click", () => askName());
  $("show-agreement").addEventListener("click", () =>
    during(async () => {
      list($("agreement-figures"), describe(await ask("/agreement")));
      $("agreement").showModal();
    }),
  );
  await during(async () => {
    Object.assign(state, await insist("/session"));
    if (state.rater) await begin();
    else askName();
  });
}

function askName() {
  state.item = null;
  only("join");
  $("name").value = state.rater;
  $("name").focus();
}

start();
