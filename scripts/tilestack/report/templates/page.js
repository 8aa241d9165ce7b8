"use strict";
document.documentElement.classList.add("js");

// Plain mean against tile stack.
(() => {
  const box = document.getElementById("ab");
  const views = [...box.querySelectorAll(".view")];
  const modes = [...box.querySelectorAll("button[data-mode]")];
  const places = [...box.querySelectorAll("button[data-view]")];
  const slide = box.querySelector(".slide");
  let timer = null;

  const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));
  const show = (mode) => {
    clearInterval(timer);
    box.dataset.mode = mode;
    box.dataset.show = mode === "blink" ? "mean" : mode;
    if (mode === "blink") {
      timer = setInterval(() => {
        box.dataset.show = box.dataset.show === "mean" ? "stack" : "mean";
      }, 700);
    }
  };
  const cut = (percent) => {
    slide.value = percent;
    box.style.setProperty("--cut", `${percent}%`);
  };
  modes.forEach((b) => b.addEventListener("click", () => { press(modes, b); show(b.dataset.mode); }));
  places.forEach((b, k) => b.addEventListener("click", () => {
    press(places, b);
    box.dataset.view = String(k);
    views.forEach((v, i) => v.classList.toggle("current", i === k));
  }));
  slide.addEventListener("input", () => cut(slide.value));
  // In the picture itself the slider follows the pointer.
  views.forEach((v) => v.addEventListener("pointermove", (e) => {
    if (box.dataset.mode !== "slider") return;
    const frame = v.getBoundingClientRect();
    cut(Math.round(Math.min(100, Math.max(0, (100 * (e.clientX - frame.left)) / frame.width))));
  }));
  show("stack");
})();

// The table of frames: sort by a click, filter as one types.
(() => {
  const table = document.getElementById("frame-table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const filter = document.getElementById("filter");
  const marked = document.getElementById("only-marked");
  const count = document.getElementById("count");

  const value = (row, k) => row.cells[k].textContent.replace(/[▲▼]/g, "").trim();
  const numeric = heads.map((h, k) => k === 0 || h.classList.contains("n"));
  const keys = rows.map((row) => heads.map((h, k) => {
    const text = value(row, k);
    if (!numeric[k]) return text.toLowerCase();
    const number = Number.parseFloat(text);
    return Number.isNaN(number) ? null : number;
  }));
  const place = new Map(rows.map((row, k) => [row, k]));
  const sort = (k) => {
    const falling = heads[k].getAttribute("aria-sort") === "ascending";
    heads.forEach((h, i) => h.setAttribute("aria-sort", i !== k ? "none" : falling ? "descending" : "ascending"));
    const order = (a, b) => {
      const [x, y] = [keys[place.get(a)][k], keys[place.get(b)][k]];
      if (x === null || y === null) return (x === null) - (y === null); // unknown ones last, either way
      return (falling ? -1 : 1) * (numeric[k] ? x - y : x.localeCompare(y));
    };
    body.append(...[...rows].sort(order));
  };
  const sift = () => {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row) => {
      const flagged = row.classList.contains("excluded") || row.querySelector(".out") || row.cells[heads.length - 1].textContent.trim();
      const fits = (!wanted || `${row.textContent} ${row.cells[1].title}`.toLowerCase().includes(wanted)) && (!marked.checked || flagged);
      row.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown} of ${rows.length}`;
  };
  heads.forEach((h, k) => h.querySelector("button").addEventListener("click", () => sort(k)));
  filter.addEventListener("input", sift);
  marked.addEventListener("change", sift);
})();
