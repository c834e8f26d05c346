// What concerns one detection, section by section; drawn each time another one is followed.

const one = {
  input(it) {
    const rows = ["red", "green", "blue"].map((color, c) => [
      color,
      show(it.pixel.values[c], 0),
      `(${show(it.pixel.values[c], 0)} / 255 \u2212 ${data.mean[c]}) / ${data.deviation[c]}`,
      show(it.pixel.normalized[c], 3),
    ]);
    return table(
      `The pixel in the middle of ${it.title}, column ${it.pixel.x}, row ${it.pixel.y} of the resized photo`,
      ["color", "value", "formula", "normalized"],
      rows,
    );
  },
  anchors(it) {
    const anchor = it.anchor,
      [height, width] = anchor.step;
    return figures(
      "wide",
      picture(
        `The anchors of the cell from which ${it.title} came`,
        [
          bold(`The cell of ${it.title}`),
          `: row ${anchor.row}, column ${anchor.column} of ${anchor.name}. Its anchors lie about its upper left corner; dotted is the one that became ${it.title}.`,
        ],
        [
          draw("rect", { x: anchor.column * width, y: anchor.row * height, width, height, class: "cell even" }),
          anchor.cell.filter((other) => !other.own).map((other) => colored(other.box, "#fff", "thin faint")),
          outline(anchor.box, "anchor"),
        ],
        around(anchor.cell.map((other) => other.box).concat([it.box]), 0.1),
      ),
      make(
        "div",
        {},
        table(
          `Anchors of this cell`,
          ["box x1, y1, x2, y2", "object?"],
          anchor.cell.map((other) => [other.box.map((side) => show(side, 0)).join(", "), show(other.score, 3)]),
          (k) => anchor.cell[k].own,
        ),
        make(
          "p",
          {},
          `${it.title} began as the marked one: side ${anchor.side}, height over width ${anchor.ratio}. Its logit is ` +
            `${show(anchor.logit)}, its objectness 1 / (1 + e^(${show(-anchor.logit)})) = ${show(anchor.score, 3)}, ` +
            (anchor.rank === 1
              ? "the highest of all anchors."
              : `number ${count(anchor.rank)} of all ${count(data.fired.total)} anchors.`),
        ),
      ),
    );
  },
  proposals(it) {
    const proposal = it.proposal,
      boxes = proposal.losers.map((loser) => loser.box);
    return figures(
      "wide",
      picture(
        `The proposal of ${it.title} and what it suppressed`,
        [
          bold(`Proposal ${proposal.rank}`),
          ` became ${it.title}. ` +
            (proposal.dropped
              ? `NMS dropped ` +
                `${plural(proposal.dropped, "candidate")} for it, as they overlap it by more than ${model.rpn_nms}` +
                (proposal.dropped > boxes.length ? `; the best ${boxes.length} are drawn.` : ".")
              : "No candidate was dropped for it."),
        ],
        [
          boxes.map((box) => outline(box, "dropped thin")),
          outline(it.anchor.box, "anchor"),
          outline(proposal.box, "proposal"),
        ],
        around([proposal.box, it.anchor.box, ...boxes], 0.12),
      ),
      make(
        "div",
        {},
        key([
          ["anchor", "anchor"],
          ["proposal", "proposal"],
          ["dropped", "dropped for it"],
        ]),
        losers("Dropped for it", proposal, "objectness"),
      ),
    );
  },
  level(it) {
    return [
      it.levels.map((level) => {
        const rounded = level.exact === null ? "below every level" : `\u230a${show(level.exact, 3)}\u230b`;
        const whole = level.exact === null ? null : Math.floor(level.exact + 1e-6);
        const bound = hasPyramid && whole !== null && `P${whole}` !== level.name;
        return hasPyramid
          ? formula(
              level.what === "proposal"
                ? "for the box head, the proposal: "
                : "for the mask head, the detection\u2019s box: ",
              `k = \u230a4 + log\u2082(\u221a(${show(level.width)} \u00b7 ${show(level.height)}) / 224)\u230b = ` +
                `\u230a4 + log\u2082(${show(level.side)} / 224)\u230b = ${rounded}${whole === null ? "" : ` = ${show(whole, 0)}`} \u2192 `,
              bold(level.name),
              bound ? " (levels end at P2 and P5)" : "",
            )
          : make(
              "p",
              {},
              `${level.what === "proposal" ? "The proposal" : "The detection"} is ${show(level.width)} \u00d7 ` +
                `${show(level.height)} pixels.`,
            );
      }),
      hasPyramid && ruler(it),
      hasPyramid &&
        table("RoIs of this photo that the box head was given, by level", data.heads.levels, [
          data.heads.cut.map(count),
        ]),
    ];
  },
  align(it) {
    const cut = it.cuts.find((some) => some.head === head) ?? it.cuts[0];
    const heads =
      it.cuts.length > 1 &&
      choice(
        "Cut for the",
        "head",
        it.cuts.map((some) => [some.head, `${some.head} head, ${some.size}\u00d7${some.size}`]),
        cut.head,
        (value) => {
          head = value;
          redraw("align");
        },
      );
    const rules = choice(
      "RoI pooling\u2019s rule",
      "rule",
      [
        ["floor", "both cut off, as it is usually told"],
        ["caffe", "rounded, as in Caffe and torchvision"],
      ],
      rule,
      (value) => {
        rule = value;
        redraw("align");
      },
    );
    return [heads, figures("wide", alignFigure(it, cut), poolFigure(it, cut)), rules, roundings(cut), binText(it, cut)];
  },
  classes(it) {
    const rows = it.classes.rows;
    return [
      make(
        "div",
        { class: "table" },
        make(
          "table",
          { class: "bars" },
          make("caption", {}, `Class scores of proposal ${it.proposal.rank}`),
          make(
            "thead",
            {},
            make(
              "tr",
              {},
              ["class", "logit", "score", ""].map((text) => make("th", { scope: "col" }, text)),
            ),
          ),
          make(
            "tbody",
            {},
            rows.map((row) => {
              const bar = make("i");
              bar.style.width = `${100 * (row.score ?? 0)}%`;
              return make(
                "tr",
                { class: row.own && "own" },
                make("th", { scope: "row" }, row.name),
                make("td", {}, show(row.logit)),
                make("td", {}, show(row.score, 3)),
                make("td", { class: "bar", "aria-hidden": "true" }, bar),
              );
            }),
          ),
        ),
      ),
      it.classes.others > 0 &&
        make(
          "p",
          {},
          `The other ${plural(it.classes.others, "class").replace("classs", "classes")} ` +
            `have ${show(it.classes.rest, 3)} together.`,
        ),
      make(
        "p",
        {},
        it.losers.dropped
          ? `${plural(it.losers.dropped, "other RoI")} said ${it.name}, too, and their boxes overlap ` +
              `this one by more than ${model.box_nms}: a second non-maximum suppression, within each class, dropped ` +
              (it.losers.dropped === 1 ? "it." : "them.")
          : `No other RoI that said ${it.name} overlaps this one by more than ` +
              `${model.box_nms}, so non-maximum suppression within the class dropped none for it.`,
      ),
      it.losers.dropped > 0 &&
        figures(
          "wide",
          picture(
            `Boxes of class ${it.name} dropped for this one`,
            "Dropped within the class.",
            [it.losers.losers.map((loser) => outline(loser.box, "dropped thin")), outline(it.box, "final")],
            around([it.box, ...it.losers.losers.map((loser) => loser.box)], 0.15),
          ),
          make("div", {}, losers("Dropped within the class", it.losers, "score")),
        ),
    ];
  },
  box(it) {
    const stops = [it.anchor.box, it.anchor.move.end, it.move.end].map(safe);
    const layer = draw("g");
    const [control, update] = slider("From anchor to box", 40, 40, (now) => {
      const at = now / 20,
        from = Math.min(Math.floor(at), 1),
        part = at - from;
      const box = stops[from].map((side, k) => side + part * (stops[from + 1][k] - side));
      layer.replaceChildren(outline(box, "current"));
      return now === 0
        ? "anchor"
        : now === 20
          ? "proposal"
          : now === 40
            ? "box"
            : now < 20
              ? "anchor \u2192 proposal"
              : "proposal \u2192 box";
    });
    update();
    return [
      figures(
        "wide",
        picture(
          `Anchor, proposal and box of ${it.title}`,
          null,
          [outline(stops[0], "anchor"), outline(stops[1], "proposal"), layer, outline(stops[2], "final")],
          around(stops, 0.15),
        ),
        make(
          "div",
          {},
          key([
            ["anchor", `anchor on ${it.anchor.name}`],
            ["proposal", `proposal ${it.proposal.rank}`],
            ["final", "box of the detection"],
            ["current", "where the slider is"],
          ]),
          control,
          moveTable("1. From anchor to proposal", it.anchor.move),
          moveTable("2. From proposal to box", it.move),
          make(
            "p",
            {},
            "In the photo\u2019s own pixels: ",
            bold(it.photo_box.map((side) => show(side, 1)).join(", ")),
            ".",
          ),
        ),
      ),
    ];
  },
  masks(it) {
    if (!it.masks) return null;
    const box = it.box,
      ratio = Math.max(box[3] - box[1], 1) / Math.max(box[2] - box[0], 1);
    return [
      figures(
        "small",
        it.masks.map((mask) =>
          image(
            mask.picture,
            `Mask for ${mask.name}${mask.own ? ", chosen" : ""}`,
            [
              bold(mask.name),
              mask.score === null ? "" : ` score ${show(mask.score)} `,
              mask.own && make("span", { class: "tag" }, "chosen"),
            ],
            mask.own ? "chosen" : "",
            Math.min(Math.max(ratio, 0.4), 2.5),
          ),
        ),
      ),
      make(
        "div",
        { class: "scale", "aria-hidden": "true" },
        make("span", {}, "0"),
        make("i"),
        make("span", {}, "1: this pixel is of the object"),
      ),
      model.classes > it.masks.length + 1 &&
        it.masks.length > 1 &&
        make(
          "p",
          {},
          `Shown are ${it.masks.length} of ` +
            `${model.classes - 1} masks: those of the classes with the highest scores.`,
        ),
    ];
  },
  paste(it) {
    const paste = it.paste;
    if (!paste) return null;
    const view = around([it.box], 0.18),
      frame = outline(it.box, "final");
    const [left, top, right, bottom] = paste.region;
    return [
      figures(
        "",
        picture(
          `The mask as it is, ${paste.side} cells on a side`,
          [
            bold(`1. ${paste.side}\u00d7${paste.side}`),
            ` cells, each a chance; the highest is ${show(paste.highest)}.`,
          ],
          [overlay(paste.mask, safe(it.box)), frame],
          view,
        ),
        picture(
          "The mask, resized",
          [
            bold("2. Resized"),
            `, with its border of zeros, to columns ${left} to ${right} and rows ${top} to ` +
              `${bottom} of the photo.`,
          ],
          [overlay(paste.soft, paste.area, ""), frame.cloneNode(true)],
          view,
        ),
        picture(
          "The mask, thresholded",
          [
            bold("3. Above \u00bd"),
            `: ${count(paste.pixels)} pixels of the photo, ` + `${show(100 * paste.share, 0)}% of the box.`,
          ],
          [overlay(paste.hard, paste.area), outline(it.box, "thin")],
          view,
        ),
      ),
      picture("All detections in the photo", "And so on, for all detections.", found(chosen), undefined, "hero"),
    ];
  },
};

