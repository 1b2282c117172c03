"use strict";
// Words become text of elements, never markup. Each map of the page is a .word-map with its data as JSON.
const svgElement = (name, parent) => parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));

function showMap(root) {
  const { title, how, words, places, neighbours } = JSON.parse(root.querySelector("script").textContent);
  const map = root.querySelector("svg"), answer = root.querySelector(".answer");
  map.setAttribute("aria-label", title + ", " + how);
  const range = axis => places.reduce(([a, b], p) => [Math.min(a, p[axis]), Math.max(b, p[axis])], [Infinity, -Infinity]);
  const [[left, right], [bottom, top_]] = [range(0), range(1)];
  const spots = places.map(([x, y]) => [(x - left) / (right - left || 1), 1 - (y - bottom) / (top_ - bottom || 1)]);
  let zoom = 1, shift = [0, 0], found = new Set();

  // The most frequent words come first and are drawn last, above the others.
  const points = words.map((word, number) => ({ number, spot: spots[number], group: null }));
  for (const point of [...points].reverse()) {
    point.group = svgElement("g", map);
    point.dot = svgElement("circle", point.group);
    point.dot.setAttribute("r", 4);
    svgElement("title", point.dot).textContent = words[point.number];
    point.label = svgElement("text", point.group);
    point.label.textContent = words[point.number];
    point.label.setAttribute("font-size", 12);
    point.dot.addEventListener("click", () => showNeighbours(point.number));
  }

  function draw() {
    const { width, height } = map.getBoundingClientRect(), taken = new Set();
    const order = [...points].sort((a, b) => found.has(b.number) - found.has(a.number) || a.number - b.number);
    for (const point of order) {
      const x = (point.spot[0] * .86 + .05) * width * zoom + shift[0], y = (point.spot[1] * .9 + .05) * height * zoom + shift[1];
      point.dot.setAttribute("cx", x);
      point.dot.setAttribute("cy", y);
      point.label.setAttribute("x", x + 6);
      point.label.setAttribute("y", y + 4);
      point.group.setAttribute("class", found.has(point.number) ? "found" : "");
      // A label has room if no other one is in the cells that it covers.
      const size = [...words[point.number]].reduce((sum, letter) => sum + (letter > "\u2e80" ? 12 : 7), 8);
      const cells = [];
      for (let at = x; at <= x + size; at += 6)
        for (const line of [y - 6, y + 6]) cells.push(Math.floor(at / 6) + " " + Math.floor(line / 12));
      const isFree = found.has(point.number) || !cells.some(cell => taken.has(cell));
      if (isFree) cells.forEach(cell => taken.add(cell));
      point.label.setAttribute("visibility", isFree ? "visible" : "hidden");
    }
  }

  function showNeighbours(number) {
    const walks = answer.contains(document.activeElement);  // from button to button, of which the old ones go
    found = new Set([number, ...neighbours[number]]);
    answer.textContent = words[number] + ", closest here by cosine: ";
    for (const other of neighbours[number]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words[other];
      button.addEventListener("click", () => showNeighbours(other));
      answer.append(button, " ");
    }
    if (walks) answer.querySelector("button").focus();
    draw();
  }

  function zoomAt(factor, [x, y]) {
    shift = [x - (x - shift[0]) * factor, y - (y - shift[1]) * factor];
    zoom *= factor;
    draw();
  }

  root.querySelector("input").addEventListener("input", event => {
    const wanted = event.target.value.trim().toLocaleLowerCase();
    const fitting = points.filter(point => wanted && words[point.number].toLocaleLowerCase().includes(wanted));
    const exact = fitting.find(point => words[point.number].toLocaleLowerCase() === wanted);
    if (exact) return showNeighbours(exact.number);
    found = new Set(fitting.map(point => point.number));
    answer.textContent = wanted ? fitting.length + " words have “" + wanted + "” in them" : "";
    draw();
  });

  for (const button of root.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom), { width, height } = map.getBoundingClientRect();
      if (factor) return zoomAt(factor, [width / 2, height / 2]);
      [zoom, shift] = [1, [0, 0]];
      draw();
    });

  // In a page that scrolls the wheel scrolls; with Ctrl, or if all fits into the window, it zooms.
  map.addEventListener("wheel", event => {
    if (!event.ctrlKey && document.documentElement.scrollHeight > window.innerHeight) return;
    event.preventDefault();
    const box = map.getBoundingClientRect();
    zoomAt(Math.exp(-event.deltaY * .0015), [event.clientX - box.left, event.clientY - box.top]);
  }, { passive: false });

  let held = null;
  map.addEventListener("pointerdown", event => { held = [event.clientX, event.clientY]; });
  window.addEventListener("pointermove", event => {
    if (!held) return;
    shift = [shift[0] + event.clientX - held[0], shift[1] + event.clientY - held[1]];
    held = [event.clientX, event.clientY];
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { held = null; });
  window.addEventListener("resize", draw);
  draw();
}

document.querySelectorAll(".word-map").forEach(showMap);
