"use strict";
// Sorting and filtering tables, highlighting one framework. Without it the page shows the same, in its own order.
const units = { "µs": 1e-6, ms: 1e-3, s: 1, B: 1, KiB: 1024, MiB: 1048576, GiB: 1073741824, "%": 0.01 };

function value(text) {
  if (text === "all" || text === "inf") return Infinity;
  const found = /^([-+]?[\d.,]+(?:e[-+]?\d+)?)\s*(\S*)$/.exec(text);
  return found ? Number(found[1].replaceAll(",", "")) * (units[found[2]] ?? 1) : NaN;
}

function compare(one, other) {
  const [a, b] = [value(one), value(other)];
  if (!Number.isNaN(a) && !Number.isNaN(b)) return a === b ? 0 : a < b ? -1 : 1;
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return one.localeCompare(other);
}

for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((one, other) => compare(text(one), text(other)) * (down ? -1 : 1));
      body.replaceChildren(...rows);
    });
  });
  if (body.rows.length <= 8) continue;
  const tools = document.createElement("div");
  tools.className = "tools";
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.type = "search";
  label.append(`Filter ${table.caption.textContent.toLowerCase()}: `, input);
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      shown += row.hidden ? 0 : 1;
    }
    said.textContent = words.length ? `${shown} of ${body.rows.length} rows` : "";
  });
  tools.append(label, said);
  table.closest(".scroll").before(tools);
}

const chooser = document.getElementById("highlight");
if (chooser) {
  chooser.hidden = false;
  const buttons = [...chooser.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of buttons) other.setAttribute("aria-pressed", String(on && other === button));
      if (on) document.body.dataset.highlight = button.dataset.series;
      else delete document.body.dataset.highlight;
      for (const drawn of document.querySelectorAll(".series")) {
        drawn.style.opacity = on && drawn.classList.contains(`of-${button.dataset.series}`) ? "1" : "";
      }
    });
  }
}
