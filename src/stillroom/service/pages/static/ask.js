/* Asks again before what cannot be undone. Without this file it is done at once. */
(function () {
  "use strict";
  document.addEventListener("submit", function (event) {
    var words = event.target.getAttribute("data-ask");
    if (words && !window.confirm(words)) { event.preventDefault(); }
  });
})();
