"use strict";
// Figures: plotly's script is inflated once; each is drawn in the colours of the moment.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [...document.querySelectorAll(".plot")].map((place) => {
  const text = place.querySelector("script").textContent;
  const inner = document.createElement("div");
  place.replaceChildren(inner);
  return { place, inner, text };
});

function shaded(text, shades) {
  for (const [light, night] of Object.entries(shades)) text = text.replaceAll(light, night);
  return JSON.parse(text);
}

function draw(night) {
  const shades = night ? read("shades") : {};
  const template = shaded(document.getElementById("template").textContent, shades);
  for (const { place, inner, text } of plots) {
    const { data, layout } = shaded(text, shades);
    Plotly.react(inner, data, { ...layout, template, autosize: true },
      { responsive: true, displaylogo: false, displayModeBar: false });
    place.style.minHeight = "0";
  }
}

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function begin() {
  if (!plots.length) return;
  const code = document.createElement("script");
  code.textContent = await inflated(document.getElementById("plotly").textContent);
  document.head.append(code);
  draw(dark.matches);
  dark.addEventListener("change", () => draw(dark.matches));
  addEventListener("beforeprint", () => draw(false));
  addEventListener("afterprint", () => draw(dark.matches));
  document.documentElement.dataset.drawn = plots.length;
}

begin().catch((error) => {
  for (const { place } of plots) {
    place.style.minHeight = "0";
    place.textContent = `This browser cannot draw the figure (${error}): the values below can be read.`;
  }
});

// Tables: a click on a column's name sorts by it, a second one the other way.
const key = (row, column) => {
  const cell = row.cells[column];
  const value = cell.dataset.key ?? cell.textContent.trim();
  const number = Number(value);
  return value === "" || Number.isNaN(number) ? value : number;
};

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, undefined, { numeric: true });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const empty = (row) => key(row, column) === "–";
    body.append(...[...body.rows].sort((a, b) => empty(a) - empty(b)
      || (up ? 1 : -1) * compare(key(a, column), key(b, column))));
  }));
}
