// A plane to draw points on, by mouse, finger or keys; `value` is [[x, y, pen], ...].
const SIDE = 300, LIMIT = 2.5, APART = 0.09, MOST = 240;
const COLOURS = { A: "#4269d0", B: "#e4572e" };

function render({ model, el }) {
  el.innerHTML = `<div style="display:flex;gap:10px;align-items:flex-start">
    <canvas width="${SIDE}" height="${SIDE}" tabindex="0" role="application"
      style="border:1px solid #8a93a6;background:white;cursor:crosshair;touch-action:none"
      aria-label="Plane to draw on. Arrow keys move the cross, space puts a point,
 backspace takes the last one away."></canvas>
    <div style="display:flex;flex-direction:column;gap:6px">
      <label><input type="radio" value="A" checked> pen A ●</label>
      <label><input type="radio" value="B"> pen B ✚</label>
      <button data-act="back" title="take the last stroke away">Undo</button>
      <button data-act="clear" title="take all points away">Clear</button>
      <span aria-live="polite"></span>
    </div></div>`;
  const canvas = el.querySelector("canvas"), draw = canvas.getContext("2d");
  const note = el.querySelector("[aria-live]"), radios = [...el.querySelectorAll("input")];
  const name = `pen-${Math.random()}`;  // radios of one widget belong together
  let points = model.get("value"), strokes = [], cross = [0, 0], pen = "A", down = false;
  const toPixel = v => (v / LIMIT + 1) * SIDE / 2;

  function show() {
    draw.clearRect(0, 0, SIDE, SIDE);
    draw.strokeStyle = "#e3e6eb";
    draw.strokeRect(SIDE / 2, 0, 0, SIDE), draw.strokeRect(0, SIDE / 2, SIDE, 0);
    for (const [x, y, p] of points) {
      const [px, py] = [toPixel(x), SIDE - toPixel(y)];
      draw.fillStyle = draw.strokeStyle = COLOURS[p];
      draw.beginPath();
      if (p === "A") { draw.arc(px, py, 3.5, 0, 7); draw.fill(); continue; }
      draw.lineWidth = 2.5;
      draw.moveTo(px - 4, py), draw.lineTo(px + 4, py);
      draw.moveTo(px, py - 4), draw.lineTo(px, py + 4);
      draw.stroke(), draw.lineWidth = 1;
    }
    if (document.activeElement === canvas) {
      draw.strokeStyle = "#1d2129";
      draw.strokeRect(toPixel(cross[0]) - 6, SIDE - toPixel(cross[1]) - 6, 12, 12);
    }
    note.textContent = `${points.length} of at most ${MOST} points`;
  }
  function put([x, y]) {
    const near = points.some(p => p[2] === pen && Math.hypot(p[0] - x, p[1] - y) < APART);
    if (near || points.length >= MOST || Math.max(Math.abs(x), Math.abs(y)) > LIMIT) return;
    points = [...points, [x, y, pen]];
    show();
  }
  const place = event => {
    const box = canvas.getBoundingClientRect(), round = v => Math.round(100 * v) / 100;
    return [round(((event.clientX - box.left) / box.width * 2 - 1) * LIMIT),
            round((1 - (event.clientY - box.top) / box.height * 2) * LIMIT)];
  };
  const begin = () => strokes.push(points.length);
  const send = () => { model.set("value", points); model.save_changes(); show(); };

  canvas.onpointerdown = event => {
    canvas.setPointerCapture(event.pointerId), canvas.focus();
    down = true, begin(), put(place(event));
  };
  canvas.onpointermove = event => { if (down) put(place(event)); };
  canvas.onpointerup = canvas.onpointercancel = () => { if (down) { down = false; send(); } };
  canvas.onfocus = canvas.onblur = show;
  canvas.onkeydown = event => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key in step)
      cross = cross.map((v, k) => Math.min(LIMIT, Math.max(-LIMIT, v + 0.1 * step[event.key][k])));
    else if (event.key === " ") { begin(), put(cross), send(); }
    else if (event.key === "Backspace") { points = points.slice(0, -1), send(); }
    else return;
    event.preventDefault(), event.stopPropagation(), show();
  };
  for (const radio of radios) {
    radio.name = name;
    radio.onchange = () => { pen = radio.value; };
  }
  el.querySelector("[data-act=clear]").onclick = () => { begin(), points = [], send(); };
  el.querySelector("[data-act=back]").onclick = () => {
    points = points.slice(0, strokes.pop() ?? 0), send();
  };
  const changed = () => { points = model.get("value"), show(); };
  model.on("change:value", changed);
  show();
  return () => model.off("change:value", changed);
}

export default { render };
