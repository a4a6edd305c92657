// Frames of bodies, as app/view/frames.py packs them. A body is one row of numbers.

export const JOINTS = 24;
// Where in a row each part begins: the axis-angles of SMPL's joints, the betas, the joints in metres.
export const BETAS_AT = 72, JOINTS_AT = 82, ROW = 154;
const HEAD_BYTES = 16;

// A live message: { frame, pts_s, tracks, rows }.
export function readFrame(buffer) {
  const view = new DataView(buffer);
  const count = view.getUint32(12, true);
  return {
    pts_s: view.getFloat64(0, true),
    frame: view.getUint32(8, true),
    tracks: new Int32Array(buffer, HEAD_BYTES, count),
    rows: new Float32Array(buffer, HEAD_BYTES + 4 * count, count * ROW),
  };
}

// Frame number `index` of a recording, without copying its numbers.
export function frameOf(recording, index) {
  const [first, end] = [recording.row[index], recording.row[index + 1]];
  return {
    pts_s: recording.pts_s[index],
    frame: recording.frame[index],
    tracks: recording.track.subarray(first, end),
    rows: recording.rows.subarray(first * ROW, end * ROW),
  };
}

export const NO_PEOPLE = { pts_s: 0, frame: -1, tracks: new Int32Array(0), rows: new Float32Array(0) };
