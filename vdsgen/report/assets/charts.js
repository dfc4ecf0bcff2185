// Option builders: report.builders.NAME(data, tools) -> {option, points?}. `tools` is {colours, narrow, choice}.
// A series' tooltip is an element that report.tip made; `points` are rows of [series, index] for arrow keys.
"use strict";
(() => {
  const { formats, axis, tip, DASHES, decal, builders } = report;

  const limitLine = (limits, page, vertical) => ({
    silent: true,
    symbol: "none",
    lineStyle: { color: page.capacity, type: [6, 4], width: 2 },
    label: { color: page.capacity, fontSize: 11, position: vertical ? "end" : "insideEndTop" },
    data: limits.map(({ at, label }) => ({ [vertical ? "xAxis" : "yAxis"]: at, label: { formatter: label } })),
  });
  const legend = (page, names, narrow) => ({
    type: narrow ? "scroll" : "plain",
    data: names,
    top: 0,
    left: 0,
    right: 0,
    itemWidth: 18,
    itemHeight: 11,
    itemGap: 12,
    textStyle: { color: page.text, fontSize: 12 },
    inactiveColor: page.idle_edge,
    pageTextStyle: { color: page.muted },
  });
  // A legend of several rows needs room: about seven pixels a letter.
  const legendHeight = (names, width, narrow) => {
    if (narrow) return 26;
    let rows = 1;
    let used = 0;
    for (const name of names) {
      const needed = 34 + 6.6 * name.length + 12;
      if (used + needed > width) [rows, used] = [rows + 1, 0];
      used += needed;
    }
    return rows * 21 + 8;
  };

  // Curves. data: {x: {name, unit}, y: {name, unit, log?, min?, max?}, series: [{name, points: [[x, y], ...],
  // colour?: name or number, step?, quiet?}], limits?: [{at, label}] of y, marks?: [{at, label}] of x}
  builders.lines = (data, { colours, narrow, width }) => {
    const { page } = colours;
    const names = data.series.map((one) => one.name);
    const top = names.length > 1 ? legendHeight(names, width, narrow) + 10 : 22;
    const series = data.series.map((one, index) => {
      const colour = one.colour === undefined ? colours.of(index) : colours.of(one.colour);
      return {
        type: "line",
        name: one.name,
        data: one.points,
        step: one.step ? "end" : false,
        showSymbol: one.points.length < 40,
        symbol: ["circle", "rect", "triangle", "diamond"][index % 4],
        symbolSize: 6,
        sampling: "lttb",
        connectNulls: false,
        itemStyle: { color: colour },
        lineStyle: { color: colour, width: one.quiet ? 1 : 2, type: DASHES[index % DASHES.length], opacity: one.quiet ? 0.6 : 1 },
        emphasis: { focus: "none" },
      };
    });
    if (series.length) {
      if (data.limits) series[0].markLine = limitLine(data.limits, page, false);
      if (data.marks) {
        const vertical = limitLine(data.marks, page, true);
        if (series[0].markLine) series[0].markLine.data.push(...vertical.data);
        else series[0].markLine = vertical;
      }
    }
    return {
      option: {
        legend: names.length > 1 ? legend(page, names, narrow) : undefined,
        grid: { top, left: 62, right: 22, bottom: 46 },
        xAxis: axis("value", { ...data.x, min: data.x.min ?? "dataMin", max: data.x.max ?? "dataMax" }, page, "x"),
        yAxis: axis(data.y.log ? "log" : "value", { ...data.y, scale: true }, page, "y"),
        dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
        tooltip: {
          trigger: "axis",
          formatter: (found) =>
            tip(
              `${data.x.name} ${formats[data.x.unit || "number"](found[0].value[0])}`,
              found.filter((one) => one.value[1] !== null).map((one) => [one.color, one.seriesName, formats[data.y.unit || "number"](one.value[1])]),
            ),
        },
        series,
      },
    };
  };

  // Bars, side by side or stacked. data: {categories, series: [{name, values, colour?}], value: {name, unit, max?},
  // stacked?, horizontal?, limits?: [{at, label}], notes?: one string a category}
  builders.bars = (data, { colours, narrow, width }) => {
    const { page } = colours;
    const unit = data.value.unit || "number";
    const names = data.series.map((one) => one.name);
    const top = names.length > 1 ? legendHeight(names, width, narrow) + 16 : 26;
    const long = Math.max(...data.categories.map((one) => one.length));
    const labels = Math.min(narrow ? 110 : 190, 12 + 6.4 * long);
    const categories = axis(
      "category",
      {
        data: data.categories,
        inverse: Boolean(data.horizontal),
        axisLabel: { color: page.muted, fontSize: 11, width: labels, overflow: "truncate", interval: "auto", hideOverlap: true },
        splitLine: { show: false },
        name: data.category || "",
      },
      page,
      "x",
    );
    const values = axis("value", { ...data.value, splitLine: { show: true, lineStyle: { color: page.line } } }, page, data.horizontal ? "x" : "y");
    const total = data.categories.map((_, at) => data.series.reduce((sum, one) => sum + (one.values[at] || 0), 0));
    const series = data.series.map((one, index) => {
      const colour = colours.of(one.colour === undefined ? index : one.colour);
      return {
        type: "bar",
        name: one.name,
        stack: data.stacked ? "all" : undefined,
        data: one.values,
        barMaxWidth: 44,
        barCategoryGap: data.categories.length > 30 ? "10%" : "35%",
        itemStyle: { color: colour, borderColor: page.page, borderWidth: data.stacked ? 0.8 : 0, decal: decal(index, page) },
      };
    });
    if (data.limits && series.length) series[0].markLine = limitLine(data.limits, page, Boolean(data.horizontal));
    const many = data.categories.length > 24;
    return {
      option: {
        legend: names.length > 1 ? legend(page, names, narrow) : undefined,
        grid: { top, left: data.horizontal ? labels + 14 : 62, right: 28, bottom: many && !data.horizontal ? 78 : 46 },
        xAxis: data.horizontal ? values : categories,
        yAxis: data.horizontal ? categories : values,
        dataZoom: many ? [{ type: "slider", [data.horizontal ? "yAxisIndex" : "xAxisIndex"]: 0, bottom: 8, height: 18, brushSelect: false }] : [],
        tooltip: {
          trigger: "axis",
          axisPointer: { type: "shadow" },
          formatter: (found) => {
            const at = found[0].dataIndex;
            const rows = found.filter((one) => one.value).map((one) => [one.color, one.seriesName, formats[unit](one.value)]);
            if (data.stacked) rows.unshift([null, "together", formats[unit](total[at])]);
            return tip(data.categories[at], rows, data.notes ? [data.notes[at]].filter(Boolean) : []);
          },
        },
        series,
      },
    };
  };
})();
