// The plot: accuracy over price, drawn as SVG out of the page's data and drawn again on a new
// choice, filter or width. Full markers are measured, hollow ones published.

const SVG = "http://www.w3.org/2000/svg";
const plot = document.getElementById("plot");
const axes = { x: document.getElementById("x"), y: document.getElementById("y") };
const tip = document.createElement("div");
let visible = new Set(data.rows.map((row) => row.name));

function svg(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

// Points of the rows: {row, x, y, kind, bar, rise}: bar and rise are 95 % intervals of x and y. A published accuracy stands over the published price
// where both are of one paper ("both"), else over the measured price.
function points(x, y) {
  const found = [];
  for (const row of data.rows) {
    const price = row.cells[x] ?? {}, gain = row.cells[y] ?? {};
    if (price.value !== undefined && gain.value !== undefined) {
      found.push({ row, x: price.value, y: gain.value, kind: "measured", bar: price.interval, rise: gain.interval });
    }
    if (gain.published === undefined) continue;
    const elsewhere = x === "latency_ratio" ? row.published_ratio : price.published;
    if (x === "latency_ratio" && elsewhere !== null) {
      found.push({ row, x: elsewhere, y: gain.published, kind: "both" });
    } else if (price.value !== undefined) {
      found.push({ row, x: price.value, y: gain.published, kind: "published", bar: price.interval });
    } else if (x !== "latency" && elsewhere !== undefined && elsewhere !== null) {
      found.push({ row, x: elsewhere, y: gain.published, kind: "both" });
    }
  }
  return found;
}

// The points that no other beats: none is at most as expensive and more accurate.
function front(all) {
  const sorted = [...all].sort((a, b) => a.x - b.x || b.y - a.y);
  const kept = [];
  for (const point of sorted) {
    if (!kept.length || point.y > kept[kept.length - 1].y) kept.push(point);
  }
  return kept;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((value) => [value, value.toFixed(digits)]);
}

function scale(values, from, to) {
  let low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
  low -= margin;
  high += margin;
  const map = (value) => from + ((value - low) / (high - low)) * (to - from);
  return Object.assign(map, { low, high });
}

function axisTitle(name, published) {
  const set = data.data && name === axes.y.value ? ` (${data.data})` : "";
  return data.columns[name].header.replace(/ \((lower|higher) is better\)/, "") + set + published;
}

function draw() {
  const x = axes.x.value, y = axes.y.value;
  const width = Math.max(280, plot.clientWidth), height = Math.min(480, Math.max(320, width * 0.52));
  const box = { left: 52, right: width - 14, top: 14, bottom: height - 46 };
  const all = points(x, y).filter((point) => visible.has(point.row.name));
  hideTip();
  plot.querySelector("svg")?.remove();
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group" });
  picture.setAttribute("aria-label", `${axisTitle(y, "")} over ${axisTitle(x, "")}`);
  plot.prepend(picture);
  if (!all.length) {
    svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, picture, "no row has both values");
    document.getElementById("legend").textContent = "";
    return;
  }
  const toX = scale(all.flatMap((point) => [point.x, ...(point.bar ?? [])]), box.left, box.right);
  const toY = scale(all.flatMap((point) => [point.y, ...(point.rise ?? [])]), box.bottom, box.top);
  drawAxes(picture, box, toX, toY, axisTitle(x, ", lower is better"), axisTitle(y, ", higher is better"));
  const lines = drawFronts(picture, all, toX, toY, box);
  const placed = all.map((point) => ({
    point, x: toX(point.x), y: toY(point.y), bar: point.bar?.map(toX), rise: point.rise?.map(toY),
  }));
  for (const mark of placed) drawPoint(picture, mark, toX, toY, x, y);
  drawNames(picture, placed, box, [...lines, ...barBoxes(placed)]);
  explain(all);
}

