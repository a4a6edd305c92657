// A recording in the 3D view: a page of its own, and a notebook's cell.

import { unpack } from "./container.js";
import { frameOf, NO_PEOPLE } from "./frames.js";
import { Timeline } from "./timeline.js";
import { loadBody, View3D } from "./view3d.js";

// The index of the last of rising times that is not after `time_s`, -1 where all are.
export function lastBefore(times_s, time_s) {
  let [low, high] = [0, times_s.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times_s[middle] <= time_s) { low = middle + 1; } else { high = middle; }
  }
  return low - 1;
}

// Show a recording in `root`: its unpacked file, and the free body's, null where its model is another.
export function showRecording(root, data, body) {
  const view = new View3D(root, data, body);
  const start_s = data.pts_s[0], frame_s = 1 / data.fps;
  let shown = null;
  const seek = (now_s) => {
    const time_s = start_s + now_s + frame_s / 100;
    const index = lastBefore(data.pts_s, time_s);
    // Frames without people are not in the file: where numbers are left out, no person is shown.
    const gap = data.frame[index + 1] > data.frame[index] + 1;
    const present = index >= 0 && !(gap && time_s - data.pts_s[index] > 0.99 * frame_s);
    const next = present ? index : -1;
    if (next === shown) { return; }
    shown = next;
    view.showFrame(present ? frameOf(data, index) : NO_PEOPLE);
  };
  view.timeline = new Timeline(root, data.pts_s.at(-1) - start_s, frame_s, seek);
  view.stage.onFrame = (now_ms) => view.timeline.tick(now_ms);
  return view;
}

// The page of `bodystream view`.
export async function openPage(root) {
  const recording = unpack(await (await fetch("/recording.bin")).arrayBuffer());
  return showRecording(root, recording, await loadBody(recording));
}

// A notebook's cell, which holds both files.
export function openInline(root, recording, body) {
  return showRecording(root, unpack(recording), body && unpack(body));
}
