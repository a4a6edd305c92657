// A file of arrays, as app/view/container.py writes it.

const TYPES = {
  float32: Float32Array, float64: Float64Array, int16: Int16Array, int32: Int32Array,
  uint8: Uint8Array, uint16: Uint16Array,
};

// The header of a file, with each of its arrays under its name.
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const { arrays, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  for (const [name, { type, at, count }] of Object.entries(arrays)) {
    header[name] = new TYPES[type](buffer, at, count);
  }
  return header;
}
