/* Keeps a job's page up to date: the server's event stream says when something happened, and htmx brings the changed part.
   Without this file the page loads itself anew every few seconds. */
(function () {
  "use strict";
  var live = document.getElementById("live"), told = document.getElementById("told");
  if (!live || !window.htmx) { return; }
  var LEAST_MS = 1500, MOST_MS = 4000, SPOKEN_MS = 10000;
  var busy = false, again = false, last = Date.now(), spoken = 0, said = "", stream = null, timer = null;

  function state() { return live.querySelector("[data-over]"); }
  function over() { var at = state(); return !!at && at.getAttribute("data-over") === "yes"; }

  function speak() {
    var at = state(), words = at ? at.getAttribute("data-told") : "";
    if (words === said || (!over() && Date.now() - spoken < SPOKEN_MS)) { return; }
    said = words; spoken = Date.now(); told.textContent = words;
  }

  function bring() {
    if (busy) { again = true; return; }
    if (document.hidden) { return; }
    busy = true; last = Date.now();
    var open = Array.prototype.map.call(live.querySelectorAll("details[open]"), function (part) { return part.id; });
    window.htmx.ajax("GET", live.getAttribute("data-from"), { target: "#live", swap: "innerHTML" }).then(function () {
      open.forEach(function (id) { var part = document.getElementById(id); if (part) { part.open = true; } });
      speak();
      if (over()) { end(); }
    }).finally(function () {
      busy = false;
      if (again && !over()) { again = false; soon(); }
    });
  }

  function soon() {
    if (timer) { return; }
    timer = window.setTimeout(function () { timer = null; bring(); }, Math.max(0, LEAST_MS - (Date.now() - last)));
  }

  function end() {
    window.clearInterval(beat);
    if (stream) { stream.close(); stream = null; }
  }

  var beat = window.setInterval(function () { if (Date.now() - last >= MOST_MS) { bring(); } }, 1000);
  document.addEventListener("visibilitychange", function () { if (!document.hidden && !over()) { soon(); } });
  if (window.EventSource) {
    stream = new EventSource(live.getAttribute("data-stream"));
    ["message", "end"].forEach(function (name) { stream.addEventListener(name, soon); });
    stream.onerror = function () { if (stream && stream.readyState === 2) { stream = null; } };
  }
})();
