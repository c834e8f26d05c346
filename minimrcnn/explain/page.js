"use strict";
// Draws the page from the numbers in #data. What concerns the whole photo is drawn once (`whole`), what concerns one
// detection each time another is followed (`one`). Names come from users: they become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = document.querySelector("svg").namespaceURI;
const COLORS = ["#56b4e9", "#7fd88f", "#ffc83d", "#ff8a4c", "#e39bd0"]; // of P2 to P6
const [photoHeight, photoWidth] = data.sizes.resized;
const [paddedHeight, paddedWidth] = data.sizes.padded;
const model = data.model;
const hasPyramid = model.pyramid === "fpn", hasMasks = model.mask_head !== null;
data.followed.forEach((it, d) => { it.title = `${it.name} (${d + 1})`; });
let chosen = 0; // the detection that is followed
let head = "box", rule = "floor"; // what section "align" shows

// ---------------------------------------------------------------------------------------------------------- elements

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
const show = (value, digits = 2) => value === null ? "not finite" :
  value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "\u2212");
const signed = (value, digits = 2) => value === null ? "not finite" : (value < 0 ? "\u2212 " : "+ ") + show(Math.abs(value), digits);
const size = ([height, width]) => `${width}\u00d7${height}`;
const count = (value) => value.toLocaleString("en-US");
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;
const safe = (box) => box.map((side) => side ?? 0);

/** A box with a dark rim. */
function outline(box, style) {
  const [x1, y1, x2, y2] = safe(box);
  const place = { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) };
  return draw("g", { class: style }, draw("rect", { ...place, class: "rim" }), draw("rect", { ...place, class: "edge" }));
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
  return make("figure", { class: style },
    draw("svg", { viewBox: `${x1} ${y1} ${x2 - x1} ${y2 - y1}`, role: "img", "aria-label": label },
      draw("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: "outside" }),
      draw("rect", { width: paddedWidth, height: paddedHeight, class: "pad" }),
      draw("use", { href: "#photo", class: pixelated }), layers),
    caption && make("figcaption", {}, caption));
}
/** A small picture by itself. `ratio` is height over width of what it is enlarged to. */
function image(source, label, caption, style = "", ratio = null) {
  const element = make("img", { src: source, alt: label, class: "cells" });
  if (ratio) element.style.aspectRatio = `1 / ${ratio}`;
  return make("figure", { class: style }, element, caption && make("figcaption", {}, caption));
}
const overlay = (source, [x1, y1, x2, y2], style = "cells") => draw("g", { class: style },
  draw("image", { href: source, x: x1, y: y1, width: x2 - x1, height: y2 - y1, preserveAspectRatio: "none" }));
const figures = (style, ...list) => make("div", { class: `figures ${style}` }, list);
const bold = (text) => make("b", {}, text);
const formula = (...parts) => make("p", { class: "formula" }, parts);

function table(caption, names, rows, own = () => false) {
  return make("div", { class: "table", role: "region", "aria-label": caption, tabindex: 0 }, make("table", {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows.map((cells, number) => make("tr", { class: own(number) && "own" },
      cells.map((cell, k) => make(k ? "td" : "th", k ? {} : { scope: "row" }, cell)))))));
}
/** Radio buttons: the arrow keys go through them. */
function choice(legend, name, options, current, change) {
  return make("fieldset", { class: "choice" }, make("legend", {}, legend), options.map(([value, words]) => {
    const input = make("input", { type: "radio", name, value, checked: value === current });
    input.addEventListener("change", () => change(value));
    return make("label", {}, input, " ", words);
  }));
}
function slider(label, most, value, change) {
  const output = make("output");
  const input = make("input", { type: "range", min: 0, max: most, value, step: 1, "aria-label": label });
  const update = () => { output.textContent = change(Number(input.value)); input.setAttribute("aria-valuetext", output.textContent); };
  input.addEventListener("input", update);
  return [make("div", { class: "control" }, make("span", {}, label), input, output), update];
}
function key(entries) {
  return make("ul", { class: "key", "aria-label": "Key" }, entries.map(([style, words]) => make("li", {},
    draw("svg", { viewBox: "0 0 44 18", "aria-hidden": "true" },
      draw("g", { class: style }, line(4, 9, 40, 9, "rim"), line(4, 9, 40, 9, "edge"))), words)));
}

// ------------------------------------------------------------------------------------------------------ whole photo

const name = (found, number) => `${number + 1}. ${found.name}, score ${show(found.score)}`;

/** All that was found: masks, boxes, numbers. A click follows one. */
function found(current) {
  const order = data.followed.map((_, d) => d).reverse(); // the best on top
  const unit = photoWidth / 720;
  return [
    order.map((d) => data.followed[d].paste && overlay(data.followed[d].paste.hard, data.followed[d].paste.area)),
    order.map((d) => d !== current && colored(data.followed[d].box, data.followed[d].color)),
    data.followed[current] && outline(data.followed[current].box, "final"),
    order.map((d) => {
      const [x1, y1, x2, y2] = safe(data.followed[d].box);
      const text = draw("text", { x: Math.max(x1, 0) + 4 * unit, y: Math.max(y1, 0) + 17 * unit }, `${d + 1}`);
      text.style.fontSize = `${15 * unit}px`;
      text.style.strokeWidth = `${3.5 * unit}px`;
      const hit = draw("rect", { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0), class: "hit" },
        draw("title", {}, name(data.followed[d], d)));
      hit.addEventListener("click", () => follow(d));
      return [text, hit];
    }),
  ];
}

