// Pictures come by WebSocket: a browser opens only six HTTP connections to a host, but many sockets.
// Each picture is requested once the last one is shown, so a slow connection shows fewer pictures
// and no late ones. Two requests are under way at the start, so the next picture is always coming.

const GONE = 1001;

export function watch(name, card, picture) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  let socket = null;
  const ask = () => { if (socket?.readyState === WebSocket.OPEN) { socket.send(""); } };
  const open = () => {
    // While the card shows something else, such as its 3D view, no picture is asked for.
    if (socket || document.hidden || !card.isConnected || picture.parentElement.hidden) { return; }
    socket = new WebSocket(`${scheme}//${location.host}/watch/${encodeURIComponent(name)}`);
    socket.binaryType = "blob";
    socket.addEventListener("open", () => { ask(); ask(); });
    socket.addEventListener("message", ({ data }) => {
      const url = URL.createObjectURL(data.slice(0, data.size, "image/jpeg"));
      const done = () => { URL.revokeObjectURL(url); ask(); };
      picture.onload = picture.onerror = done;
      picture.src = url;
    });
    socket.addEventListener("close", ({ code }) => {
      socket = null;
      // A source that begins again is back at once.
      setTimeout(open, code === GONE ? 200 : 1500);
    });
  };
  card.open = open;
  card.close = () => socket?.close();
}
