// One RoI: which level it is cut from, RoIAlign's samples, RoI pooling's cells, and one bin in numbers.

/** The levels as stretches of a line of sizes, and where the detections are on it. */
function ruler(it) {
  const low = Math.log2(14),
    high = Math.log2(896),
    width = 720;
  const place = (side) =>
    20 + ((Math.min(Math.max(Math.log2(Math.max(side, 1)), low), high) - low) / (high - low)) * (width - 40);
  const bands = [
    ["P2", 14, 112],
    ["P3", 112, 224],
    ["P4", 224, 448],
    ["P5", 448, 896],
  ];
  const mark = (level, color, up) => {
    const x = place(level.side ?? 0);
    return [
      draw("path", { d: `M${x} ${up ? 40 : 72} l-8 ${up ? -14 : 14} h16 z`, fill: color, class: "mark" }),
      draw(
        "text",
        { x: Math.min(Math.max(x, 70), width - 70), y: up ? 20 : 104, "text-anchor": "middle" },
        `${level.what} ${show(level.side, 1)}`,
      ),
    ];
  };
  return make(
    "figure",
    { class: "hero" },
    draw(
      "svg",
      {
        viewBox: `0 0 ${width} 136`,
        class: "plot",
        role: "img",
        "aria-label": `Sizes and levels: ${it.levels.map((level) => `the ${level.what} of side ${show(level.side, 1)} is cut from ${level.name}`).join("; ")}`,
      },
      bands.map(([label, from, to], k) => [
        draw("rect", {
          x: place(from),
          y: 42,
          width: place(to) - place(from),
          height: 28,
          fill: COLORS[k],
          class: "band",
        }),
        draw("text", { x: (place(from) + place(to)) / 2, y: 61, "text-anchor": "middle", class: "name" }, label),
      ]),
      [112, 224, 448].map((side) => [
        line(place(side), 38, place(side), 112, "axis"),
        draw("text", { x: place(side), y: 128, "text-anchor": "middle" }, `${side}`),
      ]),
      data.followed.map((other) =>
        draw("circle", { cx: place(other.levels[0].side ?? 0), cy: 66, r: 3, class: "other" }),
      ),
      mark(it.levels[0], "var(--proposal)", true),
      it.levels[1] && mark(it.levels[1], "var(--final)", false),
    ),
    make(
      "figcaption",
      {},
      "Side of a square of the same area, in pixels, each step twice the last. Dots: the other detections\u2019 proposals.",
    ),
  );
}

function gridLines(view, stride, shift = 0) {
  const lines = [],
    [x1, y1, x2, y2] = view;
  if ((x2 - x1) / stride > 90) return lines; // too fine to be seen
  for (let x = Math.ceil(x1 / stride - shift); (x + shift) * stride <= x2; x++)
    lines.push(line((x + shift) * stride, y1, (x + shift) * stride, y2, "grid"));
  for (let y = Math.ceil(y1 / stride - shift); (y + shift) * stride <= y2; y++)
    lines.push(line(x1, (y + shift) * stride, x2, (y + shift) * stride, "grid"));
  return lines;
}
const cutView = (cut) =>
  around([cut.roi, [cut.edges[1][0], cut.edges[0][0], cut.edges[1].at(-1), cut.edges[0].at(-1)]], 0, 0).map(
    (side, k) => side + (k < 2 ? -1.2 : 1.2) * cut.stride,
  );

