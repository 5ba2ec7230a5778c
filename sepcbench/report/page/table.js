"use strict";
// Sorting by header and filtering by text. Rows without a value stay last in either direction.

const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("table");
const body = table.tBodies[0];
const original = [...body.rows];
const onFilter = [];

function keyOf(row, column) {
  const cell = row.cells[column];
  if (cell.tagName === "TH" || !cell.classList.contains("number")) return cell.textContent;
  return "value" in cell.dataset ? Number(cell.dataset.value) : null;
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
  return a - b;
}

function sortBy(header) {
  const column = header.cellIndex;
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = original.map((row) => [keyOf(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * compare(a, b);
  });
  body.append(...rows.map(([, row]) => row));
}

function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of original) {
    row.hidden = !words.every((word) => row.dataset.words.includes(word));
  }
  const shown = original.filter((row) => !row.hidden);
  document.getElementById("count").textContent = `${shown.length} of ${original.length} rows`;
  const names = new Set(shown.map((row) => row.dataset.row));
  for (const listen of onFilter) listen(names);
}

for (const header of table.tHead.rows[0].cells) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));
