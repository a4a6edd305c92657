// A live source in the 3D view: two tabs over its picture.

import { make } from "./make.js";
import { readFrame } from "./frames.js";

const GONE = 1001, FULL = 1013, DROPPED = 1006, SOON_MS = 200, RETRY_MS = 1500, MOST_LATE_S = 1.0, MOST_WAITING = 240;

// When frames are shown: at the pace of their own times, as late as the latest of the last ones came.
// The model sends several at once; shown as they come, they would jump.
export class Pace {
  constructor() { this.waiting = []; this.lags_s = []; }

  add(frame, now_s) {
    const lag_s = now_s - frame.pts_s;
    // A source that began anew counts from another time.
    if (this.lags_s.length && Math.abs(lag_s - this.lags_s.at(-1)) > MOST_LATE_S) { this.waiting = []; this.lags_s = []; }
    this.lags_s = [...this.lags_s.slice(-59), lag_s];
    this.waiting = [...this.waiting.slice(1 - MOST_WAITING), frame];
  }

  // The newest frame that is due, null where none has become due.
  next(now_s) {
    const late_s = Math.max(...this.lags_s);
    let due = null;
    while (this.waiting.length && this.waiting[0].pts_s + late_s <= now_s) { due = this.waiting.shift(); }
    return due;
  }
}

// Add the tabs "Picture" and "3D" to a source's card.
export function addTabs(card, name) {
  const picture = card.querySelector(".picture");
  const panel = make("div", { class: "view3d-live", role: "tabpanel", "aria-label": `${name} in 3D`, hidden: "" });
  const tabs = make("div", { class: "view3d-tabs", role: "tablist", "aria-label": `${name}: how it is shown` });
  const buttons = ["Picture", "3D"].map((text, index) => {
    const button = make("button", { type: "button", role: "tab" }, text);
    button.addEventListener("click", () => select(index));
    button.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") { select(1 - index); buttons[1 - index].focus(); }
    });
    return button;
  });
  let live = null;
  const select = (chosen) => {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", index === chosen);
      button.tabIndex = index === chosen ? 0 : -1;
    });
    picture.hidden = chosen === 1;
    panel.hidden = chosen === 0;
    if (picture.hidden) { card.close(); } else { card.open?.(); }
    live?.close();
    live = chosen === 1 ? new Live(panel, name) : null;
  };
  tabs.append(...buttons);
  card.querySelector(".screen").before(tabs);
  picture.after(panel);
  select(0);
}

// The stream of a source's bodies into a view, for as long as its tab is open.
class Live {
  constructor(panel, name) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.address = `${scheme}//${location.host}/ws/${encodeURIComponent(name)}/view`;
    this.root = make("div");
    this.status = make("p", { class: "note", role: "status" }, "Waiting for bodies…");
    panel.replaceChildren(this.root, this.status);
    // One after another, those of the next socket too: making the view takes a while, and messages
    // must keep their order.
    this.turn = Promise.resolve();
    this.hide = () => { if (document.hidden) { this.socket?.close(); } else { this.open(); } };
    document.addEventListener("visibilitychange", this.hide);
    this.open();
  }

  open() {
    if (this.socket || this.closed || document.hidden) { return; }
    // The card of a source that was removed is gone from the page.
    if (!this.root.isConnected) { this.close(); return; }
    const socket = this.socket = new WebSocket(this.address);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => {
      this.turn = this.turn.then(() => this.take(data)).catch((error) => {
        this.say(`${error.message} Trying again…`);
        socket.close();
      });
    });
    socket.addEventListener("close", ({ code, reason }) => {
      this.socket = null;
      if (code === FULL) { this.say(`Waiting for a place among the viewers: ${reason}.`); }
      if (code === DROPPED) { this.say("The connection was lost. Trying again…"); }
      // A source that begins again is back at once.
      setTimeout(() => this.open(), code === GONE ? SOON_MS : RETRY_MS);
    });
  }

  say(words) { this.status.textContent = words; }

  async take(data) {
    if (this.closed) { return; }
    if (typeof data !== "string") { this.pace.add(readFrame(data), performance.now() / 1000); return; }
    const scene = JSON.parse(data);
    this.pace = new Pace();
    const fits = this.view && !this.view.stage.lost && scene.model === this.scene.model;
    if (fits) { this.view.stage.setCamera(scene); } else { await this.build(scene); }
    this.scene = scene;
    if (this.view) { this.say(""); }
  }

  async build(scene) {
    const { View3D, loadBody, NO_WEBGL } = await import("./view3d.js");
    const body = await loadBody(scene);
    if (this.closed) { return; }
    this.dispose();
    try {
      this.view = new View3D(this.root, scene, body);
    } catch (error) {
      if (error.message !== NO_WEBGL) { throw error; }
      // It would fail again and again, until the tab is chosen anew.
      this.close();
      this.root.replaceChildren();
      this.say(NO_WEBGL);
      return;
    }
    this.view.stage.onFrame = (now_ms) => {
      const frame = this.pace.next(now_ms / 1000);
      if (frame) { this.view.showFrame(frame); }
    };
  }

  dispose() {
    this.view?.dispose();
    this.view = null;
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.hide);
    this.socket?.close();
    this.dispose();
  }
}