function moveTable(caption, move) {
  const words = { dx: "middle x", dy: "middle y", dw: "width", dh: "height" };
  const weighted = move.steps.some((step) => step.weight !== 1);
  const rows = move.steps.map((step, k) => [
    `${step.name} = ${weighted ? `${show(step.raw, 3)} / ${step.weight} = ` : ""}${show(step.delta, 3)}`,
    words[step.name],
    (k < 2
      ? `${show(step.before, 1)} ${signed(step.delta, 3)} \u00b7 ${show(step.span, 1)}`
      : `${show(step.before, 1)} \u00b7 e^${show(step.delta, 3)}`) + ` = ${show(step.after, 1)}`,
  ]);
  return [
    table(caption, [weighted ? "delta, by its weight" : "delta", "moves", "by"], rows),
    move.clipped && make("p", {}, "What reached out of the photo was cut off."),
  ];
}
function losers(caption, some, word) {
  if (!some.losers.length) return null;
  const listed = some.losers.slice(0, 6);
  return table(
    `${caption}: ${
      listed.length < some.dropped ? `the best ${listed.length} of ${count(some.dropped)}` : count(some.dropped)
    }`,
    [word, "IoU"],
    listed.map((loser) => [show(loser.score, 3), show(loser.iou)]),
  );
}
