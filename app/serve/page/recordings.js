// The list of recordings: play, download, delete.

import { attempt, byId, confirmed, download, note, request } from "./api.js";

const KINDS = { npz: "NumPy (npz)", glb: "Meshes (GLB)", bvh: "Skeletons (BVH)" };
const rows = new Map();
const fileUrl = (name) => `/api/files/${encodeURIComponent(name)}`;

export function sizeText(bytes) {
  for (const unit of ["B", "kB", "MB"]) {
    if (bytes < 1000) { return `${bytes.toFixed(unit === "B" ? 0 : 1)} ${unit}`; }
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} GB`;
}

// A recording is named NAME_DATE-TIME; other files in the folder have any name.
function titleOf(name) {
  const found = name.match(/^(.+)_(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)(?:-\d+)?$/);
  if (!found) { return [name, ""]; }
  const [, source, year, month, ...rest] = found;
  const begun = new Date(year, month - 1, ...rest);
  return [source, begun.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })];
}

function play(recording) {
  const dialog = byId("player"), video = dialog.querySelector("video");
  const parts = dialog.querySelector(".parts"), [source, when] = titleOf(recording.name);
  byId("player-title").textContent = `${source} ${when}`;
  let number = 0;
  const begin = (part) => {
    number = part;
    video.src = fileUrl(recording.videos[part].name);
    for (const [place, button] of [...parts.children].entries()) {
      button.setAttribute("aria-pressed", String(place === part));
    }
  };
  parts.hidden = recording.videos.length < 2;
  parts.replaceChildren(...recording.videos.map((_, part) => {
    const button = document.createElement("button");
    button.textContent = `Part ${part + 1}`;
    button.addEventListener("click", () => begin(part));
    return button;
  }));
  video.onended = () => { if (number + 1 < recording.videos.length) { begin(number + 1); } };
  video.onerror = () => {
    const why = recording.being_written ? "no picture is on the disk yet" : "this video cannot be played";
    if (video.src) { byId("player-title").textContent = `${source}: ${why}`; }
  };
  dialog.showModal();
  begin(0);
}

function remove(recording) {
  return attempt(async () => {
    const [source, when] = titleOf(recording.name);
    const text = `The recording of ${source} ${when} (${sizeText(recording.bytes)}) cannot be brought back.`;
    if (!await confirmed("Delete this recording?", text, "Delete")) { return; }
    await request(`/api/recordings/${encodeURIComponent(recording.name)}`, { method: "DELETE" });
    await refreshRecordings();
    byId("recordings-title").focus();
  });
}

function newRow(name) {
  const row = byId("recording").content.firstElementChild.cloneNode(true);
  const [source, when] = titleOf(name), menu = row.querySelector("details");
  row.querySelector("b").textContent = source;
  row.querySelector(".when").textContent = when;
  row.querySelector(".play").setAttribute("aria-label", `Play ${source} ${when}`);
  row.querySelector(".delete").setAttribute("aria-label", `Delete ${source} ${when}`);
  row.querySelector(".play").addEventListener("click", () => play(row.recording));
  row.querySelector(".delete").addEventListener("click", () => remove(row.recording));
  menu.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
  });
  return row;
}

function fileLink(name, words) {
  const link = document.createElement("a");
  link.href = fileUrl(name);
  link.download = name;
  link.title = name;
  link.textContent = words;
  return link;
}

// Made on request, which takes a while.
function poseButton(recording, kind) {
  const button = document.createElement("button");
  button.textContent = KINDS[kind];
  button.addEventListener("click", async () => {
    button.disabled = true;
    note(`${KINDS[kind]} of ${recording.name} is being made.`);
    await attempt(() => download(`/api/recordings/${encodeURIComponent(recording.name)}/poses?kind=${kind}`));
    note("");
    button.disabled = false;
  });
  return button;
}

function showRow(row, recording) {
  const shown = JSON.stringify({ ...recording, bytes: 0, changed_s: 0 });
  const parts = recording.videos.length > 1 ? `, ${recording.videos.length} parts` : "";
  const state = recording.being_written ? ", recording now" : "";
  row.querySelector(".size").textContent = `${sizeText(recording.bytes)}${parts}${state}`;
  row.recording = recording;
  // Only what changed is made anew: the person may be on one of the links.
  if (row.dataset.shown === shown) { return; }
  row.dataset.shown = shown;
  row.querySelector(".play").disabled = recording.videos.length === 0;
  row.querySelector(".delete").disabled = recording.being_written;
  row.querySelector(".delete").hidden = !recording.deletable;
  const videos = recording.videos.map(({ name }, part) => fileLink(name, parts ? `Video ${part + 1}` : "Video"));
  const lines = recording.lines ? [fileLink(recording.lines, "JSON lines")] : [];
  const poses = recording.has_poses ? Object.keys(KINDS).map((kind) => poseButton(recording, kind)) : [];
  row.querySelector("details .row").replaceChildren(...videos, ...lines, ...poses);
}

function showAll(recordings) {
  byId("recordings").hidden = recordings.length === 0;
  const present = new Set(recordings.map(({ name }) => name));
  for (const [name, row] of rows) {
    if (!present.has(name)) { row.remove(); rows.delete(name); }
  }
  recordings.forEach((recording, place) => {
    if (!rows.has(recording.name)) { rows.set(recording.name, newRow(recording.name)); }
    const row = rows.get(recording.name), there = byId("files").children[place];
    // Moved only where it must be: moving takes the focus away.
    if (there !== row) { byId("files").insertBefore(row, there ?? null); }
    showRow(row, recording);
  });
}

// Beside the sources, and one request at a time: the disk of the recordings may not answer.
let listing = false;
export async function refreshRecordings() {
  if (listing) { return; }
  listing = true;
  try {
    showAll(await request("/api/recordings"));
    byId("unlisted").textContent = "";
  } catch (error) {
    byId("unlisted").textContent = error.message;
  } finally {
    listing = false;
  }
}

// Less often than the sources: a long list costs the disk and the browser something.
const refreshSeen = () => { if (!document.hidden) { refreshRecordings(); } };
setInterval(refreshSeen, 5000);
document.addEventListener("visibilitychange", refreshSeen);
refreshSeen();

const player = byId("player"), video = player.querySelector("video");
player.querySelector(".close").addEventListener("click", () => player.close());
player.addEventListener("close", () => {
  // Else the browser goes on loading.
  video.removeAttribute("src");
  video.load();
});