function mapFigure(map, box) {
  const view = [0, 0, map.size[1] * map.stride, map.size[0] * map.stride];
  return make("figure", {},
    draw("svg", { viewBox: `0 0 ${view[2]} ${view[3]}`, role: "img", "aria-label":
      `Heat map of ${map.name}: mean absolute activation` }, overlay(map.picture, view), box && outline(box, "final")),
    make("div", { class: "channels" }, map.strongest.map((channel) => make("img", {
      src: channel.picture, alt: `Channel ${channel.number} of ${map.name}`, title: `channel ${channel.number}`, class: "cells" }))),
    make("figcaption", {}, bold(map.name), ` ${size(map.size)} cells, ${plural(map.channels, "channel")}; a cell is ` +
      `${map.stride}\u00d7${map.stride} pixels. Dark: ${show(map.low)}, bright: ${show(map.high)}. Channels ` +
      map.strongest.map((channel) => channel.number).join(", ") + "."));
}

const whole = {
  input() {
    const colors = ["red", "green", "blue"].map((color, c) => image(data.input[c], `The ${color} values, normalized`,
      [bold(color[0].toUpperCase() + color.slice(1)), `: (value / 255 \u2212 ${data.mean[c]}) / ${data.deviation[c]}`]));
    const view = [0, 0, paddedWidth, paddedHeight];
    const padded = paddedWidth > photoWidth || paddedHeight > photoHeight;
    return figures("", picture(`The photo, resized${padded ? " and padded" : ""}`, [bold(size(data.sizes.padded)),
      padded ? " pixels; what is hatched was padded." : " pixels; nothing had to be padded."], [], view), colors);
  },
  anchors() {
    const box = data.fired;
    return figures("wide", picture(`The ${box.anchors.length} anchors with the highest objectness`,
      [bold(`The ${box.anchors.length} anchors that fired most`), `, of ${count(box.total)}; ${count(box.above_half)} ` +
        "say object with more than \u00bd. The color is the level's."],
      box.anchors.slice().reverse().map((anchor) => colored(anchor.box, COLORS[anchor.level]))), levelTable());
  },
  objectness() {
    return figures("maps", data.objectness.map((level, k) => {
      const map = data.levels[k];
      const area = [0, 0, map.size[1] * map.stride, map.size[0] * map.stride];
      return make("div", { "data-level": k }, picture(`Objectness on ${level.name}`, [bold(level.name),
        `: anchors of ${level.sides.join(", ")} pixels. The highest is ${show(level.highest)}; ` +
        `${count(level.above_half)} of ${count(level.anchors)} anchors are above \u00bd.`],
        [overlay(level.picture, area), draw("g", { class: "spot" })]));
    }));
  },
  nms() {
    const steps = data.nms.steps;
    if (!steps.length) return make("p", { class: "note" }, "There is no candidate: no anchor was left with any area.");
    const layer = draw("g");
    const text = make("p", { "aria-live": "off" });
    const [control, update] = slider("Candidate", steps.length - 1, Math.min(14, steps.length - 1), (now) => {
      const step = steps[now], winner = step.winner;
      const kept = steps.slice(0, now).filter((one) => one.winner === null);
      const dropped = steps.slice(0, now).filter((one) => one.winner !== null);
      layer.replaceChildren(...dropped.map((one) => outline(one.box, "dropped thin faint")),
        ...kept.map((one) => colored(one.box, COLORS[one.level])),
        ...(winner === null ? [] : [outline(steps[winner].box, "winner")]), outline(step.box, "current"));
      text.replaceChildren(bold(`Candidate ${now + 1}`), `, from ${data.levels[step.level].name}, objectness ` +
        `${show(step.score, 3)}: `, winner === null ? make("span", { class: "tag" }, "kept") :
        make("span", { class: "tag" }, `dropped by candidate ${winner + 1}`), winner === null ?
        " \u2013 no better box of its level overlaps it too much." : ` \u2013 their IoU is ${show(step.iou)}.`,
        ` So far ${kept.length + (winner === null)} kept, ${dropped.length + (winner !== null)} dropped.`);
      return `${now + 1} of ${steps.length}`;
    });
    update();
    const best = data.nms.best;
    return [control, text, key([["current", "this candidate"], ["winner", "the better one that drops it"],
      ["dropped", "dropped before"]]), figures("wide",
      picture("Non-maximum suppression step by step", [bold("Before"), `: the best ${steps.length} of ` +
        `${plural(data.nms.candidates, "candidate")}, one by one. Kept ones have the color of their level.`], [layer]),
      picture(`The best ${best.length} proposals`, [bold("After"), `: ${plural(data.nms.kept, "box")
        .replace("boxs", "boxes")} left, ${plural(data.nms.proposals, "proposal")} go on; drawn are the best ${best.length}.`],
        best.slice().reverse().map((one) => colored(one.box, COLORS[one.level]))))];
  },
};

function levelTable() {
  const rows = data.objectness.map((level, k) => [level.name, size(data.levels[k].size), level.sides.join(", "),
    count(level.anchors), count(level.above_half)]);
  return make("div", {}, table("Anchors of each level", ["level", "cells", "side, pixels", "anchors", "above \u00bd"], rows));
}

// ----------------------------------------------------------------------------------------------------- one detection

