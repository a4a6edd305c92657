"use strict";

const cards = new Map();
const byId = (id) => document.getElementById(id);

// One request of the API; an error's message is the server's own sentence.
async function request(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (answer.status === 401) { location.href = "/login"; }
  if (!answer.ok) {
    let words = answer.statusText;
    try {
      const { detail } = await answer.json();
      words = typeof detail === "string" ? detail : detail.map((fault) => fault.msg).join("; ");
    } catch { /* no JSON: the status text is all there is */ }
    throw new Error(words || `error ${answer.status}`);
  }
  return answer.status === 204 ? null : answer.json();
}

const send = (method, path, body) => request(path, {
  method, headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

function trouble(error) {
  byId("trouble").textContent = error ? error.message : "";
  byId("trouble").hidden = !error;
}

async function attempt(work) {
  try { await work(); trouble(null); } catch (error) { trouble(error); }
  await refresh();
}

function newCard(name) {
  const card = byId("source").content.firstElementChild.cloneNode(true);
  const path = `/api/sources/${encodeURIComponent(name)}`;
  const picture = card.querySelector("img");
  picture.alt = `${name}, live`;
  card.querySelector("h2").textContent = name;
  card.querySelector(".poses").href = `${path}/poses`;
  card.querySelector(".remove").addEventListener("click", () => attempt(() => request(path, { method: "DELETE" })));
  card.querySelector(".record").addEventListener("click", () => attempt(() =>
    send("PUT", `${path}/recording`, { on: card.dataset.recording === "" })));
  watch(name, card, picture);
  import("/view/live.js").then(({ addTabs }) => addTabs(card, name));
  return card;
}

// Pictures come by WebSocket: a browser opens only six HTTP connections to a host, but many sockets.
// Each picture is requested once the last one is shown, so a slow connection shows fewer pictures
// and no late ones. Two requests are under way at the start, so the next picture is always coming.
function watch(name, card, picture) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  let socket = null;
  const ask = () => { if (socket?.readyState === WebSocket.OPEN) { socket.send(""); } };
  const open = () => {
    if (socket || document.hidden || !card.isConnected) { return; }
    socket = new WebSocket(`${scheme}//${location.host}/watch/${encodeURIComponent(name)}`);
    socket.binaryType = "blob";
    socket.addEventListener("open", () => { ask(); ask(); });
    socket.addEventListener("message", ({ data }) => {
      const url = URL.createObjectURL(data.slice(0, data.size, "image/jpeg"));
      const done = () => { URL.revokeObjectURL(url); ask(); };
      picture.onload = picture.onerror = done;
      picture.src = url;
    });
    socket.addEventListener("close", () => { socket = null; setTimeout(open, 1500); });
  };
  card.open = open;
  card.close = () => socket?.close();
}

document.addEventListener("visibilitychange", () => {
  for (const card of cards.values()) { if (document.hidden) { card.close(); } else { card.open(); } }
});

function show(card, view) {
  const text = (place, words) => { card.querySelector(place).textContent = words; };
  card.dataset.state = view.state;
  card.dataset.recording = view.recording_wanted ? "on" : "";
  card.dataset.missing = view.recording_missing ? "yes" : "";
  text(".state", view.state);
  text(".address", view.address);
  text(".reason", view.reason);
  card.querySelector(".reason").title = view.reason;
  text(".fps", view.fps.toFixed(1));
  const seen = view.people + view.not_followed;
  text(".people", view.not_followed ? `${view.people} of ${seen}` : view.people);
  card.querySelector(".people").title = view.not_followed ? `${view.not_followed} more are seen and not followed: --people` : "";
  text(".latency", view.latency_ms ? `${Math.round(view.latency_ms[0])} ms` : "-");
  text(".dropped", Object.values(view.dropped).reduce((sum, count) => sum + count, 0));
  text(".reconnects", view.reconnects);
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
}

function sizeText(bytes) {
  for (const unit of ["B", "kB", "MB"]) {
    if (bytes < 1000) { return `${bytes.toFixed(unit === "B" ? 0 : 1)} ${unit}`; }
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} GB`;
}

function showFiles(files) {
  byId("recordings").hidden = files.length === 0;
  byId("files").replaceChildren(...files.map(({ name, bytes }) => {
    const line = document.createElement("li"), link = document.createElement("a");
    const size = document.createElement("span");
    link.href = `/api/files/${encodeURIComponent(name)}`;
    link.textContent = name;
    size.textContent = sizeText(bytes);
    line.append(link, size);
    return line;
  }));
}

// Beside the sources, and one request at a time: the disk of the recordings may not answer.
let listing = false;
async function refreshFiles() {
  if (listing) { return; }
  listing = true;
  try {
    showFiles(await request("/api/files"));
    byId("unlisted").textContent = "";
  } catch (error) {
    byId("unlisted").textContent = error.message;
  } finally {
    listing = false;
  }
}

async function refresh() {
  refreshFiles();
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
  attempt(async () => {
    await send("POST", "/api/sources", { address: form.address.value, name: form.name.value || null });
    form.reset();
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
