"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data.people.length) return;
  const film = document.getElementById("film");
  const timeline = document.getElementById("timeline");
  const COLORS = data.colors;
  const DASHES = ["", "9 4", "2 3", "11 4 2 4", "5 2", "1 2"];
  const SYSTEM = { face: "#8a5a00", behavior: "#127a4b", audio: "#8b3a8f", dcmmoe: "#444c55", raav: "#b3460f" };
  const WORDS = { face: "face", behavior: "behaviour", audio: "audio", dcmmoe: "DCMMOE", raav: "RAAV" };
  const SOUNDLESS = ["no sound", "silence"];
  const DASH_OF = { face: "6 3", behavior: "2 3", audio: "9 3 2 3", dcmmoe: "1 3", raav: "4 2 1 2" };
  const LEFT = 84, RIGHT = 8, NARROWEST = 300, PANEL = 130, STRIP = 16, TRUST = 70, NOTE = 20;
  const END = data.end;
  const shown = new Set(data.people.map((_, i) => i));
  const layers = new Set(data.people.some((p) => p.gold) ? ["gold", "spread"] : ["spread"]);
  let now = 0, from = 0, length = END, width = 0; // width of the drawing in pixels: as wide as its place

  const element = (name, attributes, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  const x = (time) => LEFT + ((time - from) / length) * (width - LEFT - RIGHT);
  const timeAt = (clientX) => {
    const box = timeline.firstChild.getBoundingClientRect();
    const at = ((clientX - box.left) / box.width) * width;
    return clamp(from + ((at - LEFT) / (width - LEFT - RIGHT)) * length);
  };
  const clamp = (time) => Math.min(Math.max(0, time), Math.max(0, END - 0.001));
  const indexAt = (person, time) => {
    let low = 0, high = person.time.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (person.time[middle] <= time + 1e-4) low = middle; else high = middle - 1;
    }
    return low;
  };
  const within = (person) => [Math.max(0, indexAt(person, from) - 1), Math.min(person.time.length - 1, indexAt(person, from + length) + 1)];
  const path = (person, values, y) => {
    const [first, last] = within(person);
    let line = "", pen = false;
    for (let i = first; i <= last; i++) {
      if (values[i] === null) { pen = false; continue; }
      line += (pen ? "L" : "M") + x(person.time[i]).toFixed(1) + " " + y(values[i]).toFixed(1);
      pen = true;
    }
    return line;
  };
  const band = (person, middle, half, y) => {
    const [first, last] = within(person);
    let area = "", points = [];
    const close = () => {
      if (points.length > 1) {
        area += "M" + points.map(([at, low]) => at + " " + low).join("L") + "L" + points.reverse().map(([at, , high]) => at + " " + high).join("L") + "Z";
      }
      points = [];
    };
    for (let i = first; i <= last; i++) {
      if (middle[i] === null || half[i] === null) { close(); continue; }
      points.push([x(person.time[i]).toFixed(1), y(middle[i] - half[i]).toFixed(1), y(middle[i] + half[i]).toFixed(1)]);
    }
    close();
    return area;
  };
  const clock = (seconds) => {
    if (END < 60) return seconds.toFixed(length < 5 ? 2 : 1) + " s";
    const digits = length < 30 ? 1 : 0, whole = Number(seconds.toFixed(digits));
    const minutes = Math.floor(whole / 60), rest = (whole - 60 * minutes).toFixed(digits);
    return minutes + ":" + rest.padStart(digits ? 4 : 2, "0");
  };
  const signed = (value) => (value === null || value === undefined ? "none" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));

  const weightless = (person) => Object.keys(person.trust).length ? of(person.seen).map(([m]) => m).filter((m) => !(m in person.trust)) : [];
  const of = (values) => ["face", "behavior", "audio"].filter((m) => m in values).map((m) => [m, values[m]]);

  let cursor;
  const strips = () => data.people.flatMap((person, i) => (shown.has(i) ? [[person, i]] : []));
  function draw() {
    width = Math.max(NARROWEST, timeline.clientWidth);
    const perPerson = strips().map(([person]) => STRIP * Object.keys(person.seen).length + (Object.keys(person.trust).length ? TRUST + 26 + NOTE * weightless(person).length : 0) + 30);
    const height = 2 * (PANEL + 18) + perPerson.reduce((a, b) => a + b, 0) + 24;
    const drawn = element("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const patterns = element("defs", {}, drawn);
    const hatch = element("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, patterns);
    element("rect", { width: 6, height: 6, fill: "#eceff2" }, hatch);
    element("line", { x1: 0, y1: 0, x2: 0, y2: 6, stroke: "#8794a1", "stroke-width": 2 }, hatch);
    const clip = element("clipPath", { id: "inside" }, patterns);
    element("rect", { x: LEFT, y: 0, width: width - LEFT - RIGHT, height }, clip);
    let top = 8;
    for (const dimension of ["valence", "arousal"]) {
      const y = (value) => top + PANEL * (1 - (value + 1) / 2);
      element("text", { x: 4, y: top + 12, class: "name" }, drawn, dimension);
      for (const tick of [-1, -0.5, 0, 0.5, 1]) {
        element("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), stroke: tick ? "#e3e8ed" : "#aab4be" }, drawn);
        if (tick !== 1) element("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, drawn, tick);
      }
      const inside = element("g", { "clip-path": "url(#inside)" }, drawn);
      for (const [person, i] of strips()) {
        const color = COLORS[i % COLORS.length];
        for (const [a, b] of person.missing) {
          const gap = element("rect", { x: x(a), y: top, width: Math.max(1, x(b) - x(a)), height: PANEL, fill: "url(#hatch)", opacity: 0.8 }, inside);
          element("title", {}, gap, `${person.name}: no evidence from ${a.toFixed(1)} to ${b.toFixed(1)} s; the nearest frame's answer is given`);
        }
        const faceless = person.seen.face ? person.seen.face.gaps : [];
        for (const [a, b] of faceless) {
          const gap = element("rect", { x: x(a), y: top, width: Math.max(1, x(b) - x(a)), height: PANEL, fill: "url(#hatch)", opacity: 0.35 }, inside);
          element("title", {}, gap, `${person.name}: the face is not found from ${a.toFixed(1)} to ${b.toFixed(1)} s`);
        }
        if (layers.has("spread")) element("path", { d: band(person, person[dimension], person.spread[dimension], y), fill: color, opacity: 0.2 }, inside);
        for (const [system, values] of Object.entries(person.systems)) {
          if (layers.has(system)) element("path", { d: path(person, values[dimension], y), fill: "none", stroke: SYSTEM[system], "stroke-width": 1.2, "stroke-dasharray": DASH_OF[system] }, inside);
        }
        if (layers.has("gold") && person.gold) element("path", { d: path(person, person.gold[dimension], y), fill: "none", stroke: "#111", "stroke-width": 1.3, "stroke-dasharray": "2 2" }, inside);
        element("path", { d: path(person, person[dimension], y), fill: "none", stroke: color, "stroke-width": 2.2, "stroke-dasharray": DASHES[i % DASHES.length], "data-person": person.name }, inside);
      }
      top += PANEL + 18;
    }
    for (const [person, i] of strips()) {
      element("text", { x: 4, y: top + 8, class: "name" }, drawn, data.people.length > 1 ? person.name : "evidence");
      top += 14;
      for (const [modality, seen] of of(person.seen)) {
        element("text", { x: LEFT - 6, y: top + 12, "text-anchor": "end" }, drawn, WORDS[modality]);
        const inside = element("g", { "clip-path": "url(#inside)" }, drawn);
        element("rect", { x: x(0), y: top + 2, width: x(person.end) - x(0), height: STRIP - 4, fill: COLORS[i % COLORS.length], opacity: 0.55 }, inside);
        for (const [a, b, why] of seen.gaps) {
          const gap = element("rect", { x: x(a), y: top + 2, width: Math.max(1, x(b) - x(a)), height: STRIP - 4, fill: SOUNDLESS.includes(why) ? "#dde2e7" : "url(#hatch)", "data-why": why }, inside);
          element("title", {}, gap, `${WORDS[modality]} from ${a.toFixed(1)} to ${b.toFixed(1)} s: ${why}`);
        }
        top += STRIP;
      }
      if (Object.keys(person.trust).length) {
        element("text", { x: 4, y: top + 16, class: "name" }, drawn, "trust");
        const notes = weightless(person);
        const legend = top + 18;
        top += 24 + NOTE * notes.length;
        const y = (value) => top + TRUST * (1 - value);
        for (const tick of [0, 0.5, 1]) {
          element("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), stroke: "#e3e8ed" }, drawn);
          element("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, drawn, tick);
        }
        const inside = element("g", { "clip-path": "url(#inside)" }, drawn);
        let at = width - RIGHT - 8;
        for (const [modality, values] of of(person.trust).reverse()) {
          element("path", { d: path(person, values, y), fill: "none", stroke: SYSTEM[modality], "stroke-width": 1.8, "stroke-dasharray": DASH_OF[modality], "data-trust": modality }, inside);
          element("text", { x: at, y: legend, "text-anchor": "end" }, drawn, WORDS[modality]);
          at -= 8 * WORDS[modality].length + 4;
          element("line", { x1: at - 26, x2: at, y1: legend - 4, y2: legend - 4, stroke: SYSTEM[modality], "stroke-width": 2, "stroke-dasharray": DASH_OF[modality] }, drawn);
          at -= 44;
        }
        notes.forEach((modality, line) => element("text", { x: 4, y: legend + NOTE * (line + 1) - 6 }, drawn, `${WORDS[modality]} has no weight of its own: it changes the others`));
        top += TRUST;
      }
      top += 16;
    }
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600].find((s) => length / s <= Math.max(3, (width - LEFT) / 80)) || 1200;
    for (let tick = Math.ceil(from / step) * step; tick <= from + length + 1e-6; tick += step) {
      const last = x(tick) > width - 24; // whose middle would be past the edge
      element("text", { x: last ? width - 2 : x(tick), y: height - 6, "text-anchor": last ? "end" : "middle" }, drawn, clock(tick));
    }
    cursor = element("line", { y1: 0, y2: height - 20, stroke: "#111", "stroke-width": 1.5, id: "cursor" }, drawn);
    timeline.replaceChildren(drawn);
    move();
  }

  const plane = document.getElementById("plane");
  const trails = [];
  function drawPlane() {
    plane.replaceChildren();
    element("circle", { r: 1, fill: "#f4f6f8", stroke: "#aab4be", "stroke-width": 0.008 }, plane);
    element("path", { d: "M-1 0H1M0 -1V1", stroke: "#aab4be", "stroke-width": 0.008 }, plane);
    for (const [at, up, text, anchor] of [[1.28, 0.13, "positive", "end"], [-1.28, 0.13, "negative", "start"], [0, -1.1, "aroused", "middle"], [0, 1.2, "calm", "middle"]]) {
      element("text", { x: at, y: up, "text-anchor": anchor, style: "font-size:.11px" }, plane, text);
    }
    trails.length = 0;
    for (const [person, i] of strips()) {
      const color = COLORS[i % COLORS.length];
      const whole = person.valence.map((v, k) => (v === null ? "" : `${k && person.valence[k - 1] !== null ? "L" : "M"}${v} ${-person.arousal[k]}`)).join("");
      element("path", { d: whole, fill: "none", stroke: color, "stroke-width": 0.008, opacity: 0.45 }, plane);
      const recent = element("path", { fill: "none", stroke: color, "stroke-width": 0.022, "stroke-dasharray": DASHES[i % DASHES.length].split(" ").filter(Boolean).map((d) => d * 0.012).join(" ") }, plane);
      const dot = element("circle", { r: 0.05, fill: color, stroke: "#fff", "stroke-width": 0.015 }, plane);
      const gold = person.gold ? element("circle", { r: 0.05, fill: "none", stroke: "#111", "stroke-width": 0.02, "stroke-dasharray": ".04 .03" }, plane) : null;
      const label = element("text", { style: "font-size:.1px;font-weight:600", fill: color }, plane, data.people.length > 1 ? person.name : "");
      trails.push({ person, recent, dot, gold, label });
    }
  }

  function move() {
    cursor.setAttribute("x1", x(now));
    cursor.setAttribute("x2", x(now));
    for (const { person, recent, dot, gold, label } of trails) {
      const k = indexAt(person, now), first = indexAt(person, now - 10);
      let line = "";
      for (let i = first; i <= k; i++) if (person.valence[i] !== null) line += (line ? "L" : "M") + person.valence[i] + " " + -person.arousal[i];
      recent.setAttribute("d", line);
      const there = person.valence[k] !== null;
      dot.setAttribute("visibility", there ? "visible" : "hidden");
      label.setAttribute("visibility", there ? "visible" : "hidden");
      if (there) {
        dot.setAttribute("cx", person.valence[k]);
        dot.setAttribute("cy", -person.arousal[k]);
        label.setAttribute("x", person.valence[k] + 0.08);
        label.setAttribute("y", -person.arousal[k] + 0.03);
      }
      if (gold) {
        const known = person.gold.valence[k] !== null;
        gold.setAttribute("visibility", known && layers.has("gold") ? "visible" : "hidden");
        if (known) { gold.setAttribute("cx", person.gold.valence[k]); gold.setAttribute("cy", -person.gold.arousal[k]); }
      }
    }
    const said = strips().map(([person]) => {
      const k = indexAt(person, now);
      const missing = person.missing.some(([a, b]) => a <= now && now < b) ? ", no evidence here" : "";
      const known = person.gold && person.gold.valence[k] !== null ? ` (annotated ${signed(person.gold.valence[k])}, ${signed(person.gold.arousal[k])})` : "";
      const unseen = of(person.seen).flatMap(([m, seen]) => seen.gaps.filter(([a, b]) => a <= now && now < b).map(([, , why]) => `, ${WORDS[m]}: ${why}`)).join("");
      return `${data.people.length > 1 ? person.name + ": " : ""}valence ${signed(person.valence[k])}, arousal ${signed(person.arousal[k])}${known}${missing}${unseen}`;
    }).join("; ");
    document.getElementById("readout").textContent = `${clock(now)} · ${said}`;
    timeline.setAttribute("aria-valuenow", now.toFixed(2));
    timeline.setAttribute("aria-valuetext", `${clock(now)}, ${said}`);
  }

  function show(time) {
    now = clamp(time);
    if (length < END && (now < from || now > from + length)) {
      from = Math.min(Math.max(0, now - length / 4), END - length);
      draw();
    } else move();
  }
  function go(time) {
    show(time);
    if (film) film.currentTime = now;
  }
  function follow() {
    show(film.currentTime);
    if (!film.paused && !film.ended) requestAnimationFrame(follow);
  }
  if (film) {
    film.addEventListener("play", follow);
    film.addEventListener("seeked", () => show(film.currentTime));
    film.addEventListener("timeupdate", () => show(film.currentTime));
  }
  let dragging = false;
  timeline.addEventListener("pointerdown", (event) => { if (event.button) return; dragging = true; timeline.setPointerCapture(event.pointerId); go(timeAt(event.clientX)); });
  timeline.addEventListener("pointermove", (event) => { if (dragging) go(timeAt(event.clientX)); });
  for (const end of ["pointerup", "pointercancel"]) timeline.addEventListener(end, () => { dragging = false; });
  const frame = data.people[0].frame_s;
  const keys = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
  document.addEventListener("keydown", (event) => {
    const on = event.target.tagName;
    if (event.altKey || event.ctrlKey || event.metaKey || on === "VIDEO") return;
    if (event.key === " " && ["INPUT", "BUTTON", "A"].includes(on)) return;
    if (event.key === " ") { if (film) { if (film.paused) film.play(); else film.pause(); } }
    else if (event.key in keys) go(now + keys[event.key] * (event.shiftKey && event.key.startsWith("Arrow") ? frame : 1) + 1e-4);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(END);
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-time]")) button.addEventListener("click", () => { go(Number(button.dataset.time) + 1e-3); window.scrollTo({ top: 0, behavior: "smooth" }); });

  const box = (parent, text, checked, change, swatch) => {
    const label = document.createElement("label"), input = document.createElement("input");
    input.type = "checkbox";
    input.checked = checked;
    input.addEventListener("change", () => { change(input.checked); drawPlane(); draw(); });
    label.append(input, " ");
    if (swatch) {
      const mark = element("svg", { width: 30, height: 10, class: "swatch", style: "display:inline-block", "aria-hidden": "true" });
      element("line", { x1: 0, x2: 30, y1: 5, y2: 5, stroke: swatch[0], "stroke-width": 2.5, "stroke-dasharray": swatch[1] }, mark);
      label.append(mark, " ");
    }
    label.append(text);
    parent.append(label);
  };
  const toggle = (set, key) => (on) => { if (on) set.add(key); else set.delete(key); };
  const people = document.getElementById("people"), more = document.getElementById("layers"), zoom = document.getElementById("zoom");
  data.people.forEach((person, i) => box(people, person.name, true, toggle(shown, i), [COLORS[i % COLORS.length], DASHES[i % DASHES.length]]));
  if (data.people.some((p) => p.gold)) box(more, "annotation", true, toggle(layers, "gold"), ["#111", "2 2"]);
  if (data.people.some((p) => p.spread.valence.some((s) => s !== null))) box(more, "range of overlapping windows", true, toggle(layers, "spread"));
  for (const system of Object.keys(WORDS)) {
    if (data.people.some((p) => system in p.systems)) box(more, WORDS[system], false, toggle(layers, system), [SYSTEM[system], DASH_OF[system]]);
  }
  for (const [text, seconds] of [["all", END], ["1 min", 60], ["10 s", 10]]) {
    if (seconds > END) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-pressed", String(seconds === END));
    button.addEventListener("click", () => {
      for (const other of zoom.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      length = seconds;
      from = Math.min(Math.max(0, now - length / 2), END - length);
      draw();
    });
    zoom.append(button);
  }
  zoom.hidden = zoom.querySelectorAll("button").length < 2;
  drawPlane();
  draw();
  new ResizeObserver(() => { if (Math.max(NARROWEST, timeline.clientWidth) !== width) draw(); }).observe(timeline);
})();