function drawAxes(picture, box, toX, toY, xTitle, yTitle) {
  for (const [value, text] of ticks(toX.low, toX.high, Math.max(4, (box.right - box.left) / 110))) {
    svg("line", { class: "grid", x1: toX(value), x2: toX(value), y1: box.top, y2: box.bottom }, picture);
    svg("text", { class: "tick", x: toX(value), y: box.bottom + 16, "text-anchor": "middle" }, picture, text);
  }
  for (const [value, text] of ticks(toY.low, toY.high, 6)) {
    svg("line", { class: "grid", x1: box.left, x2: box.right, y1: toY(value), y2: toY(value) }, picture);
    svg("text", { class: "tick", x: box.left - 7, y: toY(value) + 4, "text-anchor": "end" }, picture, text);
  }
  const middle = (box.left + box.right) / 2, centre = (box.top + box.bottom) / 2;
  svg("text", { x: middle, y: box.bottom + 37, "text-anchor": "middle" }, picture, xTitle);
  const turned = { x: 14, y: centre, "text-anchor": "middle", transform: `rotate(-90 14 ${centre})` };
  svg("text", turned, picture, yTitle);
}

// As steps: between two points of the front, the best that is had for a price is the cheaper one's.
// Gives the boxes that the line covers.
function drawFronts(picture, all, toX, toY, box) {
  const covered = [];
  const groups = {
    measured: all.filter((point) => point.kind === "measured"),
    published: all.filter((point) => point.kind !== "measured"),
  };
  for (const [name, group] of Object.entries(groups)) {
    if (group.length < 2) continue;
    const corners = front(group).map((point) => [toX(point.x), toY(point.y)]);
    const steps = corners.map(([x, y]) => `H${x}V${y}`).join("");
    svg("path", { class: `front ${name}`, d: `M${corners[0][0]},${box.bottom}${steps}H${box.right}` }, picture);
    corners.forEach(([x, y], i) => {
      covered.push([x, y - 1, corners[i + 1]?.[0] ?? box.right, y + 1]);
      covered.push([x - 1, y, x + 1, corners[i - 1]?.[1] ?? box.bottom]);
    });
  }
  return covered;
}

function marker(kind, x, y) {
  if (kind === "both") return ["rect", { x: x - 6, y: y - 6, width: 12, height: 12 }];
  return ["circle", { cx: x, cy: y, r: kind === "measured" ? 6 : 7 }];
}

function drawPoint(picture, mark, toX, toY, x, y) {
  const { point } = mark, hollow = point.kind === "measured" ? "" : "hollow";
  const group = svg("g", { class: `point ${hollow} c${point.row.colour}`, tabindex: 0, role: "button" }, picture);
  group.setAttribute("aria-haspopup", "dialog");
  group.setAttribute("aria-label", describe(point, x, y).replaceAll("\n", ", "));
  group.dataset.row = point.row.name;
  group.dataset.kind = point.kind;
  if (point.bar) {
    const ends = { x1: toX(point.bar[0]), x2: toX(point.bar[1]), y1: mark.y, y2: mark.y };
    svg("line", { class: "bar", ...ends }, group);
  }
  if (point.rise) {
    const ends = { x1: mark.x, x2: mark.x, y1: toY(point.rise[0]), y2: toY(point.rise[1]) };
    svg("line", { class: "bar rise", ...ends }, group);
  }
  const [shape, attributes] = marker(point.kind, mark.x, mark.y);
  svg(shape, { class: "mark", ...attributes }, group);
  for (const event of ["pointerenter", "focus"]) {
    group.addEventListener(event, () => showTip(mark, describe(point, x, y)));
  }
  for (const event of ["pointerleave", "blur"]) group.addEventListener(event, hideTip);
  const open = () => openProvenance(point.row.name, y);
  group.addEventListener("click", open);
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open();
  });
}

function describe(point, x, y) {
  const price = point.row.cells[x] ?? {}, measured = point.kind === "measured";
  const xText = point.kind === "both" ? `${Number(point.x.toPrecision(4))} (published)` : price.text;
  const ends = point.rise ? ` [${point.rise.map((end) => end.toFixed(1)).join(", ")}]` : "";
  const yText = measured ? point.row.cells[y].text + ends : `${point.y} (published)`;
  return `${point.row.label}\n${axisTitle(y, "")}: ${yText}\n${axisTitle(x, "")}: ${xText}`;
}

