// The page: draws charts as they come into view, themes, keyboard, tables, print.
"use strict";
(() => {
  const { charts, builders, colours, element, spoken, state, systemIsDark, themeName } = report;
  const said = document.getElementById("said");
  const drawn = new Map(); // element -> {chart, entry, choice, points, at}

  // Storage may be denied in a file that is opened from a disk: the switch then lasts as long as the page.
  const remembered = {
    get() { try { return localStorage.getItem("vdsgen-theme"); } catch { return null; } },
    set(value) { try { value ? localStorage.setItem("vdsgen-theme", value) : localStorage.removeItem("vdsgen-theme"); } catch { /* not kept */ } },
  };

  const complete = (option, palette) => ({
    animation: false,
    backgroundColor: "transparent",
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: palette.page.text },
    aria: { enabled: true, label: { enabled: false }, decal: { show: false } },
    ...option,
    tooltip: option.tooltip === undefined ? undefined : {
      confine: true,
      backgroundColor: palette.page.page,
      borderColor: palette.page.idle_edge,
      borderWidth: 1,
      padding: [8, 10],
      transitionDuration: 0,
      extraCssText: "",
      ...option.tooltip,
    },
  });

  const build = (host, entry, choice) => {
    const width = host.clientWidth;
    const palette = colours();
    const made = builders[entry.chart](entry.data, { colours: palette, narrow: width < 560, width, choice });
    return { ...made, option: complete(made.option, palette) };
  };
  const pointsOf = (made) => {
    if (made.points) return made.points;
    return made.option.series.map((series, index) => (series.silent ? [] : (series.data || []).map((_, at) => [index, at]))).filter((row) => row.length);
  };
  const heightOf = (host) => {
    const asked = Number(host.dataset.height);
    return innerWidth < 560 ? Math.min(asked, 420) : asked;
  };

  const draw = (host) => {
    const entry = charts[host.id];
    if (!entry || drawn.has(host)) return;
    host.style.height = `${heightOf(host)}px`;
    const chart = echarts.init(host, null, { renderer: "canvas", devicePixelRatio: Math.max(2, devicePixelRatio) });
    const record = { chart, entry, choice: entry.data.choice || 0, row: 0, at: -1 };
    drawn.set(host, record);
    if (entry.data.choices && entry.data.choices.length > 1) host.before(chooser(host, record));
    refresh(host, record);
  };
  const refresh = (host, record) => {
    const made = build(host, record.entry, record.choice);
    record.points = pointsOf(made);
    const height = (state.printing ? Math.min(420, Number(host.dataset.height)) : heightOf(host)) + (made.extra || 0);
    host.style.height = `${height}px`;
    record.chart.resize({ height });
    record.chart.setOption(made.option, { notMerge: true });
  };
  // Now, and in one layer: browsers print the uppermost canvas alone.
  const flatten = (host, record) => {
    record.chart.getZr().refreshImmediately();
    const [lowest, ...others] = host.querySelectorAll("canvas");
    if (!others.length) return;
    const brush = lowest.getContext("2d");
    brush.save();
    brush.setTransform(1, 0, 0, 1, 0, 0);
    for (const one of others) {
      brush.drawImage(one, 0, 0);
      one.hidden = true;
    }
    brush.restore();
  };
  const chooser = (host, record) => {
    const label = element("label", "choice", record.entry.data.choices_label || "Stage");
    const select = element("select");
    record.entry.data.choices.forEach((name, index) => {
      const option = element("option", "", name);
      option.value = String(index);
      select.append(option);
    });
    select.value = String(record.choice);
    select.addEventListener("change", () => {
      record.choice = Number(select.value);
      [record.row, record.at] = [0, -1];
      refresh(host, record);
    });
    label.append(select);
    return label;
  };
  const redraw = () => drawn.forEach((record, host) => {
    record.chart.resize();
    refresh(host, record);
  });
  const hosts = [...document.querySelectorAll(".chart")];
  const guarded = (host) => {
    try {
      draw(host);
    } catch (error) {
      host.classList.add("chart-failed");
      host.textContent = "This chart could not be drawn; its table is below.";
      console.error(error);
    }
  };
  for (const host of hosts) host.style.height = `${heightOf(host)}px`;
  const watching = new IntersectionObserver((entries) => {
    for (const one of entries) if (one.isIntersecting) { watching.unobserve(one.target); guarded(one.target); }
  }, { rootMargin: "200px" });
  hosts.forEach((host) => watching.observe(host));

  let width = innerWidth;
  let waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 120);
  });

  // Theme: as the system has it, light, or dark.
  const button = document.getElementById("theme");
  const ORDER = ["", "light", "dark"];
  const setTheme = (name) => {
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${name || "system"}`;
    redraw();
  };
  const nextTheme = () => {
    const now = document.documentElement.dataset.theme || "";
    const next = ORDER[(ORDER.indexOf(now) + 1) % ORDER.length];
    remembered.set(next);
    setTheme(next);
  };
  const known = remembered.get();
  if (ORDER.includes(known) && known) setTheme(known);
  button.addEventListener("click", nextTheme);
  systemIsDark.addEventListener("change", redraw);

  // Arrow keys walk a chart's points: the tooltip shows each, and a screen reader is told.
  const show = (record) => {
    const [seriesIndex, dataIndex] = record.points[record.row][record.at];
    record.chart.dispatchAction({ type: "showTip", seriesIndex, dataIndex });
    requestAnimationFrame(() => {
      const box = record.chart.getDom().querySelector(".tip");
      said.textContent = box ? spoken(box) : "";
    });
  };
  const walk = (record, key) => {
    const rows = record.points;
    if (!rows.length) return;
    const last = () => rows[record.row].length - 1;
    if (key === "ArrowRight") record.at = Math.min(last(), record.at + 1);
    else if (key === "ArrowLeft") record.at = Math.max(0, record.at - 1);
    else if (key === "Home") record.at = 0;
    else if (key === "End") record.at = last();
    else record.row = (record.row + (key === "ArrowDown" ? 1 : rows.length - 1)) % rows.length;
    record.at = Math.max(0, Math.min(last(), record.at));
    show(record);
  };
  const zoom = (record, factor) => {
    const zooms = record.chart.getOption().dataZoom || [];
    zooms.forEach((one, dataZoomIndex) => {
      const middle = (one.start + one.end) / 2;
      const half = factor ? Math.min(50, ((one.end - one.start) / 2) * factor) : 50;
      const start = Math.max(0, Math.min(100 - 2 * half, middle - half));
      record.chart.dispatchAction({ type: "dataZoom", dataZoomIndex, start, end: start + 2 * half });
    });
  };
  for (const host of hosts) {
    host.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      guarded(host);
      const record = drawn.get(host);
      if (!record) return;
      if (/^(Arrow|Home|End)/.test(event.key)) walk(record, event.key);
      else if (event.key === "+" || event.key === "=") zoom(record, 0.6);
      else if (event.key === "-") zoom(record, 1.7);
      else if (event.key === "0") zoom(record, 0);
      else if (event.key === "Enter") {
        const table = host.closest("figure").querySelector("details.table");
        table.open = !table.open;
      } else if (event.key === "Escape") record.chart.dispatchAction({ type: "hideTip" });
      else return;
      event.preventDefault();
    });
    host.addEventListener("blur", () => drawn.get(host)?.chart.dispatchAction({ type: "hideTip" }));
  }

  const keys = document.getElementById("keys");
  document.getElementById("help").addEventListener("click", () => keys.showModal());
  const links = [...document.querySelectorAll(".contents a")];
  const parts = links.map((link) => document.getElementById(link.hash.slice(1)));
  const current = () => {
    const line = innerHeight / 3;
    return Math.max(0, parts.findLastIndex((part) => part.getBoundingClientRect().top < line));
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "?") keys.open ? keys.close() : keys.showModal();
    else if (event.key === "t") nextTheme();
    else if (event.key === "j" || event.key === "k") {
      const to = Math.max(0, Math.min(parts.length - 1, current() + (event.key === "j" ? 1 : -1)));
      parts[to].scrollIntoView();
      links[to].focus({ preventScroll: true });
    }
  });
  const marking = () => {
    const now = current();
    links.forEach((link, index) => index === now ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
  };
  let scheduled = false;
  addEventListener("scroll", () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; marking(); });
  }, { passive: true });
  if (links.length) marking();

  // A table as tab-separated text, as spreadsheets take it.
  for (const copy of document.querySelectorAll(".copy")) {
    copy.addEventListener("click", async () => {
      const table = copy.parentElement.querySelector("table");
      const text = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent).join("\t")).join("\n");
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(table);
        copy.textContent = "Selected: press Ctrl+C";
      }
      said.textContent = copy.textContent;
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
  }

  // On paper: every chart, in light colours, as wide as the page; short tables open.
  const PAPER_PX = 640;
  let opened = [];
  const beforePrint = () => {
    if (state.printing) return;
    state.printing = true;
    hosts.forEach(guarded);
    opened = [...document.querySelectorAll("details.table:not([open])")].filter((one) => Number(one.dataset.rows) <= 16);
    opened.forEach((one) => { one.open = true; });
    drawn.forEach((record, host) => {
      host.style.width = `${PAPER_PX}px`;
      record.chart.resize({ width: PAPER_PX });
      refresh(host, record);
      flatten(host, record);
    });
  };
  const afterPrint = () => {
    state.printing = false;
    opened.forEach((one) => { one.open = false; });
    drawn.forEach((record, host) => {
      for (const one of host.querySelectorAll("canvas")) one.hidden = false;
      host.style.width = "";
      record.chart.resize({ width: "auto" });
      refresh(host, record);
    });
  };
  addEventListener("beforeprint", beforePrint);
  addEventListener("afterprint", afterPrint);
  document.documentElement.dataset.ready = themeName();
})();
