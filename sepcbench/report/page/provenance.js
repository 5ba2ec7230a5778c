// Where a cell comes from: a dialog with its record, published source, conditions and samples.

const dialog = document.getElementById("provenance");
const panel = document.getElementById("provenance-body");
const BINS = 24;

function add(parent, name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

function section(title, facts) {
  if (!facts.length) return;
  add(panel, "h3", title);
  const list = add(panel, "dl");
  for (const [name, value, code] of facts) {
    add(list, "dt", name);
    const place = add(list, "dd", code ? undefined : value);
    if (code) add(place, "code", value);
  }
}

// A column such as "latency_ratio@folded-fp32-1" is under further conditions; `text` is its cell.
function openProvenance(rowName, column, text) {
  const row = data.rows.find((one) => one.name === rowName);
  const [plain, more] = column.split("@");
  const { header, measure } = data.columns[plain];
  const kind = more ? `${measure}@${more}` : measure, source = data.sources[`${rowName}.${kind}`];
  const cell = more ? { text } : row.cells[plain] ?? {};
  document.getElementById("provenance-title").textContent = `${row.label}: ${header}${more ? `, ${more}` : ""}`;
  panel.replaceChildren();
  const facts = [["measured", cell.text ?? "not measured here"]];
  if (row.failures[kind]) facts.push(["failed", row.failures[kind]]);
  if (source?.file) facts.push(["record", source.file, true]);
  if (source?.created) facts.push(["created", source.created]);
  if (source?.commit) facts.push(["git commit", source.commit, true]);
  if (source) facts.push([source.file ? "measure again" : "measure", source.command, true]);
  facts.push(["cell", `${rowName}.${column}`, true]);
  section("Measured", facts);
  section("Published", cell.facts ?? []);
  if (source?.samples?.length) histogram(source.samples);
  section("Conditions", source?.conditions ?? []);
  section("Environment", data.environments[source?.environment] ?? []);
  dialog.showModal();
  panel.scrollTop = 0;
}

// Counts of raw samples in equal bins. The slowest hundredth is left out of the picture, not of
// the numbers: one outlier would squeeze all others into a single bar.
function histogram(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  const kept = sorted.slice(0, Math.max(1, Math.ceil(sorted.length * 0.99)));
  const low = kept[0], high = kept[kept.length - 1], width = (high - low) / BINS || 1;
  const counts = new Array(BINS).fill(0);
  for (const value of kept) counts[Math.min(BINS - 1, Math.floor((value - low) / width))] += 1;
  const left = sorted.length - kept.length;
  const rest = left ? `; ${left} above ${high} ms, up to ${sorted[sorted.length - 1]} ms, not drawn` : "";
  add(panel, "h3", "Raw samples");
  const stretched = { viewBox: `0 0 ${BINS} 1`, preserveAspectRatio: "none", role: "img" };
  const picture = svg("svg", { class: "histogram", ...stretched }, panel);
  picture.setAttribute("aria-label", `Histogram of ${samples.length} samples, ${low} to ${high} ms${rest}`);
  const most = Math.max(...counts);
  counts.forEach((count, i) => {
    svg("rect", { x: i + 0.04, y: 1 - count / most, width: 0.92, height: count / most }, picture);
  });
  const ends = add(panel, "p", undefined, "ends");
  add(ends, "span", `${low} ms`);
  add(ends, "span", `${high} ms`);
  add(panel, "p", `${samples.length} samples${rest}.`, "hint");
}

document.querySelector("main").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-cell]");
  if (!button) return;
  const dot = button.dataset.cell.lastIndexOf(".");
  openProvenance(button.dataset.cell.slice(0, dot), button.dataset.cell.slice(dot + 1), button.textContent);
});
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
