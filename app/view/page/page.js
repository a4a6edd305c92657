// `bodystream view`.

import { openPage } from "./recording.js";

const root = document.getElementById("view");
openPage(root).then((view) => view.timeline.toggle(true), (error) => { root.textContent = error.message; });