function alignFigure(it, cut) {
  const view = cutView(cut),
    [ys, xs] = cut.edges,
    bin = cut.bin;
  const radius = Math.min((view[2] - view[0]) / 110, (xs.at(-1) - xs[0]) / cut.size / (cut.xs[0].length || 1) / 3.2);
  const box = [xs[bin.column], ys[bin.row], xs[bin.column + 1], ys[bin.row + 1]];
  const points = cut.ys.flatMap((rows, p) =>
    rows.flatMap((y) =>
      cut.xs.flatMap((columns, q) =>
        columns.map((x) =>
          draw("circle", {
            cx: x,
            cy: y,
            r: radius,
            class: p === bin.row && q === bin.column ? "sample one" : "sample",
          }),
        ),
      ),
    ),
  );
  const corners = new Set(bin.samples.flatMap((sample) => sample.corners.map(([i, j]) => `${i},${j}`)));
  const warp = model.operation === "warp";
  const per = `${cut.ys[0].length}\u00d7${cut.xs[0].length}`;
  return picture(
    `${warp ? "RoIWarp" : "RoIAlign"}: ${cut.size} by ${cut.size} bins over the RoI, with their sample points`,
    [
      bold(warp ? "RoIWarp" : "RoIAlign"),
      model.operation === "pool" ? " (this model does not use it)" : "",
      `: ${show(cut.cells[0])} \u00d7 ${show(cut.cells[1])} cells of ${cut.level}, ${cut.size}\u00d7${cut.size} bins, ${per} samples in each. ` +
        (warp ? "The RoI was rounded to whole cells, then sampled." : "Nothing is rounded.") +
        (!warp && !model.aligned && Math.min(...safe(cut.cells)) < 1
          ? " A side of less than a cell counts as one."
          : "") +
        (corners.size ? " White: the samples of the bin below; green: the cells they are mixed from." : ""),
    ],
    [
      gridLines(view, cut.stride, cut.shift),
      outline(cut.roi, cut.head === "box" ? "proposal" : "final"),
      xs.slice(1, -1).map((x) => line(x, ys[0], x, ys.at(-1), "edge grid")),
      ys.slice(1, -1).map((y) => line(xs[0], y, xs.at(-1), y, "edge grid")),
      outline([xs[0], ys[0], xs.at(-1), ys.at(-1)], "thin"),
      points,
      [...corners].map((place) => {
        const [i, j] = place.split(",").map(Number);
        return draw("circle", {
          cx: (j + cut.shift) * cut.stride,
          cy: (i + cut.shift) * cut.stride,
          r: radius * 0.8,
          class: "corner",
        });
      }),
      bin.samples.length > 0 && outline(box, "thin"),
    ],
    view,
  );
}

function poolFigure(it, cut) {
  const view = cutView(cut),
    [rows, columns] = cut.pooled[rule],
    stride = cut.stride;
  const whole = [columns.first, rows.first, columns.first + columns.size, rows.first + rows.size].map(
    (k) => k * stride,
  );
  const cells = rows.bins.flatMap(([top, bottom], p) =>
    columns.bins.map(([left, right], q) =>
      draw("rect", {
        x: left * stride,
        y: top * stride,
        width: Math.max(right - left, 0) * stride,
        height: Math.max(bottom - top, 0) * stride,
        class: (p + q) % 2 ? "cell" : "cell even",
      }),
    ),
  );
  const used = [columns, rows].map((side) => side.bins.at(-1)[1] - side.bins[0][0]);
  const lost = rule === "floor" && (used[0] < columns.size || used[1] < rows.size);
  return picture(
    `RoI pooling: the RoI and its bins in whole cells`,
    [
      bold("RoI pooling"),
      model.operation === "pool" ? " (this model\u2019s, by the second rule)" : " (for comparison)",
      `: the RoI (dashed) becomes ${columns.size} \u00d7 ${rows.size} whole cells (green), ` +
        `its bins become whole cells again. ` +
        (lost
          ? "What is red is in no bin: lost."
          : rule === "caffe"
            ? "Bins reach out to whole cells, so neighbors overlap."
            : ""),
    ],
    [
      gridLines(view, stride),
      lost &&
        draw("rect", {
          x: whole[0],
          y: whole[1],
          width: Math.max(whole[2] - whole[0], 0),
          height: Math.max(whole[3] - whole[1], 0),
          class: "cell lost",
        }),
      cells,
      outline(whole, "whole"),
      outline(cut.roi, cut.head === "box" ? "proposal" : "final"),
    ],
    view,
  );
}

