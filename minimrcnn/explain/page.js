// The words that depend on the model, and the page as a whole.

function words() {
  const [photo, resized, padded] = [data.sizes.photo, data.sizes.resized, data.sizes.padded].map(size);
  const factor = data.sizes.resized[1] / data.sizes.photo[1];
  const best = data.best;
  return {
    sizes:
      `The photo has ${photo} pixels. ` +
      (photo === resized
        ? model.min_size === null
          ? "It is not resized: this model takes photos as they are. "
          : "It has the size already that this model resizes to. "
        : `It is resized to ${resized}, by ${show(factor, 3)}: the shorter side to ${model.min_size}, unless the longer would then exceed ${model.max_size}. `) +
      (resized === padded
        ? `Both sides are multiples of ${model.divisible} already, so nothing is padded.`
        : `It is padded with zeros on the right and below to ${padded}, multiples of ${model.divisible}, so that every map has a whole number of cells.`) +
      (data.photo_scale < 1
        ? ` (This page shows the photo at ${show(100 * data.photo_scale, 0)}% of its size; all numbers are the network\u2019s.)`
        : ""),
    p6: `P6 is every second cell of ${model.p6 === "p5" ? "P5" : "M5, the sum before P5\u2019s convolution"}, for the largest anchors.`,
    anchors:
      `Before it looks at the photo, the network has guesses: in every cell ${model.ratios.length * (hasPyramid ? 1 : model.anchor_sizes.length)} ` +
      `boxes, of ${model.ratios.length === 1 ? "one shape" : `${model.ratios.length} shapes`} (height over width ${model.ratios.join(", ")})` +
      (hasPyramid
        ? ", of one size on each level."
        : ` and ${plural(model.anchor_sizes.length, "size")}, all on the one map.`) +
      ` Here these are ${plural(data.fired.total, "anchor")}.`,
    proposals:
      `Of each level the best ${count(model.pre_nms)} anchors by objectness are moved by the four numbers the network has for each, ` +
      `and cut off at the photo\u2019s border: ${plural(data.nms.candidates, "candidate")}. Non-maximum suppression leaves ${count(data.nms.kept)}, ` +
      `of which the best ${count(model.post_nms)} at most go on: ${plural(data.nms.proposals, "proposal")}.`,
    "rpn-nms": String(model.rpn_nms),
    "only-level": data.levels[0].name,
    align:
      "The heads want every RoI in the same size. RoI pooling rounds twice, the RoI to whole cells and its bins to whole cells, and so looks a little " +
      "beside the object. RoIAlign rounds nothing: it reads the map between its cells, at the points that are drawn here. " +
      {
        align: "",
        pool: "This model uses RoI pooling; RoIAlign is drawn for comparison. ",
        warp: "This model uses RoIWarp, which lies between the two. ",
      }[model.operation] +
      (model.aligned
        ? "The value of cell i sits in its middle, at i + \u00bd (aligned)."
        : "The value of cell i is taken to sit at i, its upper left corner (aligned=False, as the published weights want it)."),
    classes:
      `The box head turns the crop into ${plural(model.classes, "logit")}, one for each class and one for the background; softmax makes scores of them that ` +
      `sum to 1. ${plural(data.nms.proposals, "RoI")} and their classes have ${plural(data.heads.candidates, "score")} of more than ${data.score_thresh}, the background aside; ` +
      `non-maximum suppression within each class leaves ${plural(data.heads.kept, "detection")}` +
      (data.heads.kept > data.found ? `, the best ${count(data.found)} of which are kept.` : "."),
    masks: {
      sigmoid:
        "The mask head answers for every class, as if it were that one: each mask has a sigmoid of its own, so that the classes do not compete. " +
        "The box head has chosen the class, and with it the mask.",
      agnostic: "This model has one mask for all classes (class-agnostic), so there is nothing to choose.",
      softmax:
        "In this model the classes compete in every pixel (softmax over all classes, the background among them), as in a fully convolutional network. " +
        "The box head has chosen the class, and with it the mask.",
    }[model.mask_loss],
    nothing:
      `The network found nothing that scores more than ${data.score_thresh}. ` +
      (best
        ? `The best it had was ${best.name} with ${show(best.score)}` +
          (best.score > 0.02
            ? `: with a lower --score, such as ${show(Math.ceil(best.score * 50 - 1) / 50)}, it would be followed through all the stages.`
            : ".")
        : "No proposal was left to look at."),
  };
}

function stages() {
  const levels = data.levels.map((level) => level.name),
    all = [
      ["input", "Photo", size(data.sizes.padded)],
      ["backbone", "C2\u2013" + data.maps.at(-1).name, model.backbone],
      hasPyramid && ["pyramid", "P2\u2013P6", plural(data.levels[0].channels, "channel")],
      ["anchors", "Anchors", count(data.fired.total)],
      ["objectness", "Objectness", levels.length > 1 ? "5 levels" : levels[0]],
      ["proposals", "Proposals", count(data.nms.proposals)],
      ["level", "Level", hasPyramid ? "k = \u230a4 + log\u2082 \u2026\u230b" : levels[0]],
      [
        "align",
        { align: "RoIAlign", pool: "RoI pooling", warp: "RoIWarp" }[model.operation],
        data.followed.length ? data.followed[0].cuts.map((cut) => `${cut.size}\u00d7${cut.size}`).join(", ") : "crops",
      ],
      ["classes", "Classes", `${model.classes - 1} + background`],
      ["box", "Boxes", "dx, dy, dw, dh"],
      hasMasks && [
        "masks",
        "Masks",
        { sigmoid: "one for each class", agnostic: "one for all", softmax: "competing" }[model.mask_loss],
      ],
      hasMasks && ["paste", "Result", `${data.found} found`],
    ];
  return all
    .filter(Boolean)
    .map(([id, title, detail]) => make("li", {}, make("a", { href: `#${id}` }, title, make("small", {}, detail))));
}

