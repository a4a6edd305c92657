// Requests of the API, and what the page says of them.

export const byId = (id) => document.getElementById(id);

async function checked(answer) {
  if (answer.status === 401) { location.href = "/login"; }
  if (answer.ok) { return answer; }
  // An error's message is the server's own sentence.
  let words = await answer.text();
  try {
    const { detail } = JSON.parse(words);
    words = typeof detail === "string" ? detail : detail.map((fault) => fault.msg).join("; ");
  } catch { /* no JSON: the text is all there is */ }
  throw new Error(words || answer.statusText || `error ${answer.status}`);
}

export async function request(path, options = {}) {
  const answer = await checked(await fetch(path, { cache: "no-store", ...options }));
  return answer.status === 204 ? null : answer.json();
}

export const send = (method, path, body) => request(path, {
  method, headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

// Fetched, and not a link: where there is nothing to download, the page says why.
export async function download(path) {
  const answer = await checked(await fetch(path, { cache: "no-store" }));
  const given = answer.headers.get("content-disposition") ?? "";
  const [, quoted, plain] = given.match(/filename\*=utf-8''([^;]+)|filename="([^"]+)"/i) ?? [];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = quoted ? decodeURIComponent(quoted) : plain ?? "";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function trouble(error) {
  byId("trouble").textContent = error ? error.message : "";
  byId("trouble").hidden = !error;
}

export function note(words) { byId("note").textContent = words; }

export async function attempt(work) {
  try { await work(); trouble(null); } catch (error) { trouble(error); }
}

let answer = () => {};

// Resolves to whether the person agrees; Escape and Cancel are no.
export function confirmed(title, text, verb) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  dialog.querySelector("[value=yes]").textContent = verb;
  dialog.returnValue = "no";
  dialog.showModal();
  answer(false);
  // A dialog that is opened again at once still gets the event of its first closing.
  dialog.onclose = () => { if (!dialog.open) { answer(dialog.returnValue === "yes"); } };
  return new Promise((resolve) => { answer = resolve; });
}
