// The page without this script has all its words and tables; it adds the switch between dark and light, the charts, and the browser
// of samples. Whatever a model wrote is only ever put into a page as the text of a node.
"use strict";
(function () {
  const root = document.documentElement, byId = id => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent), words = data.words, charts = data.charts;
  const say = key => words[key] === undefined ? key : words[key];
  const colour = name => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const ink = name => colour(/^[0-9]$/.test(name) ? "c" + name : name || "good");
  const faded = (hex, alpha) => hex + Math.round(255 * alpha).toString(16).padStart(2, "0");

  // An element with a class and a text or children.
  function make(tag, name, content) {
    const e = document.createElement(tag);
    if (name) e.className = name;
    if (typeof content === "string") e.textContent = content;
    else if (content) content.forEach(c => c && e.appendChild(c));
    return e;
  }

  // ---- numbers
  function number(x) {
    if (x === null || x === undefined || Number.isNaN(x)) return "\u2014";
    const a = Math.abs(x);
    if (a >= 1000) return x.toLocaleString("en", {maximumFractionDigits: 0});
    if (a !== 0 && a < 0.001) return x.toExponential(2);
    return String(Number(x.toPrecision(a >= 100 ? 4 : 3)));
  }
  // A half goes to the even digit, as in the page's own text: 49.25 is 49.2 in both.
  const percent = x => (100 * x - (Math.abs(100 * x) % 1 === 0.25 ? Math.sign(x) * 0.01 : 0)).toFixed(1) + "\u00a0%";
  function scaled(x) {
    const units = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let u = 0;
    while (Math.abs(x) >= 999.5 && u < units.length - 1) { x /= 1000; u++; }
    return u ? Number(x.toPrecision(3)) + "\u00a0" + units[u] : number(x);
  }

  // ---- drawing: intervals, the beginnings of stages, names of points
  const extras = {
    id: "extras",
    beforeDatasetsDraw(chart, args, options) {
      const g = chart.ctx, area = chart.chartArea, marks = options.marks || [], scale = chart.scales.x;
      // The stage that the range begins in is named too, where its name doesn't run into the next one's.
      const at = m => scale.getPixelForValue(Math.max(m.x, scale.min));
      const inside = marks.filter(m => m.x <= scale.max), shown = inside.filter((m, i) => i + 1 === inside.length || at(inside[i + 1]) - at(m) > 70);
      if (inside.length < 2) return;
      g.save();
      g.font = "11px " + Chart.defaults.font.family;
      shown.forEach(m => {
        const x = at(m);
        if (m.x > scale.min) {
          g.strokeStyle = colour("faint");
          g.setLineDash([2, 4]);
          g.beginPath();
          g.moveTo(x, area.top - 8);
          g.lineTo(x, area.bottom);
          g.stroke();
        }
        const end = x > area.right - 60;
        g.fillStyle = colour("soft");
        g.textAlign = end ? "right" : "left";
        g.fillText(m.name.slice(0, 24), x + (end ? -4 : 4), area.top - 3);
      });
      g.restore();
    },
    afterDatasetsDraw(chart, args, options) {
      const g = chart.ctx;
      g.save();
      chart.data.datasets.forEach((set, i) => {
        const meta = chart.getDatasetMeta(i);
        if (!set.intervals || meta.hidden) return;
        set.intervals.forEach((interval, k) => {
          if (!interval || !meta.data[k]) return;
          const x = meta.data[k].x;
          g.strokeStyle = Array.isArray(set.pointBackgroundColor) ? set.pointBackgroundColor[k] : set.borderColor;
          g.lineWidth = 1.5;
          g.beginPath();
          g.moveTo(x, chart.scales.y.getPixelForValue(interval[0]));
          g.lineTo(x, chart.scales.y.getPixelForValue(interval[1]));
          g.stroke();
        });
      });
      if (options.names) drawNames(chart, g, options.names);
      g.restore();
    }
  };

  // Each name takes the first free row near its point, so that none covers another.
  function drawNames(chart, g, names) {
    const taken = [], area = chart.chartArea, points = chart.getDatasetMeta(0).data;
    g.font = "13px " + Chart.defaults.font.family;
    points.forEach((p, i) => {
      let name = names[i]; // one that is wider than half of the picture loses its middle
      while (name.length > 12 && g.measureText(name).width > Math.max(120, (area.right - area.left) / 2))
        name = name.slice(0, name.length / 2 - 1).replace("\u2026", "") + "\u2026" + name.slice(name.length / 2 + 1).replace("\u2026", "");
      const width = g.measureText(name).width, end = p.x + 10 + width > area.right;
      const left = end ? Math.max(area.left + 3, p.x - 9 - width) : p.x + 9;
      let y = p.y - 8;
      for (let k = 0; k < 12; k++) {
        const free = y > area.top && y < area.bottom &&
          taken.every(t => left > t.right + 4 || left + width < t.left - 4 || Math.abs(t.y - y) > 14);
        if (free) break;
        y = k % 2 ? p.y - 8 - 15 * ((k + 1) / 2) : p.y + 17 + 15 * (k / 2);
      }
      taken.push({left: left, right: left + width, y: y});
      g.lineWidth = 3;
      g.strokeStyle = colour("card");
      g.strokeText(name, left, y);
      g.fillStyle = colour("ink");
      g.fillText(name, left, y);
    });
  }

  // 1, 2 or 5 times a power of ten, at most x: where an axis may begin.
  function roundBelow(x) {
    const power = Math.pow(10, Math.floor(Math.log10(x))), digit = x / power;
    return power * (digit >= 5 ? 5 : digit >= 2 ? 2 : 1);
  }
  function axis(title, isPercent, extra) {
    return Object.assign({
      title: {display: !!title, text: title, color: colour("soft"), align: "end"},
      grid: {color: colour("grid"), borderColor: colour("line"), tickColor: "transparent"},
      ticks: {color: colour("soft"), maxRotation: 0, callback: v => isPercent ? Math.round(1000 * v) / 10 + "%" : scaled(v)}
    }, extra);
  }
  function options(spec, x, y, more) {
    return {
      animation: false, responsive: true, maintainAspectRatio: false, events: ["mousemove", "mouseout", "click", "touchstart"],
      interaction: {mode: "nearest", intersect: false, axis: "x"}, layout: {padding: {top: 14, right: 6}}, scales: {x: x, y: y},
      plugins: Object.assign({legend: {display: false}, extras: {marks: spec.marks}}, more)
    };
  }

  function movingMean(points) {
    const half = Math.floor(points.length / 24);
    return points.map((p, i) => {
      const reach = Math.min(half, i, points.length - 1 - i);
      let sum = 0;
      for (let k = i - reach; k <= i + reach; k++) sum += points[k].y;
      return {x: p.x, y: sum / (2 * reach + 1)};
    });
  }

  // The lines of a chart as data sets; a noisy one is drawn faintly with its moving mean.
  function lineSets(spec) {
    const sets = [];
    spec.lines.forEach((line, index) => {
      const points = line.points.filter(p => p[1] !== null).map(p => ({x: p[0], y: p[1]})), few = points.length < 40, c = ink(line.ink);
      const intervals = spec.lines.length > 3 ? null : line.points.map(p => p.length > 2 && p[2] !== null ? [p[2], p[3]] : null);
      if (!few) sets.push({line: index, data: points, borderColor: faded(c, 0.3), borderWidth: 1, pointRadius: 0, label: "", tooltip: false});
      sets.push({line: index, label: line.name, data: few ? points : movingMean(points), borderColor: c, backgroundColor: c, borderWidth: 2,
                 pointRadius: few ? 3 : 0, pointHitRadius: 8, intervals: intervals, tension: 0});
    });
    return sets;
  }

  const highest = spec => Math.max(0, ...spec.lines.map(l => Math.max(...l.points.map(p => p.length > 3 ? p[3] : p[1]))));
  function lineChart(spec) {
    return {
      type: "line", data: {datasets: lineSets(spec)}, plugins: [extras],
      options: options(spec, axis(spec.x, false, {type: "linear", ticks: {color: colour("soft"), maxRotation: 0, precision: 0, callback: scaled}}), axis("", spec.percent, spec.percent ? {min: 0, max: highest(spec) > 0.7 ? 1 : undefined, suggestedMax: 0.1} : {grace: "5%"}), {
        tooltip: {
          filter: item => item.dataset.tooltip !== false,
          callbacks: {title: items => items.length ? spec.x + " " + number(items[0].parsed.x) : "",
                      label: item => item.dataset.label + ": " + (spec.percent ? percent(item.parsed.y) : number(item.parsed.y))}
        }
      })
    };
  }

  // ---- the frontier
  const chosen = {cost: 0, scope: 0};
  function frontierView() {
    const views = charts.frontier.views, costs = [...new Set(views.map(v => v.cost))], scopes = [...new Set(views.map(v => v.scope))];
    return views.find(v => v.cost === costs[chosen.cost] && v.scope === scopes[chosen.scope]) || views[0];
  }
  function frontierChart(spec) {
    const view = frontierView(), points = view.points, xs = points.map(p => p.x);
    const wide = Math.max(...xs) > 8 * Math.min(...xs), colours = points.map(p => p.front ? ink(p.tone) : faded(ink(p.tone), 0.5));
    const front = points.filter(p => p.front).sort((a, b) => a.x - b.x);
    const ticks = {color: colour("soft"), maxRotation: 0, autoSkip: true,
                   callback: v => !wide || /^[125]/.test(Number(v).toExponential()) ? scaled(v) : null};
    const x = axis(view.cost, false, wide ? {type: "logarithmic", min: roundBelow(Math.min(...xs) / 1.2), max: Math.max(...xs) * 1.6}
                                          : {type: "linear", beginAtZero: true, grace: "12%"});
    x.ticks = ticks;
    return {
      type: "scatter", plugins: [extras],
      data: {datasets: [
        {data: points, pointBackgroundColor: colours, pointBorderColor: colours, pointRadius: 6, pointHoverRadius: 8,
         intervals: points.map(p => p.low === null ? null : [p.low, p.high])},
        {data: front, type: "line", borderColor: colour("soft"), borderDash: [5, 4], borderWidth: 1.5, pointRadius: 0, tooltip: false}]},
      options: options(spec, x, axis("", true, {min: 0, max: 1}), {
        extras: {names: points.map(p => p.name)},
        tooltip: {filter: item => item.datasetIndex === 0,
                  callbacks: {label: item => {
                    const p = points[item.dataIndex];
                    return p.name + ": " + percent(p.y) + " (" + percent(p.low) + say("to") + percent(p.high) + "), " + view.cost + " " + scaled(p.x);
                  }}}
      })
    };
  }
  function frontierTable() {
    const rows = frontierView().points, body = byId("frontier-table").querySelector("tbody"), heads = byId("frontier-table").querySelectorAll("th[scope=col]");
    heads[1].textContent = frontierView().cost;
    body.textContent = "";
    rows.forEach(p => {
      const name = make("th", "", p.name);
      name.scope = "row";
      const cells = [number(p.x), percent(p.y) + " (" + percent(p.low) + say("to") + percent(p.high) + ")", p.front ? say("yes") : ""];
      const row = make("tr", "", [name]);
      cells.forEach((text, i) => {
        const cell = make("td", "", [make("span", "", text)]);
        cell.dataset.label = heads[i + 1].textContent;
        row.appendChild(cell);
      });
      body.appendChild(row);
    });
  }

  // ---- charts on the page: drawn when they come near
  const drawn = new Map();
  function draw(figure) {
    const id = figure.id.slice("chart-".length), spec = charts[id];
    if (drawn.has(id)) drawn.get(id).destroy();
    const chart = new Chart(figure.querySelector("canvas"), id === "frontier" ? frontierChart(spec) : lineChart(spec));
    drawn.set(id, chart);
    if (id !== "frontier") legend(figure, chart, spec);
  }
  function legend(figure, chart, spec) {
    const place = figure.querySelector(".legend");
    if (spec.lines.length < 2) return;
    place.textContent = "";
    spec.lines.forEach((line, index) => {
      const swatch = make("i"), button = make("button", "key", [swatch, document.createTextNode(line.name)]);
      swatch.style.background = ink(line.ink);
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        const show = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(show));
        chart.data.datasets.forEach((set, i) => { if (set.line === index) chart.setDatasetVisibility(i, show); });
        chart.update();
      });
      place.appendChild(button);
    });
  }
  const figures = [...document.querySelectorAll("figure.chart")];
  function drawAll() { figures.forEach(f => { if (!drawn.has(f.id.slice(6))) draw(f); }); }
  function redraw() { figures.forEach(f => { if (drawn.has(f.id.slice(6))) draw(f); }); }
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 12;
  const near = new IntersectionObserver(entries => entries.forEach(e => {
    if (!e.isIntersecting) return;
    near.unobserve(e.target);
    if (!drawn.has(e.target.id.slice(6))) draw(e.target);
  }), {rootMargin: "400px"});
  figures.forEach(f => near.observe(f));
  window.addEventListener("beforeprint", () => {
    drawAll();
    drawn.forEach(c => c.resize());
  });
  window.addEventListener("afterprint", () => drawn.forEach(c => c.resize()));

  const view = byId("frontier-view");
  if (view) {
    const views = charts.frontier.views;
    ["cost", "scope"].forEach(name => {
      const select = view.elements[name];
      [...new Set(views.map(v => v[name]))].forEach((text, i) => select.add(new Option(text, String(i))));
      select.addEventListener("change", () => {
        chosen[name] = Number(select.value);
        draw(byId("chart-frontier"));
        frontierTable();
      });
    });
    view.addEventListener("submit", e => e.preventDefault());
    view.hidden = false;
  }

  // ---- dark and light
  const theme = byId("theme"), dark = window.matchMedia("(prefers-color-scheme: dark)");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const now = root.getAttribute("data-theme") || (dark.matches ? "dark" : "light");
    root.setAttribute("data-theme", now === "dark" ? "light" : "dark");
    redraw();
  });
  dark.addEventListener("change", redraw);

  // ---- samples
  const place = byId("browser");
  if (!place) return;
  const SET = 0, STEP = 1, ARM = 2, KIND = 3, LEVEL = 4, OUTCOME = 5, CUT = 6, TOKENS = 7, GROUP = 8, PREVIEW = 9, ROW = 52;
  let index = null, found = [], active = 0, beside = -1, searching = 0;
  const texts = new Map();
  const name = i => index.names[i];
  function textOf(i) {
    const b = Math.floor(i / index.block);
    if (!texts.has(b)) texts.set(b, JSON.parse(byId("samples-" + b).textContent));
    return texts.get(b)[i % index.block];
  }

  const filters = make("form", "filters"), count = make("output", "note"), list = make("div", "list"), space = make("div", "space"), detail = make("article", "detail");
  function select(key, values) {
    const field = document.createElement("select"), label = make("label", "", [document.createTextNode(say(key) + " "), field]);
    field.name = key;
    field.add(new Option(say("any"), ""));
    values.forEach(v => field.add(new Option(v[1], v[0])));
    filters.appendChild(label);
    return field;
  }
  const part = r => name(r[KIND]) + " " + r[LEVEL];
  const badge = outcome => make("span", "badge " + ({right: "good", better: "good", wrong: "bad", worse: "warm", error: "bad", killed: "bad", budget: "bad"}[outcome] || ""), say(outcome));

  function rowOf(position) {
    const i = found[position], r = index.rows[i], row = make("div", "row", [
      make("span", "line", [badge(name(r[OUTCOME])), make("span", "preview", r[PREVIEW])]),
      make("span", "under", name(r[ARM]) + " \u00b7 " + part(r) + (r[STEP] || name(r[SET]) !== "comparison" ? " \u00b7 " + say("step") + " " + r[STEP] : "") +
        " \u00b7 " + r[TOKENS] + " " + say("tokens") + (r[CUT] ? " \u00b7 " + say("cut off") : ""))]);
    row.id = "sample-" + position;
    row.setAttribute("role", "option");
    row.setAttribute("aria-setsize", String(found.length));
    row.setAttribute("aria-posinset", String(position + 1));
    row.setAttribute("aria-selected", String(position === active));
    row.style.top = position * ROW + "px";
    row.addEventListener("click", () => choose(position));
    return row;
  }
  // Only the rows that can be seen are in the page.
  function showRows() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 6), last = Math.min(found.length, first + Math.ceil(list.clientHeight / ROW) + 12);
    space.style.height = found.length * ROW + "px";
    space.textContent = "";
    for (let k = first; k < last; k++) space.appendChild(rowOf(k));
    if (found.length) list.setAttribute("aria-activedescendant", "sample-" + active);
    else list.removeAttribute("aria-activedescendant");
    count.textContent = say("samples found").replace("{n}", found.length.toLocaleString("en")).replace("{all}", index.rows.length.toLocaleString("en"));
  }
  function choose(position) {
    if (!found.length) return;
    active = Math.max(0, Math.min(found.length - 1, position));
    const top = active * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    beside = -1;
    showRows();
    showDetail();
  }

  // A token's colour tells how likely it was: the paler, the likelier.
  function shade(nats) {
    const limits = [-0.05, -0.2, -0.5, -1, -2, -4];
    let k = 0;
    while (k < limits.length && nats / 1000 < limits[k]) k++;
    return "t" + k;
  }
  function tokens(pieces, logprobs, from, to) {
    const box = make("pre", "completion");
    for (let i = from; i < to; i++) {
      const l = logprobs ? logprobs[i] : null, span = make("span", l === null ? "" : shade(l), pieces[i]);
      if (l !== null) span.title = say("logprob") + " " + (l / 1000).toFixed(3) + ", " + percent(Math.exp(l / 1000));
      box.appendChild(span);
    }
    return box;
  }
  function fact(key, value) { return make("span", "", [document.createTextNode(key + " "), make("b", "", value)]); }
  function column(i, title) {
    const r = index.rows[i], t = textOf(i), out = make("div", "column");
    out.appendChild(make("h4", "", title));
    out.appendChild(make("p", "facts", [badge(name(r[OUTCOME])), name(r[SET]) === "comparison" ? null : fact(say("step"), String(r[STEP])), fact(say("tokens"), t.n[0] + " + " + t.n[1]),
      r[CUT] ? make("span", "badge bad", say("cut off")) : null, t.r === null ? null : fact(say("reward"), number(t.r)),
      t.a === null ? null : fact(say("advantage"), number(t.a))].concat(t.v.map(v => fact(v[0], number(v[1]))))));
    if (t.k > 0) {
      out.appendChild(make("h5", "", say("thinking")));
      const box = tokens(t.x, t.l, 0, t.k);
      box.classList.add("thinking");
      out.appendChild(box);
    }
    out.appendChild(make("h5", "", say("answer")));
    out.appendChild(tokens(t.x, t.l, t.k, t.x.length));
    if (t.w) out.appendChild(make("p", "note", t.w));
    return out;
  }
  const titleOf = r => name(r[ARM]) + (name(r[SET]) === "comparison" ? "" : ", " + say("step") + " " + r[STEP]);

  // The others that answer the same question: held-out answers of other steps, other arms, other samples of a group.
  let groups = null;
  function siblings(i) {
    if (!groups) {
      groups = new Map();
      index.rows.forEach((r, k) => {
        if (!groups.has(r[GROUP])) groups.set(r[GROUP], []);
        groups.get(r[GROUP]).push(k);
      });
    }
    return groups.get(index.rows[i][GROUP]).filter(k => k !== i);
  }
  function showDetail() {
    detail.textContent = "";
    if (!found.length) {
      detail.appendChild(make("p", "note", say("no samples")));
      return;
    }
    const i = found[active], r = index.rows[i], t = textOf(i), others = siblings(i), held = name(r[SET]) === "held out";
    if (beside < 0 && others.length && name(r[SET]) !== "training") beside = held && r[STEP] === Math.min(r[STEP], ...others.map(k => index.rows[k][STEP])) ? others[others.length - 1] : others[0];
    const pair = beside < 0 ? [i] : held ? [i, beside].sort((a, b) => index.rows[a][STEP] - index.rows[b][STEP]) : [i, beside];
    detail.appendChild(make("h3", "", part(r)));
    detail.appendChild(make("p", "question", t.p));
    if (t.t !== null) detail.appendChild(make("p", "facts", [fact(say("expected"), t.t)]));
    if (others.length) {
      const field = document.createElement("select");
      field.add(new Option(say("nothing"), "-2"));
      others.slice(0, 200).forEach(k => field.add(new Option(titleOf(index.rows[k]) + " \u00b7 " + say(name(index.rows[k][OUTCOME])), String(k))));
      field.value = String(beside < 0 ? -2 : beside);
      field.addEventListener("change", () => { beside = Number(field.value); showDetail(); });
      detail.appendChild(make("p", "", [make("label", "", [document.createTextNode(say("beside it") + " "), field])]));
    }
    const titles = pair.map((k, at) => (held && pair.length > 1 ? say(at ? "after" : "before") + ": " : "") + titleOf(index.rows[k]));
    detail.appendChild(make("div", "columns", pair.map((k, at) => column(k, titles[at]))));
  }

  function matches(r, wanted) {
    return (!wanted.set || String(r[SET]) === wanted.set) && (!wanted.outcome || (wanted.outcome === "cut" ? r[CUT] === 1 : String(r[OUTCOME]) === wanted.outcome)) &&
      (!wanted.arm || String(r[ARM]) === wanted.arm) && (!wanted.part || part(r) === wanted.part);
  }
  // A search through the texts goes on in slices, so that the page stays awake.
  function search(wanted) {
    const turn = ++searching, text = wanted.text.toLowerCase();
    let i = 0;
    found = [];
    function slice() {
      if (turn !== searching) return;
      const until = performance.now() + 12;
      for (; i < index.rows.length && performance.now() < until; i++) {
        if (!matches(index.rows[i], wanted)) continue;
        const t = text ? textOf(i) : null;
        if (!t || (t.p + "\n" + t.t + "\n" + t.x.join("")).toLowerCase().includes(text)) found.push(i);
      }
      if (i < index.rows.length) setTimeout(slice, 0);
      else choose(0);
      showRows();
      if (!found.length) showDetail();
    }
    active = 0;
    list.scrollTop = 0;
    slice();
  }

  function openBrowser() {
    index = JSON.parse(byId("samples-index").textContent);
    const unique = at => [...new Set(index.rows.map(r => r[at]))];
    const fields = {set: select("from", unique(SET).map(v => [String(v), say(name(v))])),
                    outcome: select("verdict", unique(OUTCOME).map(v => [String(v), say(name(v))]).concat([["cut", say("cut off")]])),
                    arm: select("arm", unique(ARM).map(v => [String(v), name(v)])),
                    part: select("kind and level", [...new Set(index.rows.map(part))].map(v => [v, v]))};
    const text = document.createElement("input");
    text.type = "search";
    text.autocomplete = "off";
    filters.setAttribute("role", "search");
    filters.appendChild(make("label", "", [document.createTextNode(say("text") + " "), text]));
    filters.appendChild(count);
    const apply = () => search({set: fields.set.value, outcome: fields.outcome.value, arm: fields.arm.value, part: fields.part.value, text: text.value});
    let timer = 0;
    filters.addEventListener("input", e => {
      clearTimeout(timer);
      timer = setTimeout(apply, e.target === text ? 200 : 0);
    });
    filters.addEventListener("submit", e => e.preventDefault());
    list.tabIndex = 0;
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", say("what it wrote"));
    list.appendChild(space);
    list.addEventListener("scroll", () => requestAnimationFrame(showRows));
    list.addEventListener("keydown", e => {
      const page = Math.floor(list.clientHeight / ROW) - 1;
      const to = {ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: found.length - 1}[e.key];
      if (to === undefined) return;
      e.preventDefault();
      choose(to);
    });
    detail.tabIndex = 0;
    detail.setAttribute("aria-live", "polite");
    const scale = make("p", "note scale", [document.createTextNode(say("token colours") + " ")].concat(
      ["\u2265 95", "\u2265 82", "\u2265 61", "\u2265 37", "\u2265 14", "\u2265 2", "< 2"].map((p, k) => make("span", "t" + k, " " + p + "\u00a0% "))));
    place.appendChild(filters);
    place.appendChild(make("div", "browser", [list, detail]));
    place.appendChild(scale);
    place.hidden = false;
    apply();
  }
  // The texts stand behind this script in the page.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => setTimeout(openBrowser, 0));
  else openBrowser();
})();