const NEEDS = ["input", "anchors", "proposals", "level", "align", "classes", "box", "masks", "paste"];

function drawPart(part) {
  const place = document.querySelector(`[data-one="${part}"]`),
    it = data.followed[chosen];
  const focus = document.activeElement,
    mark = place.contains(focus) && focus.name ? [focus.name, focus.value] : null;
  const drawn = it
    ? one[part](it)
    : NEEDS.indexOf(part) > 2 && (hasMasks || part !== "masks")
      ? make("p", { class: "note" }, "Nothing was found, so there is nothing to follow here.")
      : null;
  place.replaceChildren(...[drawn].flat(Infinity).filter(Boolean));
  if (mark)
    [...place.querySelectorAll("input")].find((input) => input.name === mark[0] && input.value === mark[1])?.focus();
}

/** Tables that are wider than the screen can be scrolled, so the keyboard must reach them; the others need not. */
function reachTables() {
  const tables = [...document.querySelectorAll(".table")];
  const wide = tables.map((table) => table.scrollWidth > table.clientWidth); // first all are measured: one layout
  tables.forEach((table, k) => (wide[k] ? table.setAttribute("tabindex", 0) : table.removeAttribute("tabindex")));
}

function redraw(part) {
  drawPart(part);
  reachTables();
}

function drawResult() {
  const it = data.followed[chosen];
  const caption = it
    ? `${plural(data.found, "detection")}${data.found > data.followed.length ? ` (the best ${data.followed.length} can be followed)` : ""}. ` +
      "Click one, or choose it in the bar below; the left and right arrow keys go through them. Every section then follows it."
    : words().nothing;
  document
    .getElementById("result")
    .replaceChildren(
      picture(
        it ? `The photo with ${plural(data.found, "detection")}` : "The photo; nothing was found in it",
        caption,
        it ? found(chosen) : data.best ? outline(data.best.box, "proposal") : [],
        undefined,
        "hero",
      ),
    );
  document.querySelectorAll("[data-level]").forEach((place) => {
    const spot = place.querySelector(".spot"),
      own = it && Number(place.dataset.level) === it.anchor.level;
    spot.replaceChildren(...(it ? [outline(it.box, own ? "final" : "thin faint")] : []));
    place.classList.toggle("from", Boolean(own));
  });
  const boxed = (map) => mapFigure(map, it && it.box);
  document.querySelector('[data-all="backbone"]').replaceChildren(figures("maps", data.maps.map(boxed)));
  document
    .querySelector('[data-all="pyramid"]')
    .replaceChildren(...(hasPyramid ? [figures("maps", data.levels.map(boxed))] : []));
}

function follow(d) {
  if (!data.followed[d]) return;
  chosen = d;
  const input = document.querySelectorAll("#picker input")[d];
  input.checked = true;
  const picker = document.getElementById("picker"),
    label = input.parentElement;
  picker.scrollLeft = label.offsetLeft - (picker.clientWidth - label.offsetWidth) / 2; // the page itself stays where it is
  drawResult();
  NEEDS.forEach(drawPart);
  reachTables();
  document.getElementById("status").textContent =
    `Following ${name(data.followed[d], d)}, ${d + 1} of ${data.followed.length}`;
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
  document.getElementById("summary").textContent = data.found
    ? `It found ${what}${data.found > data.followed.length ? " and more" : ""}. ` +
      "Here is how it came to that, stage by stage, with its own numbers."
    : "It found nothing. Here is how it came to that, stage by stage, with its own numbers.";
  document.querySelectorAll("[data-when]").forEach((node) => {
    node.hidden = !{ pyramid: hasPyramid, "no-pyramid": !hasPyramid, masks: hasMasks, "no-masks": !hasMasks }[
      node.dataset.when
    ];
  });
  const texts = words();
  document.querySelectorAll("[data-text]").forEach((node) => {
    node.textContent = texts[node.dataset.text];
  });
  document.getElementById("stages").append(...stages());
  if (!hasPyramid)
    document.querySelector("#backbone h2").textContent =
      `${data.maps[0].name} to ${data.maps.at(-1).name}: the backbone looks`;
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
    picker.append(
      make("label", {}, input, dot, make("span", {}, `${d + 1} ${it.name}`), make("small", {}, show(it.score))),
    );
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
  if (data.followed.length) follow(0);
  else NEEDS.forEach(drawPart);
  reachTables();
  window.addEventListener("resize", reachTables);
  document.getElementById("foot").textContent =
    `Made by minimrcnn explain. ${model.backbone}, ` +
    `${hasPyramid ? "feature pyramid" : `on ${data.levels[0].name}, no pyramid`}, ${model.classes} classes with the background. ` +
    "Boxes are x1, y1, x2, y2 in pixels of the resized photo, x to the right, y down.";
}

start();
