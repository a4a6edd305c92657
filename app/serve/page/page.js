// The page: a card for each source, refreshed once a second.

import { attempt, byId, confirmed, download, note, request, send, trouble } from "./api.js";
import { refreshRecordings } from "./recordings.js";
import { addSettings, showSettings } from "./settings.js";
import { watch } from "./watch.js";
import { addTabs } from "/view/live.js";

const cards = new Map();

// After a change the page shows its effect at once.
async function act(work) {
  await attempt(work);
  // A server that does not answer is reported by `refreshForever`.
  await refresh().catch(() => {});
  refreshRecordings();
}

function newCard(name) {
  const card = byId("source").content.firstElementChild.cloneNode(true);
  const path = `/api/sources/${encodeURIComponent(name)}`;
  const place = card.querySelector(".screen"), picture = place.querySelector("img");
  const on = (selector, work) => card.querySelector(selector).addEventListener("click", work);
  const fullScreen = () => (document.fullscreenElement ? document.exitFullscreen() : place.requestFullscreen());
  picture.alt = `${name}, live`;
  card.setAttribute("aria-label", name);
  card.querySelector("h2").textContent = name;
  card.querySelector(".poses").href = `${path}/poses`;
  card.querySelector(".full").hidden = !document.fullscreenEnabled;
  on(".remove", () => act(async () => {
    const text = "It is no longer read, and its stored poses and events are lost. Its recordings stay.";
    if (!await confirmed(`Remove ${name}?`, text, "Remove")) { return; }
    await request(path, { method: "DELETE" });
    byId("sources").focus();
  }));
  on(".record", () => act(() => send("PUT", `${path}/recording`, { on: card.dataset.recording === "" })));
  on(".replay", () => act(() => request(`${path}/restart`, { method: "POST" })));
  on(".snapshot", () => attempt(() => download(`${path}/snapshot`)));
  on(".full", fullScreen);
  picture.addEventListener("dblclick", () => { if (document.fullscreenEnabled) { fullScreen(); } });
  addSettings(card, name, path);
  watch(name, card, picture);
  addTabs(card, name);
  return card;
}

document.addEventListener("visibilitychange", () => {
  for (const card of cards.values()) { if (document.hidden) { card.close(); } else { card.open(); } }
});

const delayText = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

function show(card, view) {
  const text = (place, words) => { card.querySelector(place).textContent = words; };
  card.dataset.state = view.state;
  card.dataset.recording = view.recording_wanted ? "on" : "";
  card.dataset.missing = view.recording_missing ? "yes" : "";
  text(".state", view.state);
  card.querySelector(".ended").hidden = view.state !== "ended";
  card.querySelector(".repeat").hidden = !view.clip;
  text(".address", view.address);
  text(".reason", view.reason);
  card.querySelector(".reason").title = view.reason;
  text(".fps", view.fps.toFixed(1));
  const seen = view.people + view.not_followed;
  text(".people", view.not_followed ? `${view.people} of ${seen}` : view.people);
  card.querySelector(".people").title = view.not_followed ? `${view.not_followed} more are seen and not followed: --people` : "";
  text(".latency", view.latency_ms ? delayText(view.latency_ms[0]) : "-");
  text(".dropped", Object.values(view.dropped).reduce((sum, count) => sum + count, 0));
  text(".reconnects", view.reconnects);
  card.querySelector(".worker").hidden = view.worker === null;
  text(".worker dd", view.worker ?? "");
  card.querySelector(".worker").title = `The worker of the cluster that runs it; moved ${view.moves} times, lost its worker ${view.failovers} times`;
  card.querySelector(".events").hidden = view.events === null;
  text(".events dd", view.events ?? "");
  const strip = card.querySelector(".strip");
  if (view.events && card.dataset.events !== String(view.events)) {
    strip.src = `/api/sources/${encodeURIComponent(view.name)}/events/${view.events - 1}/strip`;
    strip.alt = `the last event of ${view.name}, four frames about it`;
    strip.hidden = false;
  }
  card.dataset.events = String(view.events ?? "");
  const off = view.predicted_off_px;
  card.querySelector(".predicted").hidden = !off;
  if (off) { text(".predicted dd", `${off[0].toFixed(1)} px`); }
  card.querySelector(".dropped").title = Object.entries(view.dropped).map(([cause, n]) => `${cause}: ${n}`).join("\n");
  card.querySelector(".red").hidden = !view.recording_wanted;
  text(".red", view.recording_missing ? `NOT RECORDED: ${view.recording_cause}` : "REC");
  const button = card.querySelector(".record");
  button.textContent = view.recording_wanted ? "Stop" : "Record";
  button.classList.toggle("on", view.recording_wanted);
  showSettings(card, view);
}

async function refresh() {
  const views = await request("/api/sources");
  const present = new Set(views.map((view) => view.name));
  for (const [name, card] of cards) {
    if (!present.has(name)) { card.close(); card.remove(); cards.delete(name); }
  }
  for (const view of views) {
    if (!cards.has(view.name)) {
      cards.set(view.name, newCard(view.name));
      byId("sources").append(cards.get(view.name));
      cards.get(view.name).open();
    }
    show(cards.get(view.name), view);
  }
  const live = views.filter((view) => view.state === "live").length;
  const people = views.reduce((sum, view) => sum + view.people, 0);
  byId("summary").textContent = views.length ? `${live} of ${views.length} live, ${people} ${people === 1 ? "person" : "people"}` : "";
  byId("nothing").hidden = views.length > 0;
}

byId("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  act(async () => {
    const { name } = await send("POST", "/api/sources", { address: form.address.value, name: form.name.value || null });
    form.reset();
    note(`${name} is added.`);
  });
});

// Once a second; an error is shown until the server answers again.
async function refreshForever() {
  for (;;) {
    try {
      await refresh();
      if (byId("trouble").textContent.startsWith("The server")) { trouble(null); }
    } catch { trouble(new Error("The server does not answer.")); }
    await new Promise((done) => setTimeout(done, 1000));
  }
}
refreshForever();
