// The settings of a source: shown as the server has them, sent when the person changes one.

import { attempt, note, send } from "./api.js";

const MESHES = ["mannequin", "anatomical", "wireframe", "silhouette"];
const STORED = (name) => `mesh style of ${name}`;
const kindOf = (style) => (MESHES.includes(style) ? "mesh" : style);

// A source that shows skeletons, or no bodies, says nothing of the meshes before.
function rememberedStyle(name) {
  try {
    const style = localStorage.getItem(STORED(name));
    return MESHES.includes(style) ? style : MESHES[0];
  } catch { return MESHES[0]; /* storage is blocked */ }
}

function rememberStyle(name, style) {
  try { localStorage.setItem(STORED(name), style); } catch { /* for this visit only */ }
}

function valueOf(control) {
  if (control.type === "checkbox" && control.dataset.on) {
    return control.checked ? control.dataset.on : control.dataset.off;
  }
  if (control.type === "checkbox") { return control.checked; }
  return control.type === "range" ? Number(control.value) : control.value;
}

function put(control, value) {
  if (control.type === "checkbox") { control.checked = value === (control.dataset.on ?? true); }
  else { control.value = value; }
}

export function addSettings(card, name, path) {
  const panel = card.querySelector(".settings"), adjust = card.querySelector(".adjust");
  const mesh = panel.querySelector("[data-setting=style]");
  mesh.value = rememberedStyle(name);
  const change = async (values) => {
    card.changing = (card.changing ?? 0) + 1;
    // Not with the answer: those of two changes come in any order.
    note("");
    try {
      await attempt(async () => {
        const { restarted } = await send("PATCH", path, values).catch((error) => {
          card.refused = true;
          throw error;
        });
        if (restarted) { note(`${name} begins again with this setting.`); }
      });
    } finally { card.changing -= 1; }
  };
  const open = (shown) => {
    panel.hidden = !shown;
    adjust.setAttribute("aria-expanded", String(shown));
    // It may open below the window's edge.
    if (shown) { panel.scrollIntoView({ block: "nearest" }); }
  };
  adjust.addEventListener("click", () => open(panel.hidden));
  panel.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") { open(false); adjust.focus(); }
  });
  panel.addEventListener("submit", (event) => event.preventDefault());
  for (const control of panel.querySelectorAll("[data-setting]")) {
    control.addEventListener("change", () => change({ [control.dataset.setting]: valueOf(control) }));
  }
  for (const radio of card.querySelectorAll(".segments input")) {
    radio.name = `bodies of ${name}`;
    radio.addEventListener("change", () => change({ style: radio.value === "mesh" ? mesh.value : radio.value }));
  }
  card.querySelector(".repeat").addEventListener("click", () => change({ loop: true }));
}

export function showSettings(card, view) {
  // What the person changes now is newer than what the server said, unless it was refused.
  if (card.changing) { return; }
  const focused = card.refused ? null : document.activeElement;
  card.refused = false;
  for (const control of card.querySelectorAll("[data-setting]")) {
    const value = view.settings[control.dataset.setting];
    const other = control.dataset.setting === "style" && !MESHES.includes(value);
    if (control !== focused && !other) { put(control, value); }
  }
  if (MESHES.includes(view.settings.style)) { rememberStyle(view.name, view.settings.style); }
  const kind = kindOf(view.settings.style);
  for (const radio of card.querySelectorAll(".segments input")) { radio.checked = radio.value === kind; }
  card.querySelector(".loop").hidden = !view.clip;
  card.querySelector(".rtsp").hidden = !view.address.startsWith("rtsp");
}
