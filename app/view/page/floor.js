// How large the floor must be, and, where nothing measured it, a guess of its height from the feet.

import { Vector3 } from "./vendor/three.module.min.js";
import { JOINTS_AT, ROW } from "./frames.js";

const FEET = [7, 8, 10, 11], SOLE_M = 0.03, MOST = 600, EVERY = 15, MOST_M = 60;
// Not the very lowest: one wrong body would dig the floor in for ever.
const LOW = 0.05;

export class Floor {
  constructor() {
    this.heights_m = [];
    this.frames = 0;
    this.width = this.depth = 8;
    this.height_m = 0;
  }

  // Take in a frame; returns whether the floor is to be laid again.
  add(frame, stage) {
    const point = new Vector3();
    frame.tracks.forEach((_, index) => {
      const feet = FEET.map((joint) => stage.toWorld(point.fromArray(frame.rows, index * ROW + JOINTS_AT + 3 * joint)).y);
      this.heights_m.push(Math.min(...feet));
      this.width = Math.max(this.width, Math.min(2 * Math.ceil(Math.abs(point.x) + 1.5), MOST_M));
      this.depth = Math.max(this.depth, Math.min(Math.ceil(2 - point.z), MOST_M));
    });
    this.heights_m.splice(0, this.heights_m.length - MOST);
    if (!this.heights_m.length || this.frames++ % EVERY) { return false; }
    this.height_m = [...this.heights_m].sort((a, b) => a - b)[Math.floor(LOW * this.heights_m.length)] - SOLE_M;
    return true;
  }
}
