"use strict";
// Draws the plotly figures over the pictures, in the colours of the page, light or dark, and lets
// a reader choose the axes of a front. Without this script the pictures stay.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const config = { displaylogo: false, displayModeBar: false };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Puts the page's colours where a figure names them.
  function coloured(value) {
    if (typeof value === "string") {
      const found = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      if (!found) return value;
      const wash = found[1].endsWith("-wash");
      return wash ? `${colour(found[1].slice(0, -5))}2e` : colour(found[1]);
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
    }
    return value;
  }

  function layoutOf(layout) {
    const narrow = window.innerWidth < 640;
    const font = { family: "system-ui, sans-serif", size: 12, color: "var(--soft)" };
    const axis = (given) => ({
      gridcolor: "var(--hair)", zerolinecolor: "var(--hair)", linecolor: "var(--faint)",
      automargin: true, exponentformat: "SI", fixedrange: narrow, ...given,
      title: { standoff: 10, font: { size: 12 }, ...(given || {}).title },
    });
    return coloured({
      font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 48, r: 12, t: 12, b: 44 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: {
        bgcolor: "var(--wash)", bordercolor: "var(--faint)", align: "left",
        font: { ...font, color: "var(--ink)" },
      },
      dragmode: narrow ? false : "zoom",
      ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    });
  }

  const drawn = new Map(); // name -> figure as given
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.clientWidth && target.dataset.width !== String(target.clientWidth)) {
        target.dataset.width = target.clientWidth;
        window.Plotly.Plots.resize(target);
      }
    }
  });
  function draw(name, figure) {
    const place = document.querySelector(`[data-figure="${name}"]`);
    if (!place || !window.Plotly) return;
    place.parentElement.classList.add("live"); // first: a hidden element has no width
    drawn.set(name, figure);
    place.dataset.width = place.clientWidth;
    window.Plotly.react(place, coloured(figure.data), layoutOf(figure.layout || {}), config);
    sizes.observe(place);
  }

  // Rows of which no other is as good in both: best first along x, then a running best of y.
  function front(rows, x, y, up) {
    const sign = (name) => (up[name] === "max" ? 1 : -1);
    const [sx, sy] = [sign(x), sign(y)];
    const order = rows.map((_, i) => i).filter((i) => rows[i][x] !== null && rows[i][y] !== null);
    order.sort((a, b) => sx * (rows[b][x] - rows[a][x]) || sy * (rows[b][y] - rows[a][y]));
    const found = [];
    let best = -Infinity;
    let last = null;
    for (const i of order) {
      const value = sy * rows[i][y];
      const equal = last !== null && rows[i][x] === rows[last][x] && rows[i][y] === rows[last][y];
      if (value > best || equal) found.push(i);
      if (value > best) { best = value; last = i; }
    }
    return found;
  }

  const escaped = (text) => String(text)
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\n", "<br>");

  function choose(name, given) {
    const place = document.querySelector(`[data-chooser="${name}"]`);
    const { columns, values, hover, run, runs, directions, symbols, x, y, flagged, cells } = given;
    const rows = hover.map((_, i) => Object.fromEntries(columns.map((c, k) => [c, values[k][i]])));
    const select = (label, chosen) => {
      const box = document.createElement("label");
      const list = document.createElement("select");
      for (const column of columns) list.add(new Option(column, column, false, column === chosen));
      box.append(`${label} `, list);
      place.append(box);
      list.addEventListener("change", redraw);
      return list;
    };
    const across = select("across", x);
    const up = select("up", y);
    place.hidden = false;
    const shown = document.createElement("div"); // the drawn cell of the trial that is pointed at
    shown.className = "cell";
    if (Object.keys(cells || {}).length) shown.textContent = "Point at a trial of the front: its cell is drawn here.";
    document.querySelector(`[data-figure="${name}"]`).after(shown);
    const point = (event) => {
      const source = (cells || {})[event.points[0].customdata];
      if (!source) return;
      const image = document.createElement("img");
      image.src = source;
      image.alt = hover[event.points[0].customdata];
      const text = document.createElement("div");
      text.textContent = hover[event.points[0].customdata].split("\n")[0];
      shown.replaceChildren(text, image);
    };

    function redraw() {
      const [a, b] = [across.value, up.value];
      const on = new Set(front(rows, a, b, directions));
      const traces = [];
      const add = (label, indices, style, k) => traces.push({
        type: "scatter", mode: "markers", name: escaped(label), hoverinfo: "text",
        x: indices.map((i) => rows[i][a]), y: indices.map((i) => rows[i][b]), customdata: indices,
        hovertext: indices.map((i) => escaped(
          `${hover[i]}\n${a} ${rows[i][a]}\n${b} ${rows[i][b]}`)),
        marker: { symbol: symbols[k % symbols.length], ...style },
      });
      runs.forEach((label, k) => {
        const own = rows.map((_, i) => i).filter((i) => run[i] === k);
        const rest = own.filter((i) => !on.has(i) && rows[i][a] !== null && rows[i][b] !== null);
        const best = own.filter((i) => on.has(i));
        const prefix = runs.length > 1 ? `${label}: ` : "";
        const hue = `var(--c${k % 6})`;
        add(`${prefix}other trials`, rest,
          { color: runs.length > 1 ? hue : "var(--faint)", size: 6, opacity: 0.5 }, k);
        add(`${prefix}front`, best, { color: hue, size: 10 }, k);
      });
      const doubt = rows.map((_, i) => i)
        .filter((i) => flagged[i] && rows[i][a] !== null && rows[i][b] !== null);
      if (doubt.length) {
        traces.push({
          type: "scatter", mode: "markers", name: "suspicious", hoverinfo: "skip",
          x: doubt.map((i) => rows[i][a]), y: doubt.map((i) => rows[i][b]),
          marker: { symbol: "x-thin", size: 9, color: "var(--alarm)",
            line: { width: 1.6, color: "var(--alarm)" } },
        });
      }
      const line = [...on];
      traces.unshift({
        type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
        x: line.map((i) => rows[i][a]), y: line.map((i) => rows[i][b]),
        line: { shape: "linear", width: 1, color: "var(--faint)" },
      });
      const axis = (column) => {
        const there = rows.map((row) => row[column]).filter((v) => v !== null);
        const wide = there.length && Math.min(...there) > 0
          && Math.max(...there) > 50 * Math.min(...there);
        const better = directions[column] === "max" ? "more is better" : "less is better";
        return {
          title: { text: `${escaped(column)} (${better})` },
          ...(wide ? { type: "log", dtick: 1 } : { type: "linear" }),
          ...(column.endsWith("accuracy") ? { tickformat: ".4~%" } : {}),
        };
      };
      draw(name, { data: traces, layout: { xaxis: axis(a), yaxis: axis(b), height: 440, hovermode: "closest" } });
      const graph = document.querySelector(`[data-figure="${name}"]`);
      if (graph.on && Object.keys(cells || {}).length && !graph.dataset.pointed) {
        graph.dataset.pointed = "yes";
        graph.on("plotly_hover", point);
        graph.on("plotly_click", point); // of a finger
      }
    }
    redraw();
  }

  // A figure is drawn when it comes near the window: what is folded away has no width yet, and a
  // page of many figures is there at once.
  const waiting = new Map();
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || !waiting.has(target)) continue;
      near.unobserve(target);
      waiting.get(target)();
      waiting.delete(target);
      document.documentElement.dataset.drawn = drawn.size;
    }
  }, { rootMargin: "800px" });
  const names = new Set([...Object.keys(data.figures), ...Object.keys(data.choosers)]);
  for (const name of window.Plotly ? names : []) {
    const place = document.getElementById(name);
    waiting.set(place, name in data.choosers
      ? () => choose(name, data.choosers[name]) : () => draw(name, data.figures[name]));
    near.observe(place);
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [name, figure] of drawn) draw(name, figure);
  });
})();
