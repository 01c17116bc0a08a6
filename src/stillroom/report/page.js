(function () {
  "use strict";
  var root = document.documentElement, button = document.getElementById("theme"), order = ["auto", "light", "dark"];
  var stored = null;
  try { stored = localStorage.getItem("stillroom-theme"); } catch (refused) { stored = null; }
  function show(theme) {
    if (theme === "auto") { root.removeAttribute("data-theme"); } else { root.setAttribute("data-theme", theme); }
    button.textContent = "Theme: " + theme;
    button.setAttribute("data-now", theme);
  }
  show(order.indexOf(stored) < 0 ? "auto" : stored);
  button.hidden = false;
  button.addEventListener("click", function () {
    var next = order[(order.indexOf(button.getAttribute("data-now")) + 1) % order.length];
    show(next);
    try { localStorage.setItem("stillroom-theme", next); } catch (refused) { return; }
  });
})();
