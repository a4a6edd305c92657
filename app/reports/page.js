"use strict";
// What a pointer shows: values along the curves, and which events are compared. All else is static.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [start, end] = data.span;
  const minus = (text) => text.replace("-", "\u2212");
  const seconds = (time) => `${time > 0 ? "+" : ""}${minus(time.toFixed(2))} s`;
  const shown = (value, axis) => (value === null ? "\u2013" : minus(value.toFixed(axis.digits)));
  document.documentElement.classList.add("js");

  const nearest = (times, time) => {
    let best = 0;
    times.forEach((each, index) => {
      if (Math.abs(each - time) < Math.abs(times[best] - time)) best = index;
    });
    return best;
  };

  /** Where a plot's curves are, in the units of its drawing. */
  const plotOf = (figure) => {
    const svg = figure.querySelector(".plot");
    const [left, right, top, bottom] = ["left", "right", "top", "bottom"].map((each) => Number(svg.dataset[each]));
    const axis = data.axes[figure.dataset.measure];
    return {
      figure, svg, axis, measure: figure.dataset.measure,
      output: figure.querySelector("output"), still: figure.querySelector("output").textContent,
      x: (time) => left + ((time - start) / (end - start)) * (right - left),
      y: (value) => bottom - ((value - axis.low) / (axis.high - axis.low)) * (bottom - top),
      time: (event) => {
        const box = svg.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
        return start + ((Math.min(Math.max(x, left), right) - left) / (right - left)) * (end - start);
      },
    };
  };
  const put = (element, x, y) => {
    element.setAttribute("cx", x);
    element.setAttribute("cy", y);
  };

  /** The cursor at a time in one plot: a line, and a dot on every curve; the values it found. */
  const point = (plot, time) => {
    plot.svg.querySelector(".cursor").setAttribute("transform", `translate(${time === null ? -9 : plot.x(time)})`);
    return [...plot.svg.querySelectorAll("g[data-event]")].map((group) => {
      const each = data.events[group.dataset.event];
      const index = time === null ? -1 : nearest(each.times, time);
      const within = index >= 0 && Math.abs(each.times[index] - time) <= 0.1;
      const value = within ? each.curves[plot.measure][index] : null;
      const dot = group.querySelector(".at");
      if (value === null) put(dot, -9, -9);
      else put(dot, plot.x(each.times[index]), plot.y(value));
      return { group, value };
    });
  };

  document.querySelectorAll(".event").forEach((section) => {
    const grid = section.querySelector(".curves");
    const times = data.events[grid.dataset.first].times;
    if (!times.length) return;
    const plots = [...grid.querySelectorAll("figure")].map(plotOf);
    const scrub = section.querySelector(".scrub");
    const slider = scrub.querySelector("input");
    const moment = nearest(times, 0);
    const show = (index) => {
      plots.forEach((plot) => {
        const [{ value }] = point(plot, index === null ? null : times[index]);
        plot.output.textContent = index === null ? plot.still : shown(value, plot.axis);
        plot.output.classList.toggle("hover", index !== null);
      });
      slider.value = index ?? moment;
      slider.setAttribute("aria-valuetext", seconds(times[slider.value]));
      scrub.querySelector("output").textContent = seconds(times[slider.value]);
    };
    plots.forEach((plot) => {
      for (const kind of ["pointermove", "pointerdown"])
        plot.svg.addEventListener(kind, (event) => show(nearest(times, plot.time(event))));
    });
    grid.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(null));
    slider.addEventListener("input", () => show(Number(slider.value)));
    slider.addEventListener("blur", () => show(null));
    scrub.hidden = false;
    show(null);
  });

  const comparison = document.getElementById("comparison");
  if (!comparison) return;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const plots = [...comparison.querySelectorAll(".curves figure")].map(plotOf);
  const hide = () => {
    tip.hidden = true;
    plots.forEach((plot) => point(plot, null));
  };
  plots.forEach((plot) => {
    const move = (event) => {
      const time = plot.time(event);
      plots.forEach((each) => each !== plot && point(each, time));
      const head = document.createElement("b");
      head.textContent = seconds(time);
      const lines = point(plot, time).filter(({ group }) => !group.classList.contains("off-now")).map(({ group, value }) => {
        const line = document.createElement("div");
        const chip = document.createElement("i");
        chip.className = `chip ${group.getAttribute("class").replace("dim", "")}`;
        const number = document.createElement("b");
        number.textContent = Number(group.dataset.event) + 1;
        const text = document.createElement("span");
        text.textContent = shown(value, plot.axis);
        line.append(chip, number, text);
        return line;
      });
      tip.replaceChildren(head, ...lines);
      tip.hidden = false;
      plot.figure.append(tip);
      const box = plot.figure.getBoundingClientRect();
      const at = event.clientX - box.left;
      const room = document.documentElement.clientWidth - box.left - tip.offsetWidth - 8;
      tip.style.left = `${at > box.width / 2 ? Math.max(at - tip.offsetWidth - 14, -box.left + 4) : Math.min(at + 14, room)}px`;
      tip.style.top = "34px";
    };
    for (const kind of ["pointermove", "pointerdown"]) plot.svg.addEventListener(kind, move);
    plot.svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  });
  const parts = (number) => comparison.querySelectorAll(`g[data-event="${number}"], a[data-event="${number}"], tr[data-event="${number}"]`);
  comparison.querySelectorAll(".legend input").forEach((box) => {
    const label = box.closest("label");
    box.addEventListener("change", () => {
      parts(box.dataset.event).forEach((each) => each.classList.toggle("off-now", !box.checked && each.tagName !== "TR"));
      parts(box.dataset.event).forEach((each) => each.tagName === "TR" && each.classList.toggle("dim", !box.checked));
      hide();
    });
    const others = (dim) => comparison.querySelectorAll(".curves g[data-event]").forEach((each) =>
      each.classList.toggle("dim", dim && box.checked && each.dataset.event !== box.dataset.event));
    label.addEventListener("pointerenter", () => others(true));
    label.addEventListener("pointerleave", () => others(false));
  });
})();
