"use strict";

// Before the page is drawn, so that it does not flash in the other theme.
(() => {
  const root = document.documentElement;
  const remembered = () => {
    try { return localStorage.getItem("theme"); } catch { return null; /* storage is blocked */ }
  };
  const show = (theme) => { root.dataset.theme = ["light", "dark"].includes(theme) ? theme : "auto"; };
  show(remembered());
  document.addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    if (!choice) { return; }
    choice.value = root.dataset.theme;
    choice.addEventListener("change", () => {
      show(choice.value);
      try { localStorage.setItem("theme", choice.value); } catch { /* for this visit only */ }
    });
  });
})();
