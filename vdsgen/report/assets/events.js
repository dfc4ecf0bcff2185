// What happened at which step, a row a kind. data: {rows: [names], bad: [bool a row], x: {name, unit, min, max},
// events: [[step, row, words], ...]}
"use strict";
(() => {
  const { formats, axis, tip, builders } = report;
  const SYMBOLS = ["triangle", "diamond", "rect", "circle"];

  builders.events = (data, { colours, narrow }) => {
    const { page } = colours;
    const long = Math.max(...data.rows.map((one) => one.length));
    return {
      option: {
        grid: { top: 16, left: Math.min(narrow ? 110 : 180, 16 + 6.6 * long), right: 26, bottom: 46 },
        xAxis: axis("value", data.x, page, "x"),
        yAxis: axis("category", { data: data.rows, inverse: true, axisTick: { show: false }, splitLine: { show: true, lineStyle: { color: page.line } } }, page, "y"),
        dataZoom: [{ type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
        tooltip: {
          trigger: "item",
          formatter: (one) => tip(`${data.x.name} ${formats.number(one.value[0])}: ${data.rows[one.value[1]]}`, [], [one.value[2]]),
        },
        series: data.rows.map((name, row) => ({
          type: "scatter",
          name,
          data: data.events.filter((one) => one[1] === row),
          symbol: SYMBOLS[row % SYMBOLS.length],
          symbolSize: 11,
          itemStyle: { color: data.bad[row] ? page.bad : page.accent, borderColor: page.page, borderWidth: 1 },
        })),
      },
    };
  };
})();
