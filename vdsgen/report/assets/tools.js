// What charts are made with: the page's data, its colours, numbers as people read them, and tooltips.
"use strict";
const report = (() => {
  const { themes, charts } = JSON.parse(document.getElementById("data").textContent);
  const GIB = 1024 ** 3;

  // Three significant digits without exponents, as the planner writes them.
  const significant = (value) => {
    if (!value) return "0";
    const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
    return value.toFixed(Math.min(digits, 12));
  };
  const seconds = (value) => {
    const size = Math.abs(value);
    if (size >= 100) return `${value.toFixed(0)} s`;
    if (size >= 1) return `${value.toFixed(2)} s`;
    if (size >= 1e-3 || !size) return `${significant(value * 1e3)} ms`;
    return `${significant(value * 1e6)} µs`;
  };
  const count = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 6 });
  const formats = {
    seconds,
    gib: (value) => `${value.toFixed(2)} GiB`,
    bytes: (value) => `${(value / GIB).toFixed(2)} GiB`,
    percent: (value) => `${(100 * value).toFixed(Math.abs(value) < 0.1 ? 1 : 0)} %`,
    number: (value) => (Math.abs(value) >= 1e4 || Number.isInteger(value) ? count(value) : significant(value)),
    exponent: (value) => (value && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(2) : significant(value)),
  };
  // On an axis: without zeros that say nothing.
  const ticks = {
    seconds: (value) => (value === 0 ? "0" : Math.abs(value) < 1 ? `${+(value * 1e3).toPrecision(4)} ms` : `${+value.toPrecision(4)} s`),
    gib: (value) => `${+value.toPrecision(4)}`,
    percent: (value) => `${+(100 * value).toPrecision(3)} %`,
    number: (value) => count(+value.toPrecision(6)),
    exponent: (value) => (value && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(0) : `${+value.toPrecision(4)}`),
  };

  // Everything that a tooltip shows is set as text: names come from files that anyone may have written.
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  /** rows: [colour or null, name, value]; an element that can also be read out. */
  const tip = (title, rows, notes = []) => {
    const box = element("div", "tip");
    box.append(element("strong", "", title));
    for (const [colour, name, value] of rows) {
      const row = element("div", "row");
      const label = element("span");
      if (colour) {
        const swatch = element("span", "swatch");
        swatch.style.background = colour;
        label.append(swatch);
      }
      label.append(name);
      row.append(label, element("span", "value", value));
      box.append(row);
    }
    for (const note of [].concat(notes)) box.append(element("div", "quiet", note));
    return box;
  };
  const spoken = (box) =>
    [...box.children].map((part) => [...(part.className === "row" ? part.children : [part])].map((one) => one.textContent).join(": ")).join("; ");

  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const state = { printing: false };
  const themeName = () => {
    if (state.printing) return "light";
    return document.documentElement.dataset.theme || (systemIsDark.matches ? "dark" : "light");
  };

  /** Colours, fonts and edges that all charts share. `series` colours are by number, others by name. */
  const colours = () => {
    const theme = themes[themeName()];
    const named = { ...theme.work, ...theme.components, ...theme.page };
    return { ...theme, of: (name) => (typeof name === "number" ? theme.series[name % theme.series.length] : named[name] || theme.series[0]) };
  };
  const axis = (kind, { name = "", unit = "number", ...more }, page, place) => ({
    type: kind,
    name,
    nameLocation: "middle",
    nameGap: place === "y" ? 46 : 28,
    nameTextStyle: { color: page.muted, fontSize: 12 },
    axisLine: { show: place === "x", lineStyle: { color: page.idle_edge } },
    axisTick: { show: place === "x" && kind !== "category", lineStyle: { color: page.idle_edge } },
    // A limit that was given, not found, is no round number.
    axisLabel: { color: page.muted, fontSize: 11, hideOverlap: true, ...(kind === "category" ? {} : { formatter: ticks[unit], showMaxLabel: more.max === undefined ? null : false, showMinLabel: more.min ? false : null }) },
    splitLine: { show: place === "y", lineStyle: { color: page.line } },
    ...more,
  });
  /** A legend in as many rows as it needs, and their height: about seven pixels a letter. */
  const legend = (names, width, page, more = {}) => {
    let rows = 1;
    let used = 0;
    for (const name of names) {
      const needed = 36 + 6.7 * name.length;
      if (used && used + needed > width) [rows, used] = [rows + 1, 0];
      used += needed;
    }
    return {
      height: rows * 21 + 4,
      option: {
        type: "plain", data: names, top: 0, left: 0, right: 0, itemWidth: 18, itemHeight: 11, itemGap: 12,
        textStyle: { color: page.text, fontSize: 12 }, inactiveColor: page.idle_edge, ...more,
      },
    };
  };
  const DASHES = ["solid", [7, 4], [2, 3], [10, 3, 2, 3], [4, 2], [14, 4]];
  // Patterns tell areas and bars apart without colour; thin, so that colours stay what they are.
  const DECALS = [
    { symbol: "none" },
    { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [1.4, 6], rotation: -Math.PI / 4 },
    { symbol: "circle", symbolSize: 0.4, dashArrayX: [[7, 7], [0, 7, 7, 0]], dashArrayY: [7, 0] },
    { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [1.4, 6], rotation: Math.PI / 4 },
    { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [1, 5], rotation: 0 },
    { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [1, 5], rotation: Math.PI / 2 },
  ];
  const decal = (number, page) => ({ color: `${page.page}8c`, backgroundColor: "transparent", symbolSize: 1, ...DECALS[number % DECALS.length] });

  return { charts, builders: {}, formats, ticks, element, tip, spoken, colours, axis, legend, DASHES, decal, themeName, systemIsDark, state };
})();