const one = {
  input(it) {
    const rows = ["red", "green", "blue"].map((color, c) => [color, show(it.pixel.values[c], 0),
      `(${show(it.pixel.values[c], 0)} / 255 \u2212 ${data.mean[c]}) / ${data.deviation[c]}`, show(it.pixel.normalized[c], 3)]);
    return table(`The pixel in the middle of ${it.title}, column ${it.pixel.x}, row ${it.pixel.y} of the resized photo`,
      ["color", "value", "formula", "normalized"], rows);
  },
  anchors(it) {
    const anchor = it.anchor, cell = [anchor.column, anchor.row, anchor.column + 1, anchor.row + 1].map((k) => k * anchor.stride);
    return figures("wide", picture(`The anchors of the cell from which ${it.title} came`, [bold(`The cell of ${it.title}`),
      `: row ${anchor.row}, column ${anchor.column} of ${anchor.name}. Its anchors lie about its upper left corner; dotted is the one that became ${it.title}.`],
      [draw("rect", { x: cell[0], y: cell[1], width: anchor.stride, height: anchor.stride, class: "cell even" }),
        anchor.cell.filter((other) => !other.own).map((other) => colored(other.box, "#fff", "thin faint")),
        outline(anchor.box, "anchor")], around(anchor.cell.map((other) => other.box).concat([it.box]), 0.1)),
      make("div", {}, table(`Anchors of this cell`, ["box x1, y1, x2, y2", "object?"],
        anchor.cell.map((other) => [other.box.map((side) => show(side, 0)).join(", "), show(other.score, 3)]),
        (k) => anchor.cell[k].own),
      make("p", {}, `${it.title} began as the marked one: side ${anchor.side}, height over width ${anchor.ratio}. Its logit is ` +
        `${show(anchor.logit)}, its objectness 1 / (1 + e^(${show(-anchor.logit)})) = ${show(anchor.score, 3)}, ` +
        (anchor.rank === 1 ? "the highest of all anchors." : `number ${count(anchor.rank)} of all ${count(data.fired.total)} anchors.`))));
  },
  proposals(it) {
    const proposal = it.proposal, boxes = proposal.losers.map((loser) => loser.box);
    return figures("wide", picture(`The proposal of ${it.title} and what it suppressed`,
      [bold(`Proposal ${proposal.rank}`), ` became ${it.title}. ` + (proposal.dropped ? `NMS dropped ` +
        `${plural(proposal.dropped, "candidate")} for it, as they overlap it by more than ${model.rpn_nms}` +
        (proposal.dropped > boxes.length ? `; the best ${boxes.length} are drawn.` : ".") : "No candidate was dropped for it.")],
      [boxes.map((box) => outline(box, "dropped thin")), outline(it.anchor.box, "anchor"), outline(proposal.box, "proposal")],
      around([proposal.box, it.anchor.box, ...boxes], 0.12)),
    make("div", {}, key([["anchor", "anchor"], ["proposal", "proposal"], ["dropped", "dropped for it"]]),
      losers("Dropped for it", proposal, "objectness")));
  },
  level(it) {
    return [it.levels.map((level) => {
      const rounded = level.exact === null ? "below every level" : `\u230a${show(level.exact, 3)}\u230b`;
      const whole = level.exact === null ? null : Math.floor(level.exact + 1e-6);
      const bound = hasPyramid && whole !== null && `P${whole}` !== level.name;
      return hasPyramid ? formula(level.what === "proposal" ? "for the box head, the proposal: " : "for the mask head, the detection\u2019s box: ",
        `k = \u230a4 + log\u2082(\u221a(${show(level.width)} \u00b7 ${show(level.height)}) / 224)\u230b = ` +
        `\u230a4 + log\u2082(${show(level.side)} / 224)\u230b = ${rounded}${whole === null ? "" : ` = ${whole}`} \u2192 `, bold(level.name),
        bound ? " (levels end at P2 and P5)" : "") :
        make("p", {}, `${level.what === "proposal" ? "The proposal" : "The detection"} is ${show(level.width)} \u00d7 ` +
          `${show(level.height)} pixels.`);
    }), hasPyramid && ruler(it), hasPyramid && table("RoIs of this photo that the box head was given, by level", data.heads.levels,
      [data.heads.cut.map(count)])];
  },
  align(it) {
    const cut = it.cuts.find((some) => some.head === head) ?? it.cuts[0];
    const heads = it.cuts.length > 1 && choice("Cut for the", "head", it.cuts.map((some) =>
      [some.head, `${some.head} head, ${some.size}\u00d7${some.size}`]), cut.head, (value) => { head = value; redraw("align"); });
    const rules = choice("RoI pooling\u2019s rule", "rule", [["floor", "both cut off, as it is usually told"],
      ["caffe", "rounded, as in Caffe and torchvision"]], rule, (value) => { rule = value; redraw("align"); });
    return [heads, figures("wide", alignFigure(it, cut), poolFigure(it, cut)), rules, roundings(cut), binText(it, cut)];
  },
  classes(it) {
    const rows = it.classes.rows;
    return [make("div", { class: "table" }, make("table", { class: "bars" },
      make("caption", {}, `Class scores of proposal ${it.proposal.rank}`),
      make("thead", {}, make("tr", {}, ["class", "logit", "score", ""].map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, rows.map((row) => {
        const bar = make("i");
        bar.style.width = `${100 * (row.score ?? 0)}%`;
        return make("tr", { class: row.own && "own" }, make("th", { scope: "row" }, row.name), make("td", {}, show(row.logit)),
          make("td", {}, show(row.score, 3)), make("td", { class: "bar", "aria-hidden": "true" }, bar));
      })))),
    it.classes.others > 0 && make("p", {}, `The other ${plural(it.classes.others, "class").replace("classs", "classes")} ` +
      `have ${show(it.classes.rest, 3)} together.`),
    make("p", {}, it.losers.dropped ? `${plural(it.losers.dropped, "other RoI")} said ${it.name}, too, and their boxes overlap ` +
      `this one by more than ${model.box_nms}: a second non-maximum suppression, within each class, dropped ` +
      (it.losers.dropped === 1 ? "it." : "them.") : `No other RoI that said ${it.name} overlaps this one by more than ` +
      `${model.box_nms}, so non-maximum suppression within the class dropped none for it.`),
    it.losers.dropped > 0 && figures("wide", picture(`Boxes of class ${it.name} dropped for this one`, "Dropped within the class.",
      [it.losers.losers.map((loser) => outline(loser.box, "dropped thin")), outline(it.box, "final")],
      around([it.box, ...it.losers.losers.map((loser) => loser.box)], 0.15)), make("div", {}, losers("Dropped within the class", it.losers, "score")))];
  },
  box(it) {
    const stops = [it.anchor.box, it.anchor.move.end, it.move.end].map(safe);
    const layer = draw("g");
    const [control, update] = slider("From anchor to box", 40, 40, (now) => {
      const at = now / 20, from = Math.min(Math.floor(at), 1), part = at - from;
      const box = stops[from].map((side, k) => side + part * (stops[from + 1][k] - side));
      layer.replaceChildren(outline(box, "current"));
      return now === 0 ? "anchor" : now === 20 ? "proposal" : now === 40 ? "box" : now < 20 ? "anchor \u2192 proposal" : "proposal \u2192 box";
    });
    update();
    return [figures("wide", picture(`Anchor, proposal and box of ${it.title}`, null, [outline(stops[0], "anchor"),
      outline(stops[1], "proposal"), layer, outline(stops[2], "final")], around(stops, 0.15)),
      make("div", {}, key([["anchor", `anchor on ${it.anchor.name}`], ["proposal", `proposal ${it.proposal.rank}`],
        ["final", "box of the detection"], ["current", "where the slider is"]]), control,
      moveTable("1. From anchor to proposal", it.anchor.move), moveTable("2. From proposal to box", it.move),
      make("p", {}, "In the photo\u2019s own pixels: ", bold(it.photo_box.map((side) => show(side, 1)).join(", ")), ".")))];
  },
  masks(it) {
    if (!it.masks) return null;
    const box = it.box, ratio = Math.max(box[3] - box[1], 1) / Math.max(box[2] - box[0], 1);
    return [figures("small", it.masks.map((mask) => image(mask.picture, `Mask for ${mask.name}${mask.own ? ", chosen" : ""}`,
      [bold(mask.name), mask.score === null ? "" : ` score ${show(mask.score)} `, mask.own && make("span", { class: "tag" }, "chosen")],
      mask.own ? "chosen" : "", Math.min(Math.max(ratio, 0.4), 2.5)))), make("div", { class: "scale", "aria-hidden": "true" },
      make("span", {}, "0"), make("i"), make("span", {}, "1: this pixel is of the object")),
    model.classes > it.masks.length + 1 && it.masks.length > 1 && make("p", {}, `Shown are ${it.masks.length} of ` +
      `${model.classes - 1} masks: those of the classes with the highest scores.`)];
  },
  paste(it) {
    const paste = it.paste;
    if (!paste) return null;
    const view = around([it.box], 0.18), frame = outline(it.box, "final");
    const [left, top, right, bottom] = paste.region;
    return [figures("", picture(`The mask as it is, ${paste.side} cells on a side`, [bold(`1. ${paste.side}\u00d7${paste.side}`),
      ` cells, each a chance; the highest is ${show(paste.highest)}.`], [overlay(paste.mask, safe(it.box)), frame], view),
    picture("The mask, resized", [bold("2. Resized"), `, with its border of zeros, to columns ${left} to ${right} and rows ${top} to ` +
      `${bottom} of the photo.`], [overlay(paste.soft, paste.area, ""), frame.cloneNode(true)], view),
    picture("The mask, thresholded", [bold("3. Above \u00bd"), `: ${count(paste.pixels)} pixels of the photo, ` +
      `${show(100 * paste.share, 0)}% of the box.`], [overlay(paste.hard, paste.area), outline(it.box, "thin")], view)),
    picture("All detections in the photo", "And so on, for all detections.", found(chosen), undefined, "hero")];
  },
};

function moveTable(caption, move) {
  const words = { dx: "middle x", dy: "middle y", dw: "width", dh: "height" };
  const weighted = move.steps.some((step) => step.weight !== 1);
  const rows = move.steps.map((step, k) => [`${step.name} = ${weighted ? `${show(step.raw, 3)} / ${step.weight} = ` : ""}${show(step.delta, 3)}`,
    words[step.name], (k < 2 ? `${show(step.before, 1)} ${signed(step.delta, 3)} \u00b7 ${show(step.span, 1)}` :
      `${show(step.before, 1)} \u00b7 e^${show(step.delta, 3)}`) + ` = ${show(step.after, 1)}`]);
  return [table(caption, [weighted ? "delta, by its weight" : "delta", "moves", "by"], rows),
    move.clipped && make("p", {}, "What reached out of the photo was cut off.")];
}
function losers(caption, some, word) {
  if (!some.losers.length) return null;
  const listed = some.losers.slice(0, 6);
  return table(`${caption}: ${listed.length < some.dropped ? `the best ${listed.length} of ${count(some.dropped)}` :
    count(some.dropped)}`, [word, "IoU"], listed.map((loser) => [show(loser.score, 3), show(loser.iou)]));
}

/** The levels as stretches of a line of sizes, and where the detections are on it. */
function ruler(it) {
  const low = Math.log2(28), high = Math.log2(896), width = 720;
  const place = (side) => 20 + (Math.min(Math.max(Math.log2(Math.max(side, 1)), low), high) - low) / (high - low) * (width - 40);
  const bands = [["P2", 28, 112], ["P3", 112, 224], ["P4", 224, 448], ["P5", 448, 896]];
  const mark = (level, color, up) => {
    const x = place(level.side ?? 0);
    return [draw("path", { d: `M${x} ${up ? 40 : 72} l-8 ${up ? -14 : 14} h16 z`, fill: color, class: "mark" }),
      draw("text", { x: Math.min(Math.max(x, 70), width - 70), y: up ? 20 : 104, "text-anchor": "middle" },
        `${level.what} ${show(level.side, 1)}`)];
  };
  return make("figure", { class: "hero" }, draw("svg", { viewBox: `0 0 ${width} 136`, class: "plot", role: "img", "aria-label":
    `Sizes and levels: ${it.levels.map((level) => `the ${level.what} of side ${show(level.side, 1)} is cut from ${level.name}`).join("; ")}` },
    bands.map(([label, from, to], k) => [draw("rect", { x: place(from), y: 42, width: place(to) - place(from), height: 28, fill: COLORS[k], class: "band" }),
      draw("text", { x: (place(from) + place(to)) / 2, y: 61, "text-anchor": "middle", class: "name" }, label)]),
    [112, 224, 448].map((side) => [line(place(side), 38, place(side), 112, "axis"),
      draw("text", { x: place(side), y: 128, "text-anchor": "middle" }, `${side}`)]),
    data.followed.map((other) => draw("circle", { cx: place(other.levels[0].side ?? 0), cy: 66, r: 3, class: "other" })),
    mark(it.levels[0], "var(--proposal)", true), it.levels[1] && mark(it.levels[1], "var(--final)", false)),
  make("figcaption", {}, "Side of a square of the same area, in pixels, each step twice the last. Dots: the other detections\u2019 proposals."));
}

function gridLines(view, stride, shift = 0) {
  const lines = [], [x1, y1, x2, y2] = view;
  if ((x2 - x1) / stride > 90) return lines; // too fine to be seen
  for (let x = Math.ceil(x1 / stride - shift); (x + shift) * stride <= x2; x++) lines.push(line((x + shift) * stride, y1, (x + shift) * stride, y2, "grid"));
  for (let y = Math.ceil(y1 / stride - shift); (y + shift) * stride <= y2; y++) lines.push(line(x1, (y + shift) * stride, x2, (y + shift) * stride, "grid"));
  return lines;
}
const cutView = (cut) => around([cut.roi, [cut.edges[1][0], cut.edges[0][0], cut.edges[1].at(-1), cut.edges[0].at(-1)]], 0, 0)
  .map((side, k) => side + (k < 2 ? -1.2 : 1.2) * cut.stride);

function alignFigure(it, cut) {
  const view = cutView(cut), [ys, xs] = cut.edges, bin = cut.bin;
  const radius = Math.min((view[2] - view[0]) / 110, (xs.at(-1) - xs[0]) / cut.size / (cut.xs[0].length || 1) / 3.2);
  const box = [xs[bin.column], ys[bin.row], xs[bin.column + 1], ys[bin.row + 1]];
  const points = cut.ys.flatMap((rows, p) => rows.flatMap((y) => cut.xs.flatMap((columns, q) => columns.map((x) =>
    draw("circle", { cx: x, cy: y, r: radius, class: p === bin.row && q === bin.column ? "sample one" : "sample" })))));
  const corners = new Set(bin.samples.flatMap((sample) => sample.corners.map(([i, j]) => `${i},${j}`)));
  const warp = model.operation === "warp";
  const per = `${cut.ys[0].length}\u00d7${cut.xs[0].length}`;
  return picture(`${warp ? "RoIWarp" : "RoIAlign"}: ${cut.size} by ${cut.size} bins over the RoI, with their sample points`,
    [bold(warp ? "RoIWarp" : "RoIAlign"), model.operation === "pool" ? " (this model does not use it)" : "",
      `: ${show(cut.cells[0])} \u00d7 ${show(cut.cells[1])} cells of ${cut.level}, ${cut.size}\u00d7${cut.size} bins, ${per} samples in each. ` +
      (warp ? "The RoI was rounded to whole cells, then sampled." : "Nothing is rounded.") +
      (corners.size ? " White: the samples of the bin below; green: the cells they are mixed from." : "")],
    [gridLines(view, cut.stride, cut.shift), outline(cut.roi, cut.head === "box" ? "proposal" : "final"),
      xs.slice(1, -1).map((x) => line(x, ys[0], x, ys.at(-1), "edge grid")), ys.slice(1, -1).map((y) => line(xs[0], y, xs.at(-1), y, "edge grid")),
      outline([xs[0], ys[0], xs.at(-1), ys.at(-1)], "thin"), points,
      [...corners].map((place) => { const [i, j] = place.split(",").map(Number);
        return draw("circle", { cx: (j + cut.shift) * cut.stride, cy: (i + cut.shift) * cut.stride, r: radius * 0.8, class: "corner" }); }),
      bin.samples.length > 0 && outline(box, "thin")], view);
}

function poolFigure(it, cut) {
  const view = cutView(cut), [rows, columns] = cut.pooled[rule], stride = cut.stride;
  const whole = [columns.first, rows.first, columns.first + columns.size, rows.first + rows.size].map((k) => k * stride);
  const cells = rows.bins.flatMap(([top, bottom], p) => columns.bins.map(([left, right], q) => draw("rect", {
    x: left * stride, y: top * stride, width: Math.max(right - left, 0) * stride, height: Math.max(bottom - top, 0) * stride,
    class: (p + q) % 2 ? "cell" : "cell even" })));
  const used = [columns, rows].map((side) => side.bins.at(-1)[1] - side.bins[0][0]);
  const lost = rule === "floor" && (used[0] < columns.size || used[1] < rows.size);
  return picture(`RoI pooling: the RoI and its bins in whole cells`, [bold("RoI pooling"), model.operation === "pool" ?
    " (this model\u2019s, by the second rule)" : " (for comparison)", `: the RoI (dashed) becomes ${columns.size} \u00d7 ${rows.size} whole cells (green), ` +
    `its bins become whole cells again. ` + (lost ? "What is red is in no bin: lost." : rule === "caffe" ?
      "Bins reach out to whole cells, so neighbors overlap." : "")],
    [gridLines(view, stride), lost && draw("rect", { x: whole[0], y: whole[1], width: Math.max(whole[2] - whole[0], 0),
      height: Math.max(whole[3] - whole[1], 0), class: "cell lost" }), cells, outline(whole, "whole"), outline(cut.roi, cut.head === "box" ? "proposal" : "final")], view);
}

/** Both roundings in numbers. */
function roundings(cut) {
  const rows = [["width", cut.cells[0], cut.pooled[rule][1]], ["height", cut.cells[1], cut.pooled[rule][0]]].map(([words, cells, side]) => {
    const sizes = [...new Set(side.bins.map(([from, to]) => to - from))].sort((a, b) => a - b);
    const covered = Math.max(...side.bins.map(([, to]) => to)) - Math.min(...side.bins.map(([from]) => from));
    return [words, `${show(cells)} \u2192 ${side.size}`, `${side.size} / ${cut.size} = ${show(side.bin, 3)} \u2192 ${sizes.join(" or ")}`,
      `${covered} of ${show(cells)}`, show((cells ?? 0) / cut.size, 3)];
  });
  return table(`RoI pooling\u2019s two roundings, in cells of ${cut.stride} pixels (${rule === "floor" ? "both cut off" : "Caffe\u2019s rule: to the nearest, ends included"})`,
    ["", "1. the RoI", "2. a bin", "cells used", "RoIAlign\u2019s bin"], rows);
}

/** One bin down to the last number. */
function binText(it, cut) {
  const bin = cut.bin, where = `row ${bin.row + 1}, column ${bin.column + 1}, channel ${bin.channel}`;
  const title = make("h3", {}, "One bin, down to the last number");
  const unit = draw("svg", { viewBox: `0 0 ${cut.size} ${cut.size}`, role: "img", "aria-label":
    `The crop, ${cut.size} by ${cut.size} bins: mean absolute value` }, overlay(cut.crop, [0, 0, cut.size, cut.size]),
    outline([bin.column, bin.row, bin.column + 1, bin.row + 1], "current"));
  const crop = make("figure", {}, unit, make("figcaption", {}, bold("The crop"), `: what the ${cut.head} head ` +
    `${model.pyramid === "c4" ? "is given, by way of the backbone\u2019s last stage" : "is given"}, ` +
    `${cut.size}\u00d7${cut.size}\u00d7${cut.map[2]}; the mean of the absolute values.`));
  if (bin.cells) {
    const [top, bottom, left, right] = bin.cells;
    return [title, figures("bin", crop, make("div", {}, make("p", {}, `The largest value of the crop is in ${where}: the largest of the cells in rows ` +
      `${top} to ${bottom - 1}, columns ${left} to ${right - 1}.`), formula("max = ", bold(show(bin.value, 4)))))];
  }
  if (!bin.samples.length) return [title, crop];
  const samples = bin.samples.slice(0, 4);
  const rows = samples.map((sample) => [`y ${show(sample.y)}, x ${show(sample.x)}`, sample.corners.map(([, , weight, value]) =>
    `${show(weight, 3)} \u00b7 ${show(value, 3)}`).join(" + ") || "outside the map", show(sample.value, 4)]);
  const last = model.mode === "max" ? "their largest" : `their average, (${bin.samples.slice(0, 4).map((sample) => show(sample.value, 3)).join(" + ")}` +
    `${bin.samples.length > 4 ? " + \u2026" : ""}) / ${bin.samples.length}`;
  return [title, figures("bin", crop, make("div", {}, make("p", {}, `The largest value of the crop is in ${where}. Each of its ` +
    `${bin.samples.length} samples is mixed from the four cells around it; a cell weighs the more, the nearer it is: ` +
    `the upper left one (1 \u2212 v)(1 \u2212 u), where v and u are what is behind the decimal point of y and x.`),
  table(`Samples of bin ${bin.row + 1}, ${bin.column + 1} on ${cut.level}: weight \u00b7 value of the four cells`, ["in cells", "mixture", "sample"], rows),
  formula(`the bin is ${last} = `, bold(show(bin.value, 4)))))];
}

// ------------------------------------------------------------------------------------------------------------- words

function words() {
  const [photo, resized, padded] = [data.sizes.photo, data.sizes.resized, data.sizes.padded].map(size);
  const factor = data.sizes.resized[1] / data.sizes.photo[1];
  const best = data.best;
  return {
    sizes: `The photo has ${photo} pixels. ` + (photo === resized ? "It is not resized: this model takes photos as they are. " :
      `It is resized to ${resized}, by ${show(factor, 3)}: the shorter side to ${model.min_size}, unless the longer would then exceed ${model.max_size}. `) +
      (resized === padded ? `Both sides are multiples of ${model.divisible} already, so nothing is padded.` :
        `It is padded with zeros on the right and below to ${padded}, multiples of ${model.divisible}, so that every map has a whole number of cells.`) +
      (data.photo_scale < 1 ? ` (This page shows the photo at ${show(100 * data.photo_scale, 0)}% of its size; all numbers are the network\u2019s.)` : ""),
    p6: `P6 is every second cell of ${model.p6 === "p5" ? "P5" : "M5, the sum before P5\u2019s convolution"}, for the largest anchors.`,
    anchors: `Before it looks at the photo, the network has guesses: in every cell ${model.ratios.length * (hasPyramid ? 1 : model.anchor_sizes.length)} ` +
      `boxes, of ${model.ratios.length === 1 ? "one shape" : `${model.ratios.length} shapes`} (height over width ${model.ratios.join(", ")})` +
      (hasPyramid ? ", of one size on each level." : ` and ${plural(model.anchor_sizes.length, "size")}, all on the one map.`) +
      ` Here these are ${plural(data.fired.total, "anchor")}.`,
    proposals: `Of each level the best ${count(model.pre_nms)} anchors by objectness are moved by the four numbers the network has for each, ` +
      `and cut off at the photo\u2019s border: ${plural(data.nms.candidates, "candidate")}. Non-maximum suppression leaves ${count(data.nms.kept)}, ` +
      `of which the best ${count(model.post_nms)} at most go on: ${plural(data.nms.proposals, "proposal")}.`,
    "rpn-nms": String(model.rpn_nms),
    "only-level": data.levels[0].name,
    align: "The heads want every RoI in the same size. RoI pooling rounds twice, the RoI to whole cells and its bins to whole cells, and so looks a little " +
      "beside the object. RoIAlign rounds nothing: it reads the map between its cells, at the points that are drawn here. " +
      ({ align: "", pool: "This model uses RoI pooling; RoIAlign is drawn for comparison. ", warp: "This model uses RoIWarp, which lies between the two. " })[model.operation] +
      (model.aligned ? "The value of cell i sits in its middle, at i + \u00bd (aligned)." : "The value of cell i is taken to sit at i, its upper left corner (aligned=False, as the published weights want it)."),
    classes: `The box head turns the crop into ${plural(model.classes, "logit")}, one for each class and one for the background; softmax makes scores of them that ` +
      `sum to 1. Of ${plural(data.nms.proposals, "RoI")}, ${count(data.heads.candidates)} score more than ${data.score_thresh} in some class; ` +
      `non-maximum suppression within each class leaves ${plural(data.heads.kept, "detection")}` +
      (data.heads.kept > data.found ? `, the best ${count(data.found)} of which are kept.` : "."),
    masks: ({ sigmoid: "The mask head answers for every class, as if it were that one: each mask has a sigmoid of its own, so that the classes do not compete. " +
        "The box head has chosen the class, and with it the mask.",
      agnostic: "This model has one mask for all classes (class-agnostic), so there is nothing to choose.",
      softmax: "In this model the classes compete in every pixel (softmax over all classes, the background among them), as in a fully convolutional network. " +
        "The box head has chosen the class, and with it the mask." })[model.mask_loss],
    nothing: `The network found nothing that scores more than ${data.score_thresh}. ` + (best ? `The best it had was ${best.name} with ${show(best.score)}` +
      (best.score > 0.02 ? `: with a lower --score, such as ${show(Math.floor(best.score * 50) / 50)}, it would be followed through all the stages.` : ".") :
      "No proposal was left to look at."),
  };
}

function stages() {
  const levels = data.levels.map((level) => level.name), all = [
    ["input", "Photo", size(data.sizes.padded)], ["backbone", "C2\u2013" + data.maps.at(-1).name, model.backbone],
    hasPyramid && ["pyramid", "P2\u2013P6", plural(data.levels[0].channels, "channel")], ["anchors", "Anchors", count(data.fired.total)],
    ["objectness", "Objectness", levels.length > 1 ? "5 levels" : levels[0]], ["proposals", "Proposals", count(data.nms.proposals)],
    ["level", "Level", hasPyramid ? "k = \u230a4 + log\u2082 \u2026\u230b" : levels[0]], ["align", ({ align: "RoIAlign", pool: "RoI pooling", warp: "RoIWarp" })[model.operation],
      data.followed.length ? data.followed[0].cuts.map((cut) => `${cut.size}\u00d7${cut.size}`).join(", ") : "crops"],
    ["classes", "Classes", `${model.classes - 1} + background`], ["box", "Boxes", "dx, dy, dw, dh"],
    hasMasks && ["masks", "Masks", ({ sigmoid: "one for each class", agnostic: "one for all", softmax: "competing" })[model.mask_loss]],
    hasMasks && ["paste", "Result", `${data.found} found`]];
  return all.filter(Boolean).map(([id, title, detail]) => make("li", {}, make("a", { href: `#${id}` }, title, make("small", {}, detail))));
}

// -------------------------------------------------------------------------------------------------------- the whole page

const NEEDS = ["input", "anchors", "proposals", "level", "align", "classes", "box", "masks", "paste"];

function redraw(part) {
  const place = document.querySelector(`[data-one="${part}"]`), it = data.followed[chosen];
  const focus = document.activeElement, mark = place.contains(focus) && focus.name ? [focus.name, focus.value] : null;
  const drawn = it ? one[part](it) : NEEDS.indexOf(part) > 2 && (hasMasks || part !== "masks") ?
    make("p", { class: "note" }, "Nothing was found, so there is nothing to follow here.") : null;
  place.replaceChildren(...[drawn].flat(Infinity).filter(Boolean));
  if (mark) [...place.querySelectorAll("input")].find((input) => input.name === mark[0] && input.value === mark[1])?.focus();
}

function drawResult() {
  const it = data.followed[chosen];
  const caption = it ? `${plural(data.found, "detection")}${data.found > data.followed.length ? ` (the best ${data.followed.length} can be followed)` : ""}. ` +
    "Click one, or choose it in the bar below; the left and right arrow keys go through them. Every section then follows it." : words().nothing;
  document.getElementById("result").replaceChildren(picture(it ? `The photo with ${plural(data.found, "detection")}` : "The photo; nothing was found in it",
    caption, it ? found(chosen) : data.best ? outline(data.best.box, "proposal") : [], undefined, "hero"));
  document.querySelectorAll("[data-level]").forEach((place) => {
    const spot = place.querySelector(".spot"), own = it && Number(place.dataset.level) === it.anchor.level;
    spot.replaceChildren(...(it ? [outline(it.box, own ? "final" : "thin faint")] : []));
    place.classList.toggle("from", Boolean(own));
  });
  const boxed = (map) => mapFigure(map, it && it.box);
  document.querySelector('[data-all="backbone"]').replaceChildren(figures("maps", data.maps.map(boxed)));
  document.querySelector('[data-all="pyramid"]').replaceChildren(...(hasPyramid ? [figures("maps", data.levels.map(boxed))] : []));
}

function follow(d) {
  if (!data.followed[d]) return;
  chosen = d;
  const input = document.querySelectorAll("#picker input")[d];
  input.checked = true;
  input.parentElement.scrollIntoView({ block: "nearest", inline: "nearest" });
  drawResult();
  NEEDS.forEach(redraw);
  document.getElementById("status").textContent = `Following ${name(data.followed[d], d)}, ${d + 1} of ${data.followed.length}`;
}

function start() {
  const photo = document.getElementById("photo");
  photo.setAttribute("width", photoWidth);
  photo.setAttribute("height", photoHeight);
  document.getElementById("hatch").setAttribute("patternTransform", `rotate(45) scale(${paddedWidth / 400})`);
  document.getElementById("title").textContent = `How the network saw ${data.name}`;
  const classes = new Map();
  data.followed.forEach((it) => classes.set(it.name, (classes.get(it.name) ?? 0) + 1));
  const what = [...classes].map(([word, times]) => `${times} \u00d7 ${word}`).join(", ");
  document.getElementById("summary").textContent = data.found ? `It found ${what}${data.found > data.followed.length ? " and more" : ""}. ` +
    "Here is how it came to that, stage by stage, with its own numbers." : "It found nothing. Here is how it came to that, stage by stage, with its own numbers.";
  document.querySelectorAll("[data-when]").forEach((node) => {
    node.hidden = !({ pyramid: hasPyramid, "no-pyramid": !hasPyramid, masks: hasMasks, "no-masks": !hasMasks })[node.dataset.when];
  });
  const texts = words();
  document.querySelectorAll("[data-text]").forEach((node) => { node.textContent = texts[node.dataset.text]; });
  document.getElementById("stages").append(...stages());
  if (!hasPyramid) document.querySelector("#backbone h2").textContent = `${data.maps[0].name} to ${data.maps.at(-1).name}: the backbone looks`;
  document.querySelectorAll("section").forEach((section) => {
    const title = section.querySelector("h2:not([hidden])");
    title.id = `about-${section.id}`;
    section.setAttribute("aria-labelledby", title.id);
  });

  const picker = document.getElementById("picker");
  data.followed.forEach((it, d) => {
    const input = make("input", { type: "radio", name: "detection", value: d, "aria-label": name(it, d) });
    input.addEventListener("change", () => follow(d));
    const dot = make("i");
    dot.style.background = it.color;
    picker.append(make("label", {}, input, dot, `${d + 1} ${it.name} `, make("small", {}, show(it.score))));
  });
  if (!data.followed.length) picker.append(make("p", { class: "note" }, "nothing was found"));
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const busy = event.target.closest?.("input, .table, [contenteditable]");
    if (!step || busy || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    follow(Math.min(Math.max(chosen + step, 0), data.followed.length - 1));
    event.preventDefault();
  });

  for (const [part, build] of Object.entries(whole)) {
    document.querySelector(`[data-all="${part}"]`).replaceChildren(...[build()].flat(Infinity).filter(Boolean));
  }
  drawResult();
  if (data.followed.length) follow(0); else NEEDS.forEach(redraw);
  document.getElementById("foot").textContent = `Made by minimrcnn explain. ${model.backbone}, ` +
    `${hasPyramid ? "feature pyramid" : `on ${data.levels[0].name}, no pyramid`}, ${model.classes} classes with the background. ` +
    "Boxes are x1, y1, x2, y2 in pixels of the resized photo, x to the right, y down.";
}

start();
