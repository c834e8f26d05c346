"use strict";
// What the page is drawn with. Names come from users: they become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = document.querySelector("svg").namespaceURI;
const COLORS = ["#56b4e9", "#7fd88f", "#ffc83d", "#ff8a4c", "#e39bd0"]; // of P2 to P6
const [photoHeight, photoWidth] = data.sizes.resized;
const [paddedHeight, paddedWidth] = data.sizes.padded;
const model = data.model;
const hasPyramid = model.pyramid === "fpn",
  hasMasks = model.mask_head !== null;
data.followed.forEach((it, d) => {
  it.title = `${it.name} (${d + 1})`;
});
let chosen = 0; // the detection that is followed
let head = "box", // what section "align" shows
  rule = model.operation === "pool" ? "caffe" : "floor";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A number with so many decimals; JSON's null stands for one that was not finite. */
const show = (value, digits = 2) =>
  value === null
    ? "not finite"
    : value
        .toFixed(digits)
        .replace(/^-(0\.?0*)$/, "$1")
        .replace("-", "\u2212");
const signed = (value, digits = 2) =>
  value === null ? "not finite" : (value < 0 ? "\u2212 " : "+ ") + show(Math.abs(value), digits);
const size = ([height, width]) => `${width}\u00d7${height}`;
const count = (value) => value.toLocaleString("en-US");
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;
const safe = (box) => box.map((side) => side ?? 0);

/** A box with a dark rim. */
function outline(box, style) {
  const [x1, y1, x2, y2] = safe(box);
  const place = { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) };
  return draw(
    "g",
    { class: style },
    draw("rect", { ...place, class: "rim" }),
    draw("rect", { ...place, class: "edge" }),
  );
}
function colored(box, color, style = "thin") {
  const group = outline(box, style);
  group.lastChild.style.stroke = color;
  return group;
}
const line = (x1, y1, x2, y2, style) => draw("line", { x1, y1, x2, y2, class: style });

/** What part of the photo shows the boxes with some room around them. */
function around(boxes, margin = 0.35, least = 24) {
  boxes = boxes.map(safe);
  let [x1, y1] = [0, 1].map((k) => Math.min(...boxes.map((box) => box[k])));
  let [x2, y2] = [2, 3].map((k) => Math.max(...boxes.map((box) => box[k])));
  const room = Math.max(margin * Math.max(x2 - x1, y2 - y1), least / 4);
  [x1, y1, x2, y2] = [x1 - room, y1 - room, x2 + room, y2 + room];
  const wider = Math.max(0.75 * (y2 - y1) - (x2 - x1), least - (x2 - x1), 0) / 2; // not too narrow a picture
  const higher = Math.max(0.6 * (x2 - x1) - (y2 - y1), least - (y2 - y1), 0) / 2;
  return [x1 - wider, y1 - higher, x2 + wider, y2 + higher];
}

/** The photo with drawings over it, in pixels of the resized photo. `view` is the part that is shown. */
function picture(label, caption, layers, view = [0, 0, photoWidth, photoHeight], style = "") {
  const [x1, y1, x2, y2] = view;
  const pixelated = photoWidth < 400 ? "cells" : "";
  return make(
    "figure",
    { class: style },
    draw(
      "svg",
      { viewBox: `${x1} ${y1} ${x2 - x1} ${y2 - y1}`, role: "img", "aria-label": label },
      draw("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: "outside" }),
      draw("rect", { width: paddedWidth, height: paddedHeight, class: "pad" }),
      draw("use", { href: "#photo", class: pixelated }),
      layers,
    ),
    caption && make("figcaption", {}, caption),
  );
}
/** A small picture by itself. `ratio` is height over width of what it is enlarged to. */
function image(source, label, caption, style = "", ratio = null) {
  const element = make("img", { src: source, alt: label, class: "cells" });
  if (ratio) element.style.aspectRatio = `1 / ${ratio}`;
  return make("figure", { class: style }, element, caption && make("figcaption", {}, caption));
}
const overlay = (source, [x1, y1, x2, y2], style = "cells") =>
  draw(
    "g",
    { class: style },
    draw("image", { href: source, x: x1, y: y1, width: x2 - x1, height: y2 - y1, preserveAspectRatio: "none" }),
  );
const figures = (style, ...list) => make("div", { class: `figures ${style}` }, list);
const bold = (text) => make("b", {}, text);
const formula = (...parts) => make("p", { class: "formula" }, parts);

function table(caption, names, rows, own = () => false) {
  return make(
    "div",
    { class: "table", role: "region", "aria-label": caption },
    make(
      "table",
      {},
      make("caption", {}, caption),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          names.map((name) => make("th", { scope: "col" }, name)),
        ),
      ),
      make(
        "tbody",
        {},
        rows.map((cells, number) =>
          make(
            "tr",
            { class: own(number) && "own" },
            cells.map((cell, k) => make(k ? "td" : "th", k ? {} : { scope: "row" }, cell)),
          ),
        ),
      ),
    ),
  );
}
/** Radio buttons: the arrow keys go through them. */
function choice(legend, name, options, current, change) {
  return make(
    "fieldset",
    { class: "choice" },
    make("legend", {}, legend),
    options.map(([value, words]) => {
      const input = make("input", { type: "radio", name, value, checked: value === current });
      input.addEventListener("change", () => change(value));
      return make("label", {}, input, " ", words);
    }),
  );
}
function slider(label, most, value, change) {
  const output = make("output");
  const input = make("input", { type: "range", min: 0, max: most, value, step: 1, "aria-label": label });
  const update = () => {
    output.textContent = change(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", update);
  return [make("div", { class: "control" }, make("span", {}, label), input, output), update];
}
function key(entries) {
  return make(
    "ul",
    { class: "key", "aria-label": "Key" },
    entries.map(([style, words]) =>
      make(
        "li",
        {},
        draw(
          "svg",
          { viewBox: "0 0 44 18", "aria-hidden": "true" },
          draw("g", { class: style }, line(4, 9, 40, 9, "rim"), line(4, 9, 40, 9, "edge")),
        ),
        words,
      ),
    ),
  );
}
