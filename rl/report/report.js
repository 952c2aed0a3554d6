// The page without this script is complete; it adds the switch between dark and light, and filters the samples.
"use strict";
(function () {
  var root = document.documentElement, theme = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  theme.hidden = false;
  theme.addEventListener("click", function () {
    var now = root.getAttribute("data-theme") || (dark.matches ? "dark" : "light");
    root.setAttribute("data-theme", now === "dark" ? "light" : "dark");
  });

  var list = Array.prototype.slice.call(document.querySelectorAll(".sample"));
  var filters = document.getElementById("filters"), more = document.getElementById("more");
  if (!filters || !list.length) return;
  var count = document.getElementById("count"), page = 12, shown = page;
  function wanted(sample) {
    var ok = true;
    filters.querySelectorAll("select").forEach(function (select) {
      if (select.value && sample.getAttribute("data-" + select.name) !== select.value) ok = false;
    });
    var text = filters.querySelector("input").value.toLowerCase();
    return ok && (!text || sample.textContent.toLowerCase().indexOf(text) >= 0);
  }
  function show() {
    var matching = 0;
    list.forEach(function (sample) {
      var match = wanted(sample);
      if (match) matching++;
      sample.hidden = !match || matching > shown;
    });
    count.textContent = Math.min(matching, shown) + " of " + matching;
    more.hidden = matching <= shown;
  }
  filters.hidden = false;
  filters.addEventListener("input", function () { shown = page; show(); });
  more.addEventListener("click", function () { shown += 2 * page; show(); });
  show();
})();