function showTip(mark, text) {
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(mark.x + 12, plot.clientWidth - tip.offsetWidth - 4);
  const above = mark.y - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${above > 0 ? above : mark.y + 14}px`;
}

function hideTip() {
  tip.hidden = true;
}

// A row's name goes to the first place beside one of its points that hides nothing, else to one
// that hides no more than a piece of an interval or of the front; else nowhere.
function drawNames(picture, placed, box, lines) {
  const taken = placed.map(({ x, y }) => [x - 7, y - 7, x + 7, y + 7]);
  const free = (place, hidden) => inside(place, box) && !hidden.some((one) => overlap(place, one));
  const named = new Set(), rises = new Map(placed.map((mark) => [mark.point, mark.rise]));
  for (const { point, x, y } of [...placed].sort((a, b) => a.y - b.y)) {
    if (named.has(point.row.name)) continue;
    const text = svg("text", { class: "name" }, picture, point.row.label);
    const length = text.getComputedTextLength();
    const found = [...places(x, y, length), ...ends(rises.get(point), x, length)];
    const place = found.find((one) => free(one, [...lines, ...taken])) ?? found.find((one) => free(one, taken));
    if (!place) {
      text.remove();
      continue;
    }
    named.add(point.row.name);
    text.setAttribute("x", place[0]);
    text.setAttribute("y", place[3] - 3);
    text.setAttribute("aria-hidden", "true");
    taken.push(place);
  }
}

function places(x, y, length) {
  const found = [];
  for (const dy of [0, -12, 12, -20, 20]) {
    for (const left of [x + 10, x - 10 - length]) found.push([left, y - 7 + dy, left + length, y + 7 + dy]);
  }
  for (const dy of [-16, 16]) found.push([x - length / 2, y - 7 + dy, x + length / 2, y + 7 + dy]);
  return found;
}

// Above and below a point's upright interval.
function ends(rise, x, length) {
  if (!rise) return [];
  const heights = [Math.min(...rise) - 10, Math.max(...rise) + 10];
  return heights.flatMap((y) => [x - length / 2, x + 6, x - 6 - length].map((left) => [left, y - 7, left + length, y + 7]));
}

// The boxes that the intervals of points cover.
function barBoxes(placed) {
  return placed.flatMap(({ x, y, bar, rise }) => [
    ...(bar ? [[Math.min(...bar), y - 1, Math.max(...bar), y + 1]] : []),
    ...(rise ? [[x - 1, Math.min(...rise), x + 1, Math.max(...rise)]] : []),
  ]);
}

function inside([left, top, right, bottom], box) {
  return left >= box.left && right <= box.right && top >= box.top && bottom <= box.bottom;
}

function overlap(a, b) {
  return a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
}

function explain(all) {
  const words = {
    measured: "● measured, with its 95 % interval where there is one",
    published: "○ published accuracy over the measured price",
    both: "□ published accuracy and price",
  };
  const kinds = Object.keys(words).filter((kind) => all.some((point) => point.kind === kind));
  const lines = kinds.map((kind) => words[kind]);
  lines.push(kinds.length > 1 ? "line: Pareto front (dashed: of the published)" : "line: Pareto front");
  document.getElementById("legend").textContent = `${lines.join(" · ")}. A point opens where it comes from.`;
}

function fill(select, names) {
  for (const name of names) {
    const option = document.createElement("option");
    option.value = name;
    option.textContent = data.columns[name]?.header ?? name;
    select.append(option);
  }
  select.addEventListener("change", draw);
}

// Start with the first pair of axes that has points.
function choose() {
  for (const y of data.y) {
    for (const x of data.x) {
      if (!points(x, y).length) continue;
      axes.x.value = x;
      axes.y.value = y;
      return true;
    }
  }
  return false;
}

fill(axes.x, data.x);
fill(axes.y, data.y);
if (choose()) {
  tip.id = "tip";
  tip.hidden = true;
  plot.append(tip);
  document.getElementById("plot-section").hidden = false;
  onFilter.push((names) => {
    visible = names;
    draw();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth === width) return;
    width = plot.clientWidth;
    draw();
  }).observe(plot);
}
