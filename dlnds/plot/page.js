"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
if (innerWidth <= 600) byId("graph").replaceWith(byId("narrow").content.firstElementChild);
const graph = byId("graph"), tip = byId("tip"), panel = byId("panel"), details = byId("details");
// The picture's marks stand by their kind, in the order of the points.
const all = (selector) => [...document.querySelectorAll(selector)];
const marks = data.kinds.map((_, kind) =>
  ["", "-faint"].map((end) => all(`#points-${kind}${end} use`)));
const nodes = data.points.kind.map((kind, n) => marks[kind][data.faint[n]].shift());
const disks = new Map(all("#visited use").map((disk, i) => [data.shown.visited[i], disk]));
const chosen = make("g", { id: "chosen" });
document.querySelector("[id^=points-]").before(chosen);
const rows = new Map(data.labels.map((label, n) => [label, n]));
const at = nodes.map((node) => [+node.getAttribute("x"), +node.getAttribute("y")]);
let scale = data.scale, picked = null, current = 0;

// All text of the atlas goes through here, as text: nothing is ever parsed as HTML.
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "text", "rect", "title"].includes(name);
  const element = svg
    ? document.createElementNS(graph.namespaceURI, name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function show(number, digits = 5) {
  if (number === null || number === undefined) return "–";
  if (Number.isInteger(number)) return String(number);
  return String(Number(number.toPrecision(digits)));
}
const brief = (number) => show(number, 4);

// Edges, by the point they leave and the point they reach.
const leaving = nodes.map(() => []), reaching = nodes.map(() => []);
data.edges.source.forEach((source, e) => {
  leaving[source].push(e);
  reaching[data.edges.target[e]].push(e);
});
const orbit = (e) => data.edges.orbit[e];
const ofOrbit = (e, name) => (orbit(e) < 0 ? null : data.orbits[name][orbit(e)]);
const timeOf = (o) => (o < 0 || !data.scales.length ? null : data.orbits.time[o][scale]);
const dropOf = (e) => data.points.loss[data.edges.source[e]] - data.points.loss[data.edges.target[e]];

function curve(e) {
  const [a, b] = at[data.edges.source[e]], [c, d] = at[data.edges.target[e]];
  const bend = data.bend[e] * graph.dataset.column;
  return `M${a} ${b}Q${(a + c) / 2 + bend} ${(b + d) / 2} ${c} ${d}`;
}

// Colours of times, on a logarithmic scale between the fastest and the slowest.
const ends = () => {
  const known = data.orbits.time.map((times) => times[scale]).filter((t) => t > 0);
  return known.length ? [Math.min(...known), Math.max(...known)] : [];
};

function shade(time) {
  const [low, high] = ends().map(Math.log);
  const part = time > 0 && high > low ? (Math.log(time) - low) / (high - low) : 0;
  return data.ramp[Math.round(part * (data.ramp.length - 1))];
}

function colour() {
  for (const name of ["plain", "lead", "path", "taken"]) {
    const edges = data.shown["edges-" + name] ?? [];
    all(`#edges-${name} path`).forEach((path, i) => {
      path.style.stroke = shade(timeOf(orbit(edges[i])));
    });
  }
}

function bounds() {
  const [low, high] = ends();
  byId("fastest").textContent = low ? show(low) : "";
  byId("slowest").textContent = high ? show(high) : "";
}

// Numbers of a point.
function numbers(n) {
  const list = make("dl");
  for (const { name, title } of data.columns) {
    list.append(make("dt", {}, title), make("dd", {}, word(name, n)));
  }
  return list;
}

// What modes read and write most, if the data have names.
function named(modes) {
  if (!data.modes.length || !modes.length) return [];
  const lines = modes.map((j) => make("li", {}, `${j}: ${data.modes[j]}`));
  return [make("h3", {}, "Modes: most read → most written"), make("ul", { class: "modes" }, ...lines)];
}
const learnt = (n) => (data.labels[n].match(/\d+/g) ?? []).map(Number);

function change(e) {
  const text = ofOrbit(e, "word") ?? "runs only", gained = text.match(/\d+$/);
  if (!gained || !data.modes.length) return text;
  return make("span", {}, text, make("small", {}, data.modes[gained]));
}

function word(name, n) {
  const value = data.points[name][n];
  if (name === "kind") return data.kinds[value];
  if (name === "fiber_dimension" && data.points.is_complete && !data.points.is_complete[n]) {
    return "≥ " + show(value);
  }
  return show(value);
}

function hover(n, x, y) {
  tip.replaceChildren(make("h2", {}, data.labels[n]), numbers(n), ...named(learnt(n)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width < innerWidth ? x + 14 : x - 14 - box.width;
  tip.style.left = Math.max(0, left) + "px";
  tip.style.top = Math.max(0, Math.min(y + 14, innerHeight - box.height - 4)) + "px";
}

// Choosing a point.
function pick(n) {
  clear();
  picked = n;
  focusable(n);
  const mine = [...leaving[n], ...reaching[n]];
  graph.classList.add("dimmed");
  nodes[n].classList.add("picked");
  for (const p of [n, ...mine.flatMap((e) => [data.edges.source[e], data.edges.target[e]])]) {
    for (const part of [nodes[p], disks.get(p), byId("label-" + p), byId("line-" + p)]) {
      part?.classList.add("near");
    }
  }
  draw(mine);
  byId("hint").hidden = true;
  tip.hidden = true;
  describe(n);
}

function draw(edges) {
  const paths = edges.map((e) => {
    const path = make("path", {
      d: curve(e), class: data.edges.source[e] === picked ? "from" : "into", "data-e": e,
    });
    path.style.stroke = shade(timeOf(orbit(e)));
    return path;
  });
  chosen.replaceChildren(...paths);
}

function clear() {
  if (picked !== null) nodes[picked].classList.remove("picked");
  picked = null;
  graph.classList.remove("dimmed");
  for (const near of all(".near")) near.classList.remove("near");
  chosen.replaceChildren();
  details.replaceChildren();
  byId("hint").hidden = false;
  tip.hidden = true;
}

function describe(n) {
  const parts = [make("h2", {}, data.labels[n]), numbers(n), ...named(learnt(n))];
  parts.push(...connections(data.words.edges + " from here", "from", leaving[n], data.edges.target));
  parts.push(...arcs(n));
  parts.push(...connections(data.words.edges + " to here, dashed", "into", reaching[n], data.edges.source));
  details.replaceChildren(...parts);
  panel.scrollTop = 0;
}

function table(id, titles, rows) {
  const head = make("tr", {}, ...titles.map((title) => make("th", {}, title)));
  const body = make("tbody", {}, ...rows);
  return make("div", { class: "scroll" }, make("table", { id }, make("thead", {}, head), body));
}

function go(n) {  // what is not among the points comes as text
  if (typeof n !== "number") return n;
  return make("button", { type: "button", onclick: () => choose(n) }, data.labels[n]);
}

function choose(n) {
  pick(n);
  nodes[n].focus({ preventScroll: true });
}

function connections(title, id, edges, ends) {
  const timed = data.scales.length > 0, seen = edges.some((e) => data.edges.visited[e]);
  const sorted = [...edges].sort((a, b) =>
    (timeOf(orbit(a)) ?? Infinity) - (timeOf(orbit(b)) ?? Infinity) || dropOf(b) - dropOf(a));
  const titles = [id === "from" ? "target" : "source", "kind", "drop"];
  if (timed) titles.push("length", "rate", "escape time");
  if (seen) titles.push("runs", "probability", "mean time");
  const lines = sorted.map((e) => {
    const cells = [go(ends[e]), change(e), brief(dropOf(e))];
    if (timed) cells.push(...[ofOrbit(e, "length"), ofOrbit(e, "rate"), timeOf(orbit(e))].map(brief));
    if (seen) cells.push(...(data.edges.visited[e] ?? [0, null, null]).map(brief));
    const row = make("tr", { "data-e": e }, ...cells.map((cell) => make("td", {}, cell)));
    const stress = (width) => () => {
      const path = document.querySelector(`#chosen [data-e="${e}"]`);
      if (path) path.style.strokeWidth = width;
    };
    row.addEventListener("pointerenter", stress("6"));
    row.addEventListener("pointerleave", stress(""));
    return row;
  });
  return [make("h3", {}, `${title} (${edges.length})`), table(id, titles, lines)];
}

const goal = (a) => data.labels[data.arcs.target[a]] ?? data.arcs.target[a];

// Arcs of a point: a chart of the loss along each, and a list.
function arcs(n) {
  const { source, kind, drop } = data.arcs;  // below: those that descend first, the deepest ahead
  const mine = source.flatMap((from, a) => (from === n ? [a] : []))
    .sort((a, b) => kind[a] - kind[b] || drop[b] - drop[a]);
  const heading = make("h3", {}, `Arcs from here (${mine.length})`);
  if (!mine.length) return [heading];
  const start = data.points.loss[n];
  const paths = chart(mine, start);
  const lines = mine.map((a, i) => {
    const cells = [go(data.arcs.target[a]), data.arcKinds[kind[a]],
      data.shapes[data.arcs.shape[a]], brief(data.arcs.order[a]), brief(drop[a])];
    const row = make("tr", { "data-a": a }, ...cells.map((cell) => make("td", {}, cell)));
    row.addEventListener("pointerenter", () => paths.lines[i].classList.add("strong"));
    row.addEventListener("pointerleave", () => paths.lines[i].classList.remove("strong"));
    return row;
  });
  const titles = ["target", "kind", "shape", "order", "drop"];
  return [heading, paths.picture, table("arcs", titles, lines)];
}

function chart(mine, start) {
  const alpha = data.alpha, curves = mine.map((a) => data.curves[data.arcs.curve[a]]);
  // Where drops span more than a thousand times, their changes, logarithmic beyond the smallest.
  const drops = mine.map((a) => data.arcs.drop[a]).filter((drop) => drop > 0);
  const least = Math.min(...drops), wide = Math.max(...drops) > 1000 * least;
  const scaled = (v) => (wide ? Math.sign(v) * Math.log10(1 + Math.abs(v) / least) : v);
  const shift = wide ? 0 : start;
  const values = curves.flat().filter((v) => v !== null).map((v) => v + shift);
  const low = Math.min(...values), high = Math.max(...values, low + 1e-12);
  const first = Math.min(...alpha), last = Math.max(...alpha);
  const px = (v) => 48 + 280 * (v - first) / (last - first || 1);
  const span = scaled(high) - scaled(low) || 1;
  const py = (v) => 150 - 136 * (scaled(v) - scaled(low)) / span;
  const lines = curves.map((changes, i) => {
    const places = changes.flatMap((v, k) =>
      v === null ? [] : [`${px(alpha[k]).toFixed(2)} ${py(v + shift).toFixed(2)}`]);
    const name = data.arcKinds[data.arcs.kind[mine[i]]];
    const line = make("path", { d: "M" + places.join("L"), class: name, "data-a": mine[i] });
    line.append(make("title", {}, `${goal(mine[i])} ${name}`));
    return line;
  });
  const text = (x, y, anchor, words) => make("text", { x, y, "text-anchor": anchor }, words);
  const picture = make("svg", { id: "chart", viewBox: "0 0 340 185", role: "img",
    "aria-label": "loss along the arcs from this point" },
    make("rect", { x: 48, y: 10, width: 280, height: 144 }), ...lines,
    text(44, 22, "end", show(high, 3)), text(44, 150, "end", show(low, 3)),
    text(44, 84, "end", wide ? "change" : "loss"), text(48, 168, "middle", show(first)),
    text(328, 168, "end", show(last)), text(188, 180, "middle", data.words.alpha));
  return { picture, lines };
}

// Keyboard: one point can be reached by Tab, arrow keys go on to others.
function focusable(n) {
  nodes[current].setAttribute("tabindex", "-1");
  current = n;
  nodes[n].setAttribute("tabindex", "0");
}

function neighbour(n, dx, dy) {
  let best = n, cost = Infinity;
  at.forEach(([x, y], p) => {
    const ahead = (x - at[n][0]) * dx + (y - at[n][1]) * dy;
    const aside = Math.abs((x - at[n][0]) * dy) + Math.abs((y - at[n][1]) * dx);
    if (p !== n && ahead > 0.5 && ahead + 2 * aside < cost) [best, cost] = [p, ahead + 2 * aside];
  });
  return best;
}

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};
graph.addEventListener("keydown", (event) => {
  const n = nodes.indexOf(event.target);
  if (n < 0) return;
  if (event.key in ARROWS) nodes[neighbour(n, ...ARROWS[event.key])].focus();
  else if (event.key === "Enter" || event.key === " ") pick(n);
  else return;
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
});
nodes.forEach((node, n) => {
  node.setAttribute("tabindex", n === current ? "0" : "-1");
  node.setAttribute("role", "button");
  node.setAttribute("aria-label", `${data.labels[n]}, ${word("kind", n)}, loss ${word("loss", n)}`);
  node.addEventListener("pointerenter", (event) => hover(n, event.clientX, event.clientY));
  node.addEventListener("pointerleave", () => { tip.hidden = true; });
  node.addEventListener("click", () => { if (!moved) choose(n); });
  node.addEventListener("focus", () => {
    focusable(n);
    if (!node.matches(":focus-visible")) return;
    const box = node.getBoundingClientRect();
    hover(n, box.right, box.bottom);
  });
  node.addEventListener("blur", () => { tip.hidden = true; });
});

byId("names").append(...named([...data.modes.keys()]));

byId("find").addEventListener("change", (event) => {
  const modes = (event.target.value.match(/\d+/g) ?? []).map(Number).sort((a, b) => a - b);
  const n = rows.get(`{${modes.join(",")}}`);
  event.target.setCustomValidity(n === undefined ? "there is no such point here" : "");
  event.target.reportValidity();
  if (n !== undefined) choose(n);
});

// Moving the picture; marks keep their size.
const whole = graph.viewBox.baseVal;
let view = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
const full = { ...view };
let grip = null, moved = false;

function look(next) {
  view = next;
  graph.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  graph.style.setProperty("--size", Math.sqrt(view.width / full.width));
  graph.classList.toggle("close", view.width < full.width);
}

function zoom(factor, x, y) {
  const width = Math.min(full.width, Math.max(full.width / 60, view.width * factor));
  const ratio = width / view.width;
  look({ x: x + (view.x - x) * ratio, y: y + (view.y - y) * ratio, width,
    height: view.height * ratio });
}

function place(event) {
  const point = new DOMPoint(event.clientX, event.clientY);
  return point.matrixTransform(graph.getScreenCTM().inverse());
}

graph.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { x, y } = place(event);
  zoom(Math.exp(0.0015 * event.deltaY), x, y);
}, { passive: false });
graph.addEventListener("pointerdown", (event) => { grip = place(event); moved = false; });
graph.addEventListener("pointermove", (event) => {
  if (!grip || !(event.buttons & 1)) return;
  const { x, y } = place(event);
  if (Math.hypot(x - grip.x, y - grip.y) > 0.006 * view.width) moved = true;
  if (moved) look({ ...view, x: view.x + grip.x - x, y: view.y + grip.y - y });
});
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { grip = null; });
graph.addEventListener("click", (event) => {
  if (!moved && !nodes.includes(event.target)) clear();
});
const centre = () => [view.x + view.width / 2, view.y + view.height / 2];
byId("closer").addEventListener("click", () => zoom(0.6, ...centre()));
byId("farther").addEventListener("click", () => zoom(1 / 0.6, ...centre()));
byId("whole").addEventListener("click", () => look({ ...full }));

if (data.scales.length) {
  for (const [k, value] of data.scales.entries()) {
    const option = make("option", { value: k }, show(value));
    option.selected = k === scale;
    byId("scale").append(option);
  }
  byId("scale").addEventListener("change", (event) => {
    scale = +event.target.value;
    colour();
    bounds();
    if (picked !== null) pick(picked);
  });
  byId("ramp").style.background = `linear-gradient(to right, ${data.ramp})`;
  byId("scales").hidden = byId("times").hidden = false;
  bounds();
}
