// What concerns the whole photo, section by section; drawn once.

const name = (found, number) => `${number + 1}. ${found.name}, score ${show(found.score)}`;

/** All that was found: masks, boxes, numbers. A click follows one. */
function found(current) {
  const order = data.followed.map((_, d) => d).reverse(); // the best on top
  const shown = Math.min(document.getElementById("result").clientWidth || 560, 640); // pixels of the screen
  const unit = (photoWidth / shown) * (data.followed.length > 20 ? 0.75 : 1);
  return [
    order.map((d) => data.followed[d].paste && overlay(data.followed[d].paste.hard, data.followed[d].paste.area)),
    order.map((d) => d !== current && colored(data.followed[d].box, data.followed[d].color)),
    data.followed[current] && outline(data.followed[current].box, "final"),
    order.map((d) => {
      const [x1, y1, x2, y2] = safe(data.followed[d].box);
      const text = draw("text", { x: Math.max(x1, 0) + 4 * unit, y: Math.max(y1, 0) + 17 * unit }, `${d + 1}`);
      text.style.fontSize = `${15 * unit}px`;
      text.style.strokeWidth = `${3.5 * unit}px`;
      const hit = draw(
        "rect",
        { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0), class: "hit" },
        draw("title", {}, name(data.followed[d], d)),
      );
      hit.addEventListener("click", () => follow(d));
      return [text, hit];
    }),
  ];
}

function mapFigure(map, box) {
  const view = [0, 0, map.size[1] * map.stride, map.size[0] * map.stride];
  return make(
    "figure",
    {},
    draw(
      "svg",
      {
        viewBox: `0 0 ${view[2]} ${view[3]}`,
        role: "img",
        "aria-label": `Heat map of ${map.name}: mean absolute activation`,
      },
      overlay(map.picture, view),
      box && outline(box, "final"),
    ),
    make(
      "div",
      { class: "channels" },
      map.strongest.map((channel) =>
        make("img", {
          src: channel.picture,
          alt: `Channel ${channel.number} of ${map.name}`,
          title: `channel ${channel.number}`,
          class: "cells",
        }),
      ),
    ),
    make(
      "figcaption",
      {},
      bold(map.name),
      ` ${size(map.size)} cells, ${plural(map.channels, "channel")}; a cell is ` +
        `${map.stride}\u00d7${map.stride} pixels` +
        (map.block > 1 ? `; drawn are blocks of ${map.block}\u00d7${map.block} cells, by their largest` : "") +
        `. Dark: ${show(map.low)}, bright: ${show(map.high)}. Channels ` +
        map.strongest.map((channel) => channel.number).join(", ") +
        ".",
    ),
  );
}

const whole = {
  input() {
    const colors = ["red", "green", "blue"].map((color, c) =>
      image(data.input[c], `The ${color} values, normalized`, [
        bold(color[0].toUpperCase() + color.slice(1)),
        `: (value / 255 \u2212 ${data.mean[c]}) / ${data.deviation[c]}`,
      ]),
    );
    const view = [0, 0, paddedWidth, paddedHeight];
    const padded = paddedWidth > photoWidth || paddedHeight > photoHeight;
    return figures(
      "maps",
      picture(
        `The photo, resized${padded ? " and padded" : ""}`,
        [
          bold(size(data.sizes.padded)),
          padded ? " pixels; what is hatched was padded." : " pixels; nothing had to be padded.",
        ],
        [],
        view,
      ),
      colors,
    );
  },
  anchors() {
    const box = data.fired;
    return figures(
      "wide",
      picture(
        `The ${box.anchors.length} anchors with the highest objectness`,
        [
          bold(`The ${box.anchors.length} anchors that fired most`),
          `, of ${count(box.total)}; ${count(box.above_half)} ` +
            "say object with more than \u00bd. The color is the level's.",
        ],
        box.anchors
          .slice()
          .reverse()
          .map((anchor) => colored(anchor.box, COLORS[anchor.level])),
      ),
      levelTable(),
    );
  },
  objectness() {
    return figures(
      "maps",
      data.objectness.map((level, k) => {
        const map = data.levels[k];
        const area = [0, 0, map.size[1] * level.step[1], map.size[0] * level.step[0]];
        return make(
          "div",
          { "data-level": k },
          picture(
            `Objectness on ${level.name}`,
            [
              bold(level.name),
              `: anchors of ${level.sides.join(", ")} pixels. The highest is ${show(level.highest)}; ` +
                `${count(level.above_half)} of ${count(level.anchors)} anchors are above \u00bd.`,
            ],
            [overlay(level.picture, area), draw("g", { class: "spot" })],
          ),
        );
      }),
    );
  },
  nms() {
    const steps = data.nms.steps;
    if (!steps.length) return make("p", { class: "note" }, "There is no candidate: no anchor was left with any area.");
    const layer = draw("g");
    const text = make("p", { "aria-live": "off" });
    const [control, update] = slider("Candidate", steps.length - 1, Math.min(14, steps.length - 1), (now) => {
      const step = steps[now],
        winner = step.winner;
      const kept = steps.slice(0, now).filter((one) => one.winner === null);
      const dropped = steps.slice(0, now).filter((one) => one.winner !== null);
      layer.replaceChildren(
        ...dropped.map((one) => outline(one.box, "dropped thin faint")),
        ...kept.map((one) => colored(one.box, COLORS[one.level])),
        ...(winner === null ? [] : [outline(steps[winner].box, "winner")]),
        outline(step.box, "current"),
      );
      text.replaceChildren(
        bold(`Candidate ${now + 1}`),
        `, from ${data.levels[step.level].name}, objectness ` + `${show(step.score, 3)}: `,
        winner === null
          ? make("span", { class: "tag" }, "kept")
          : make("span", { class: "tag" }, `dropped by candidate ${winner + 1}`),
        winner === null
          ? " \u2013 no better box of its level overlaps it too much."
          : ` \u2013 their IoU is ${show(step.iou)}.`,
        ` So far ${kept.length + (winner === null)} kept, ${dropped.length + (winner !== null)} dropped.`,
      );
      return `${now + 1} of ${steps.length}`;
    });
    update();
    const best = data.nms.best;
    return [
      control,
      text,
      key([
        ["current", "this candidate"],
        ["winner", "the better one that drops it"],
        ["dropped", "dropped before"],
      ]),
      figures(
        "wide",
        picture(
          "Non-maximum suppression step by step",
          [
            bold("Before"),
            `: the best ${steps.length} of ` +
              `${plural(data.nms.candidates, "candidate")}, one by one. Kept ones have the color of their level.`,
          ],
          [layer],
        ),
        picture(
          `The best ${best.length} proposals`,
          [
            bold("After"),
            `: ${plural(data.nms.kept, "box").replace(
              "boxs",
              "boxes",
            )} left, ${plural(data.nms.proposals, "proposal")} go on; drawn are the best ${best.length}.`,
          ],
          best
            .slice()
            .reverse()
            .map((one) => colored(one.box, COLORS[one.level])),
        ),
      ),
    ];
  },
};

function levelTable() {
  const rows = data.objectness.map((level, k) => [
    level.name,
    size(data.levels[k].size),
    level.sides.join(", "),
    count(level.anchors),
    count(level.above_half),
  ]);
  return make(
    "div",
    {},
    table("Anchors of each level", ["level", "cells", "side, pixels", "anchors", "above \u00bd"], rows),
  );
}