/** Both roundings in numbers. */
function roundings(cut) {
  const rows = [
    ["width", cut.cells[0], cut.pooled[rule][1]],
    ["height", cut.cells[1], cut.pooled[rule][0]],
  ].map(([words, cells, side]) => {
    const sizes = [...new Set(side.bins.map(([from, to]) => to - from))].sort((a, b) => a - b);
    const covered = Math.max(...side.bins.map(([, to]) => to)) - Math.min(...side.bins.map(([from]) => from));
    return [
      words,
      `${show(cells)} \u2192 ${side.size}`,
      `${side.size} / ${cut.size} = ${show(side.bin, 3)} \u2192 ${sizes.join(" or ")}`,
      `${covered} of ${show(cells)}`,
      show((cells ?? 0) / cut.size, 3),
    ];
  });
  return table(
    `RoI pooling\u2019s two roundings, in cells of ${cut.stride} pixels (${rule === "floor" ? "both cut off" : "Caffe\u2019s rule: to the nearest, ends included"})`,
    ["", "1. the RoI", "2. a bin", "cells used", "RoIAlign\u2019s bin"],
    rows,
  );
}

/** One bin down to the last number. */
function binText(it, cut) {
  const bin = cut.bin,
    where = `row ${bin.row + 1}, column ${bin.column + 1}, channel ${bin.channel}`;
  const title = make("h3", {}, "One bin, down to the last number");
  const unit = draw(
    "svg",
    {
      viewBox: `0 0 ${cut.size} ${cut.size}`,
      role: "img",
      "aria-label": `The crop, ${cut.size} by ${cut.size} bins: mean absolute value`,
    },
    overlay(cut.crop, [0, 0, cut.size, cut.size]),
    outline([bin.column, bin.row, bin.column + 1, bin.row + 1], "current"),
  );
  const crop = make(
    "figure",
    {},
    unit,
    make(
      "figcaption",
      {},
      bold("The crop"),
      `: what the ${cut.head} head ` +
        `${model.pyramid === "c4" ? "is given, by way of the backbone\u2019s last stage" : "is given"}, ` +
        `${cut.size}\u00d7${cut.size}\u00d7${cut.map[2]}; the mean of the absolute values.`,
    ),
  );
  if (bin.cells) {
    const [top, bottom, left, right] = bin.cells;
    return [
      title,
      figures(
        "bin",
        crop,
        make(
          "div",
          {},
          make(
            "p",
            {},
            `The value of the crop farthest from zero is in ${where}: the largest of the cells in rows ` +
              `${top} to ${bottom - 1}, columns ${left} to ${right - 1}.`,
          ),
          formula("max = ", bold(show(bin.value, 4))),
        ),
      ),
    ];
  }
  if (!bin.samples.length) return [title, crop];
  const samples = bin.samples.slice(0, 4);
  const rows = samples.map((sample) => [
    `y ${show(sample.y)}, x ${show(sample.x)}`,
    sample.corners.map(([, , weight, value]) => `${show(weight, 3)} \u00b7 ${show(value, 3)}`).join(" + ") ||
      "outside the map",
    show(sample.value, 4),
  ]);
  const last =
    model.mode === "max"
      ? "their largest"
      : `their average, (${bin.samples
          .slice(0, 4)
          .map((sample) => show(sample.value, 3))
          .join(" + ")}` + `${bin.samples.length > 4 ? " + \u2026" : ""}) / ${bin.samples.length}`;
  return [
    title,
    figures(
      "bin",
      crop,
      make(
        "div",
        {},
        make(
          "p",
          {},
          `The value of the crop farthest from zero is in ${where}. Each of its ` +
            `${bin.samples.length} samples is mixed from the four cells around it; a cell weighs the more, the nearer it is: ` +
            `the upper left one (1 \u2212 v)(1 \u2212 u), where v and u are what is behind the decimal point of y and x, and 0 beyond the outermost cells.`,
        ),
        table(
          `Samples of bin ${bin.row + 1}, ${bin.column + 1} on ${cut.level}: weight \u00b7 value of the four cells`,
          ["in cells", "mixture", "sample"],
          rows,
        ),
        formula(`the bin is ${last} = `, bold(show(bin.value, 4))),
      ),
    ),
  ];
}
