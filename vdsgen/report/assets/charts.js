// Option builders: report.builders.NAME(data, tools) -> {option, points?}. `tools` is {colours, narrow, choice}.
// A series' tooltip is an element that report.tip made; `points` are rows of [series, index] for arrow keys.
"use strict";
(() => {
  const { formats, axis, legend, tip, DASHES, decal, builders } = report;

  // Lines across a chart: of a value's axis, and upright ones. `below`: where upright lines end at the bottom.
  const limitLine = (limits, marks, page, below) => ({
    silent: true,
    symbol: "none",
    lineStyle: { color: page.capacity, type: [6, 4], width: 2 },
    data: [
      ...limits.map(({ at, label }) => ({ yAxis: at, label: { formatter: label, color: page.capacity, fontSize: 11, position: "insideEndTop" } })),
      ...marks.map(({ at, label }) => ({ xAxis: at, label: { formatter: label, color: page.capacity, fontSize: 11, rotate: 0, position: below ? "start" : "end" } })),
    ],
  });

  // Curves. data: {x: {name, unit}, y: {name, unit, log?, min?, max?}, series: [{name, points: [[x, y], ...],
  // colour?: name or number, step?, quiet?, points_only?, dash?}], limits?: [{at, label}] of y, marks?: [{at, label}] of x}
  builders.lines = (data, { colours, narrow, width }) => {
    const { page } = colours;
    const names = data.series.map((one) => one.name);
    const key = legend(names, width, page);
    const top = names.length > 1 ? key.height + 20 : 24;
    const series = data.series.map((one, index) => {
      const colour = one.colour === undefined ? colours.of(index) : colours.of(one.colour);
      return {
        type: "line",
        name: one.name,
        data: one.points,
        step: one.step ? "end" : false,
        showSymbol: one.points_only || one.points.length < 40,
        symbol: ["circle", "rect", "triangle", "diamond"][index % 4],
        symbolSize: 6,
        sampling: "lttb",
        connectNulls: false,
        itemStyle: { color: colour },
        lineStyle: { color: colour, width: one.points_only ? 0 : one.quiet ? 1 : 2, type: DASHES[(one.dash ?? index) % DASHES.length], opacity: one.quiet ? 0.6 : 1 },
        emphasis: { focus: "none" },
      };
    });
    if (series.length && (data.limits || data.marks)) series[0].markLine = limitLine(data.limits || [], data.marks || [], page, false);
    return {
      extra: names.length > 1 ? key.height - 25 : 0,
      option: {
        legend: names.length > 1 ? key.option : undefined,
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
    const key = legend(names, width, page);
    const top = (names.length > 1 ? key.height : 4) + (data.limits ? 20 : 8);
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
    if (data.limits && series.length) series[0].markLine = data.horizontal ? limitLine([], data.limits, page, true) : limitLine(data.limits, [], page, false);
    const many = data.categories.length > 24;
    return {
      extra: names.length > 1 ? key.height - 25 : 0,
      option: {
        legend: names.length > 1 ? key.option : undefined,
        grid: { top, left: data.horizontal ? labels + 14 : 62, right: 28, bottom: many && !data.horizontal ? 78 : 46 },
        xAxis: data.horizontal ? values : categories,
        yAxis: data.horizontal ? categories : values,
        dataZoom: many ? [{ type: "slider", filterMode: "none", brushSelect: false, showDetail: false, ...(data.horizontal ? { yAxisIndex: 0, right: 2, width: 14 } : { xAxisIndex: 0, bottom: 8, height: 18 }) }] : [],
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

// A waterfall, and a plane of alternatives.
(() => {
  const { formats, axis, legend, tip, decal, builders } = report;

  // data: {categories, bases, falls, rises, totals, value: {name, unit, max}, limits?, notes?}
  builders.waterfall = (data, { colours, narrow, width }) => {
    const { page } = colours;
    const unit = data.value.unit || "number";
    const labels = Math.min(narrow ? 130 : 240, 18 + 6.9 * Math.max(...data.categories.map((one) => one.length)));
    const bar = (name, values, colour, pattern, sign) => ({
      type: "bar", name, stack: "all", barMaxWidth: 30, barCategoryGap: "30%",
      data: values.map((value, at) => ({ value: value || null, ...(data.colours && data.colours[at] ? { itemStyle: { color: colours.of(data.colours[at]) } } : {}) })),
      itemStyle: { color: colour, decal: decal(pattern, page) },
      label: { show: true, position: "right", color: page.text, fontSize: 11, formatter: ({ value }) => (value ? sign + formats[unit](value) : "") },
    });
    return {
      points: [data.categories.map((_, at) => [0, at])],
      option: {
        grid: { top: 24, left: labels + 10, right: narrow ? 60 : 84, bottom: 46 },
        xAxis: axis("value", { ...data.value, min: 0, splitLine: { show: true, lineStyle: { color: page.line } } }, page, "x"),
        yAxis: axis("category", { data: data.categories, inverse: true, splitLine: { show: false }, axisTick: { show: false }, axisLabel: { color: page.text, fontSize: 12, width: labels, overflow: "truncate" } }, page, "x"),
        tooltip: {
          trigger: "axis",
          axisPointer: { type: "shadow" },
          formatter: (found) => {
            const at = found[0].dataIndex;
            const rows = [];
            if (data.totals[at]) rows.push([null, data.value.name, formats[unit](data.totals[at])]);
            if (data.falls[at]) rows.push([null, "takes off", formats[unit](data.falls[at])]);
            if (data.rises[at]) rows.push([null, "adds", formats[unit](data.rises[at])]);
            return tip(data.categories[at], rows, data.notes && data.notes[at] ? data.notes[at] : []);
          },
        },
        series: [
          { type: "bar", name: "base", stack: "all", silent: true, data: data.bases, itemStyle: { color: "transparent" }, tooltip: { show: false }, ...(data.limits ? { markLine: { silent: true, symbol: "none", lineStyle: { color: page.capacity, type: [6, 4], width: 2 }, data: data.limits.map(({ at, label }) => ({ xAxis: at, label: { formatter: label, position: "start", color: page.capacity, fontSize: 11 } })) } } : {}) },
          bar("whole", data.totals, colours.of(0), 0, ""),
          bar("less", data.falls, colours.of(2), 1, "-"),
          bar("more", data.rises, colours.of(1), 3, data.limits ? "+" : ""),
        ],
      },
    };
  };

  // data: {x: {name, unit}, y: {name, unit}, groups: [{name, points: [[x, y, label, why]]}], front: [[x, y]],
  // winner: {at: [x, y], label}, limits: [{at, label}]}
  builders.alternatives = (data, { colours, narrow, width }) => {
    const { page } = colours;
    const names = data.groups.map((one) => one.name);
    const key = legend([...names, "none beats these"], width, page);
    const groups = data.groups.map((one, index) => ({
      type: "scatter", name: one.name, data: one.points, symbolSize: 9,
      symbol: ["circle", "rect", "triangle", "diamond", "roundRect", "pin"][index % 6],
      itemStyle: { color: colours.of(index), opacity: 0.85, borderColor: page.page, borderWidth: 0.8 },
      tooltip: {
        formatter: ({ value, seriesName }) => tip(value[2], [[colours.of(index), data.x.name, formats[data.x.unit](value[0])], [null, data.y.name, formats[data.y.unit](value[1])]], [seriesName, value[3]]),
      },
    }));
    return {
      points: groups.map((one, index) => one.data.map((_, at) => [index, at])),
      extra: key.height - 25,
      option: {
        legend: key.option,
        grid: { top: key.height + 20, left: 62, right: 30, bottom: 48 },
        xAxis: axis("value", { ...data.x, scale: true, splitLine: { show: true, lineStyle: { color: page.line } } }, page, "x"),
        yAxis: axis("value", { ...data.y, scale: true }, page, "y"),
        dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, filterMode: "none" }, { type: "inside", yAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, filterMode: "none" }],
        tooltip: { trigger: "item" },
        series: [
          ...groups,
          { type: "line", name: "none beats these", silent: true, step: "start", showSymbol: false, data: data.front, lineStyle: { color: page.muted, width: 1.5, type: [5, 4] }, itemStyle: { color: page.muted }, tooltip: { show: false } },
          {
            type: "scatter", name: "the plan", silent: true, data: [data.winner.at], symbol: "circle", symbolSize: 22, z: 9,
            itemStyle: { color: "transparent", borderColor: page.text, borderWidth: 2.5 },
            label: { show: true, formatter: data.winner.label, position: "top", distance: 6, color: page.text, textBorderColor: page.page, textBorderWidth: 3, fontWeight: 700, fontSize: 12 },
            markLine: { silent: true, symbol: "none", lineStyle: { color: page.capacity, type: [6, 4], width: 2 }, label: { color: page.capacity, position: "insideEndTop", fontSize: 11 }, data: data.limits.map(({ at, label }) => ({ yAxis: at, label: { formatter: label } })) },
          },
        ],
      },
    };
  };
})();
