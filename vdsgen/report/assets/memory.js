// Memory through a step: stacked by component, and of all stages as a heat map.
"use strict";
(() => {
  const { formats, ticks, axis, legend, tip, builders, decal } = report;

  // data: {components: [[name, words]], stages: [{capacity, times, end, values: of each component in MiB, one number where
  // it stays the same, names, what}],
  // x_max, y_max}; one stage is shown at a time.
  builders.memoryStep = (data, { colours, narrow, width, choice }) => {
    const { page } = colours;
    const stage = data.stages[choice];
    const last = stage.times.length - 1;
    const held = (index, at) => (Array.isArray(stage.values[index]) ? stage.values[index][at] : stage.values[index]) / 1024;
    const series = data.components.map(([name, words], index) => ({
      type: "line",
      name: words,
      stack: "held",
      step: "end",
      showSymbol: false,
      symbol: "none",
      data: [...stage.times.map((time, at) => [time, held(index, at)]), [stage.end, held(index, last)]],
      lineStyle: { width: 0.8, color: page.page },
      itemStyle: { color: colours.of(name), decal: decal(index, page) },
      areaStyle: { color: colours.of(name), opacity: 1, decal: decal(index, page) },
      emphasis: { disabled: true },
    }));
    series[0].markLine = {
      silent: true,
      symbol: "none",
      lineStyle: { color: page.capacity, type: [6, 4], width: 2 },
      label: { color: page.capacity, position: "insideEndTop", formatter: `capacity ${formats.gib(stage.capacity)}` },
      data: [{ yAxis: stage.capacity }],
    };
    const names = data.components.map(([, words]) => words);
    const key = legend(names, width, page, { icon: "roundRect" });
    return {
      points: [stage.times.map((_, at) => [0, at])],
      extra: key.height - 46,
      option: {
        legend: key.option,
        grid: { top: key.height + 16, left: 58, right: 18, bottom: 46 },
        xAxis: axis("value", { name: "time in the step", unit: "seconds", min: 0, max: data.x_max }, page, "x"),
        yAxis: axis("value", { name: "GiB on each GPU", unit: "gib", min: 0, max: data.y_max, axisLabel: { color: page.muted, fontSize: 11, formatter: ticks.gib, showMaxLabel: false } }, page, "y"),
        dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
        tooltip: {
          trigger: "axis",
          axisPointer: { type: "line", lineStyle: { color: page.text } },
          formatter: (found) => {
            const at = Math.min(last, found[0].dataIndex);
            const values = data.components.map(([name, words], index) => [colours.of(name), words, held(index, at)]);
            const total = values.reduce((sum, one) => sum + one[2], 0);
            const rows = values.filter((one) => one[2] > 0).reverse().map(([colour, words, value]) => [colour, words, formats.gib(value)]);
            return tip(
              `${formats.seconds(stage.times[at])}: ${stage.names[stage.what[at]]}`,
              [[null, "together", formats.gib(total)], ...rows],
              `${formats.gib(Math.abs(stage.capacity - total))} ${total <= stage.capacity ? "free" : "too much"}`,
            );
          },
        },
        series,
      },
    };
  };

  // data: {cells: one row a stage, thousandths of the capacity (-1: the step is over), width_seconds, bins}
  builders.memoryStages = (data, { colours }) => {
    const { page } = colours;
    const stages = data.cells.length;
    const known = data.cells.flatMap((row, stage) => row.map((share, bin) => [bin, stage, share / 10])).filter((cell) => cell[2] >= 0);
    const least = Math.floor(Math.min(...known.map((cell) => cell[2])) / 10) * 10;
    const most = Math.min(100, Math.ceil(Math.max(...known.map((cell) => cell[2])) / 10) * 10);
    const begins = Array.from({ length: data.bins }, (_, bin) => bin * data.width_seconds);
    const first = [];
    known.forEach((cell, index) => (first[cell[1]] = first[cell[1]] || []).push([0, index]));
    return {
      points: first,
      option: {
        grid: { top: 48, left: 70, right: 18, bottom: 46 },
        xAxis: axis("category", { data: begins.map((time) => (time ? ticks.seconds(+time.toPrecision(2)) : "0")), name: "time in the step", splitLine: { show: false } }, page, "x"),
        yAxis: axis("category", { data: data.cells.map((_, stage) => `stage ${stage}`), inverse: true, splitLine: { show: false } }, page, "x"),
        visualMap: {
          min: least, max: most, orient: "horizontal", top: 0, right: 0, itemWidth: 12, itemHeight: 140, calculable: true,
          text: [`${most} % of its memory`, `${least} %`], textStyle: { color: page.muted }, inRange: { color: colours.heat }, outOfRange: { color: page.capacity },
          formatter: (value) => `${value.toFixed(0)} %`,
        },
        dataZoom: stages > 16 ? [{ type: "inside", yAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }] : [],
        tooltip: {
          formatter: ({ value }) => tip(`stage ${value[1]}, ${formats.seconds(begins[value[0]])}`, [[null, "of its capacity", `${value[2].toFixed(1)} %`]]),
        },
        series: [{ type: "heatmap", data: known, itemStyle: { borderWidth: 0 }, emphasis: { itemStyle: { borderColor: page.text, borderWidth: 1.5 } }, progressive: 0 }],
      },
    };
  };
})();
