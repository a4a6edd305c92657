// Buttons for a recording's time: play, a slider, speed and loop.

import { make } from "./make.js";

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

export function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

export class Timeline {
  // `seek` is called with each new time in seconds, from 0 to `length_s`.
  constructor(root, length_s, step_s, seek) {
    this.length_s = length_s;
    this.seek = seek;
    this.now_s = 0;
    this.speed = 1;
    this.playing = false;
    this.last_ms = null;
    this.play = make("button", { type: "button", class: "play" });
    this.slider = make("input", { type: "range", min: 0, max: length_s, step: step_s, value: 0, "aria-label": "Time in seconds" });
    this.text = make("span", { class: "time" });
    const speed = make("select", { "aria-label": "Speed" }, ...SPEEDS.map((each) => make("option", { value: each }, `${each}×`)));
    speed.value = 1;
    this.loop = make("button", { type: "button", "aria-pressed": true }, "Loop");
    root.append(make("div", { class: "timeline" }, this.play, this.slider, this.text, speed, this.loop));
    this.play.addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    speed.addEventListener("change", () => { this.speed = Number(speed.value); });
    this.loop.addEventListener("click", () => this.loop.setAttribute("aria-pressed", !this.loops));
    root.addEventListener("keydown", (event) => {
      // On a button or a list the space bar does what it does everywhere.
      if (event.key === " " && !event.target.closest("button, select")) { event.preventDefault(); this.toggle(); }
    });
    this.toggle(false);
    this.go(0);
  }

  get loops() { return this.loop.getAttribute("aria-pressed") === "true"; }

  toggle(on = !this.playing) {
    this.playing = on;
    this.last_ms = null;
    this.play.textContent = on ? "Pause" : "Play";
    if (on && this.now_s >= this.length_s) { this.go(0); }
  }

  go(now_s) {
    this.now_s = Math.min(Math.max(now_s, 0), this.length_s);
    this.slider.value = this.now_s;
    this.text.textContent = `${clock(this.now_s)} / ${clock(this.length_s)}`;
    this.slider.setAttribute("aria-valuetext", this.text.textContent);
    this.seek(this.now_s);
  }

  // Called for every picture of the browser.
  tick(now_ms) {
    if (!this.playing) { return; }
    const passed_s = this.last_ms === null ? 0 : (now_ms - this.last_ms) / 1000 * this.speed;
    this.last_ms = now_ms;
    const next_s = this.now_s + passed_s;
    if (next_s < this.length_s) { this.go(next_s); return; }
    if (this.loops) { this.go(0); } else { this.go(this.length_s); this.toggle(false); }
  }
}
