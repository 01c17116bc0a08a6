/* A digit drawn with a pointer, made as small as the student's pictures are; and arrow keys between the squares. */
(function () {
  "use strict";
  var box = document.getElementById("drawing"), pad = document.getElementById("pad"), form = document.getElementById("ask");
  var squares = Array.prototype.slice.call(document.querySelectorAll("#squares input")), across = 8;
  if (!box || !pad || !pad.getContext) { return; }
  var pen = pad.getContext("2d", { willReadFrequently: true }), field = document.getElementById("pixels");
  var side = Number(box.getAttribute("data-side")), drawing = false, inked = false;
  box.hidden = false;
  document.getElementById("by-keyboard").open = squares.some(function (one) { return one.checked; });

  function wipe() { pen.fillStyle = "#000"; pen.fillRect(0, 0, pad.width, pad.height); inked = false; field.value = ""; }
  function place(event) {
    var at = pad.getBoundingClientRect();
    return [(event.clientX - at.left) * pad.width / at.width, (event.clientY - at.top) * pad.height / at.height];
  }
  function stroke(event, fresh) {
    var at = place(event);
    if (fresh) { pen.beginPath(); pen.moveTo(at[0], at[1]); }
    pen.strokeStyle = "#fff"; pen.lineWidth = pad.width / 9; pen.lineCap = "round"; pen.lineJoin = "round";
    pen.lineTo(at[0] + 0.1, at[1]); pen.stroke(); inked = true;
  }
  pad.addEventListener("pointerdown", function (event) { drawing = true; pad.setPointerCapture(event.pointerId); stroke(event, true); });
  pad.addEventListener("pointermove", function (event) { if (drawing) { stroke(event, false); } });
  ["pointerup", "pointercancel"].forEach(function (name) { pad.addEventListener(name, function () { drawing = false; }); });
  document.getElementById("wipe").addEventListener("click", wipe);

  /* The ink's box is brought to the middle and made as large as digits stand in the data: nearly the whole height. */
  function ink() {
    var data = pen.getImageData(0, 0, pad.width, pad.height).data, box = [pad.width, pad.height, -1, -1], x, y;
    for (y = 0; y < pad.height; y += 1) {
      for (x = 0; x < pad.width; x += 1) {
        if (data[4 * (y * pad.width + x)] > 40) {
          box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)];
        }
      }
    }
    return box;
  }
  function small() {
    var at = ink(), wide = at[2] - at[0] + 1, high = at[3] - at[1] + 1;
    var fill = side <= 10 ? 1 : 20 / 28, grow = Math.min(fill * pad.height / high, fill * pad.width / wide);
    var sheet = document.createElement("canvas"), tiny = [], row, column, sum, x, y, data, step = pad.width / side;
    sheet.width = pad.width; sheet.height = pad.height;
    var other = sheet.getContext("2d", { willReadFrequently: true });
    other.fillStyle = "#000"; other.fillRect(0, 0, sheet.width, sheet.height);
    other.drawImage(pad, at[0], at[1], wide, high, (sheet.width - wide * grow) / 2, (sheet.height - high * grow) / 2, wide * grow, high * grow);
    data = other.getImageData(0, 0, sheet.width, sheet.height).data;
    for (row = 0; row < side; row += 1) {
      for (column = 0; column < side; column += 1) {
        sum = 0;
        for (y = Math.floor(row * step); y < Math.floor((row + 1) * step); y += 1) {
          for (x = Math.floor(column * step); x < Math.floor((column + 1) * step); x += 1) { sum += data[4 * (y * sheet.width + x)]; }
        }
        tiny.push(Math.min(255, Math.round(sum / (Math.floor(step) * Math.floor(step)))));
      }
    }
    return tiny;
  }
  form.addEventListener("submit", function () { field.value = inked ? small().join(",") : ""; });

  squares.forEach(function (one, index) {
    one.tabIndex = index === 0 ? 0 : -1;
    one.addEventListener("keydown", function (event) {
      var step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key], next = squares[index + (step || 0)];
      if (!step || !next || (Math.abs(step) === 1 && Math.floor(index / across) !== Math.floor((index + step) / across))) { return; }
      event.preventDefault();
      one.tabIndex = -1; next.tabIndex = 0; next.focus();
    });
  });
  wipe();
  var drawn = box.getAttribute("data-drawn").split(","), square = pad.width / side;
  if (drawn.length === side * side) {
    drawn.forEach(function (value, index) {
      pen.fillStyle = "rgb(" + value + "," + value + "," + value + ")";
      pen.fillRect((index % side) * square, Math.floor(index / side) * square, square + 0.5, square + 0.5);
    });
    inked = true;
  }
})();
