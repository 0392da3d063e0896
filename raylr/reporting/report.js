"use strict";
// Shows the values below the pointer, hides and shows runs, and keeps a live page up to date. Draws nothing: the pictures are
// there without it. All text reaches the page as text, never as markup.
(() => {
  const hidden = new Set();
  let panels = [], labels = [], shownAt = null;

  function make(parent, kind, name, text) {
    const made = document.createElement(kind);
    made.className = name;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function told(value, scale) {
    if (value === null) return "–";
    if (scale === "percent") return (100 * value).toFixed(2) + "%";
    if (scale === "whole") return String(value);
    return String(Number(value.toPrecision(4)));
  }

  // The index of the point that is nearest to x; of a line in steps, that of the step which x is on.
  function nearest(line, x, inSteps) {
    let low = 0, high = line.x.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (line.x[middle] <= x) low = middle; else high = middle - 1;
    }
    const next = low + 1;
    return !inSteps && next < line.x.length && line.x[next] - x < x - line.x[low] ? next : low;
  }

  function heightOf(value, frame) {
    const scaled = frame.log ? Math.log(value) : value;
    const [low, high] = frame.log ? frame.y.map(Math.log) : frame.y;
    return frame.box[1] + (1 - (scaled - low) / (high - low)) * frame.box[3];
  }

  function clear() {
    for (const one of document.querySelectorAll(".tip, .cursor, .dot")) one.remove();
    shownAt = null;
  }

  // Shows the values of a picture at an epoch.
  function show(picture, epoch) {
    clear();
    const panel = panels[Number(picture.dataset.panel)];
    const drawing = [...picture.querySelectorAll("svg")].find(one => one.getBoundingClientRect().width > 0);
    if (!panel || !drawing) return;
    const x = Math.min(Math.max(epoch, 0), panel.length);
    const frame = panel.frames[drawing.parentElement.className], [left, top, width, height] = frame.box;
    const box = drawing.getBoundingClientRect(), around = picture.getBoundingClientRect();
    const place = (part, whole, start) => `${part * whole + start}px`;
    const cursor = make(picture, "div", "cursor");
    cursor.style.left = place(left + x / panel.length * width, box.width, box.left - around.left);
    cursor.style.top = place(top, box.height, box.top - around.top);
    cursor.style.height = `${height * box.height}px`;
    const tip = make(picture, "div", "tip");
    make(tip, "b", "", `epoch ${told(x, "number")}`);
    for (const line of [...panel.lines].sort((one, other) => one.faint - other.faint)) {
      if (hidden.has(line.run) || !line.x.length) continue;
      const at = nearest(line, x, panel.steps), value = line.y[at];
      const row = make(tip, "div", "row");
      row.style.setProperty("--own", `var(--run${line.run % panel.colors})`);
      make(row, "i", line.faint ? "faint" : "");
      make(row, "span", "", labels[line.run] + (line.name ? ` ${line.name}` : ""));
      make(row, "em", "", told(value, panel.scale));
      if (value === null) continue;
      const dot = make(picture, "div", "dot");
      dot.style.setProperty("--own", `var(--run${line.run % panel.colors})`);
      const where = panel.steps ? x : line.x[at];
      dot.style.left = place(left + where / panel.length * width, box.width, box.left - around.left);
      dot.style.top = place(heightOf(value, frame), box.height, box.top - around.top);
    }
    const isRight = x / panel.length > 0.5;
    tip.style.setProperty("--from-left", isRight ? "auto" : `calc(${cursor.style.left} + 12px)`);
    tip.style.setProperty("--from-right", isRight ? `calc(100% - ${cursor.style.left} + 12px)` : "auto");
    shownAt = {panel: picture.dataset.panel, epoch: x};
  }

  function epochAt(picture, event) {
    const panel = panels[Number(picture.dataset.panel)];
    const drawing = [...picture.querySelectorAll("svg")].find(one => one.getBoundingClientRect().width > 0);
    if (!panel || !drawing) return null;
    const box = drawing.getBoundingClientRect(), frame = panel.frames[drawing.parentElement.className];
    return ((event.clientX - box.left) / box.width - frame.box[0]) / frame.box[2] * panel.length;
  }

  function hide(run, isHidden) {
    if (isHidden) hidden.add(run); else hidden.delete(run);
    for (const part of document.querySelectorAll(`[id*="-r${run}-"]`)) part.style.display = isHidden ? "none" : "";
    for (const button of document.querySelectorAll(`button[data-run="${run}"]`)) {
      button.setAttribute("aria-pressed", String(!isHidden));
    }
  }

  // Reads what the page holds, also after a live page has got new content.
  function begin() {
    const data = JSON.parse(document.getElementById("data").textContent);
    panels = data.panels;
    labels = data.labels;
    for (const picture of document.querySelectorAll(".picture")) {
      const follow = event => { const epoch = epochAt(picture, event); if (epoch !== null) show(picture, epoch); };
      picture.addEventListener("pointermove", follow);
      picture.addEventListener("pointerdown", follow);
      picture.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") clear(); });
      picture.addEventListener("keydown", event => {
        const length = panels[Number(picture.dataset.panel)].length;
        const by = {ArrowLeft: -0.01, ArrowRight: 0.01, PageUp: 0.1, PageDown: -0.1}[event.key];
        if (event.key === "Escape") clear();
        if (by === undefined) return;
        event.preventDefault();
        show(picture, (shownAt && shownAt.panel === picture.dataset.panel ? shownAt.epoch : 0) + by * length);
      });
    }
    for (const button of document.querySelectorAll("button[data-run]")) {
      button.addEventListener("click", () => hide(Number(button.dataset.run), button.getAttribute("aria-pressed") === "true"));
    }
    for (const run of hidden) hide(run, true);
  }

  // Asks for a newer page now and then; puts its content in the place of the old.
  async function update() {
    const root = document.documentElement, state = document.getElementById("live");
    try {
      const query = new URLSearchParams(location.search);
      query.set("since", root.dataset.version);
      const answer = await fetch(`${location.pathname}?${query}`, {cache: "no-store"});
      if (answer.status === 200) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const opened = new Set([...document.querySelectorAll("details[open]")].map(one => one.dataset.name));
        document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
        root.dataset.version = page.documentElement.dataset.version;
        document.title = page.title;
        for (const one of document.querySelectorAll("details")) one.open ||= opened.has(one.dataset.name);
        const before = shownAt;
        begin();
        const picture = before && document.querySelector(`.picture[data-panel="${before.panel}"]`);
        if (picture) show(picture, before.epoch);
      } else if (answer.status !== 204) {
        throw new Error(`status ${answer.status}`);
      }
      document.getElementById("live").textContent = "live";
    } catch (error) {
      if (state) document.getElementById("live").textContent = "no longer live: raylr report --live has ended";
    }
    setTimeout(update, 1000 * Number(root.dataset.every));
  }

  document.addEventListener("pointerdown", event => { if (!event.target.closest(".picture")) clear(); });
  begin();
  if (document.documentElement.dataset.version) setTimeout(update, 1000 * Number(document.documentElement.dataset.every));
})();
