// A schedule as a Gantt chart: one row a stage. data: {longest, end, rows: [{letters: one a slice, lengths: by letter
// or one a slice, gaps: waiting before slices, by place, again: recomputation in each backward}], words: by letter};
// all in seconds. Micro-batches of a letter come in their order, unless a row has batches: one a slice, -1 for none.
// Rows are called after stages, unless data has names (names_px: room for them).
"use strict";
(() => {
  const { formats, axis, legend, tip, ticks, builders } = report;
  const COLOUR = { F: "forward", B: "backward", A: "recompute", s: "transfer", r: "transfer", t: "transfer", u: "transfer", R: "exchange", G: "exchange", O: "optimizer", H: "other", D: "other", V: "other", "-": "idle" };
  const SHORT = { F: "F", B: "B", A: "", R: "reduce", G: "gather", O: "step", D: "data", H: "host" };
  // Letter, begin and end, stage, micro-batch: recomputation and waiting are slices of their own.
  const ONCE = "ODHV"; // not of a micro-batch
  const sliced = (data) => {
    const found = [];
    data.rows.forEach(({ letters, lengths, gaps, again, batches }, stage) => {
      let now = 0;
      const seen = {};
      for (let at = 0; at < letters.length; at += 1) {
        const letter = letters[at];
        const begin = now + (gaps[at] || 0);
        const end = begin + (Array.isArray(lengths) ? lengths[at] : lengths[letter]);
        const several = letters.indexOf(letter) !== letters.lastIndexOf(letter);
        seen[letter] = (seen[letter] ?? -1) + 1;
        const batch = batches ? batches[at] : ONCE.includes(letter) || ("RG".includes(letter) && !several) ? -1 : seen[letter];
        if (gaps[at]) found.push(["-", now, begin, stage, -1]);
        if (letter === "B" && again > 0) {
          const middle = Math.min(end, begin + again);
          found.push(["A", begin, middle, stage, batch], ["B", middle, end, stage, batch]);
        } else if (end > begin) found.push([letter, begin, end, stage, batch]);
        now = end;
      }
      if (data.end - now > 1e-6 * data.end) found.push(["-", now, data.end, stage, -1]);
    });
    return found;
  };
  const LEGEND = [["F", "forward"], ["A", "recomputation"], ["B", "backward"], ["s", "transfer between stages"], ["R", "collectives"], ["O", "optimizer step"], ["-", "waiting"]];

  builders.schedule = (data, { colours, narrow, width }) => {
    const { page, work } = colours;
    const rowName = (row) => (data.names ? data.names[row] : `stage ${row}`);
    const words = { ...data.words, A: "recomputation, before the backward", "-": "waiting" };
    const slices = sliced(data);
    const stages = data.rows.length;
    const present = new Set(slices.map((one) => one[0]));
    const shown = LEGEND.filter(([letter]) => [...present].some((one) => COLOUR[one] === COLOUR[letter]));
    const fill = (letter) => (letter === "-" ? page.idle : work[COLOUR[letter]]);
    const rowsOf = Array.from({ length: stages }, () => []);
    slices.forEach((one, index) => rowsOf[one[3]].push([0, index]));
    const key = legend(shown.map(([, name]) => name), width, page, { icon: "rect", selectedMode: false });

    const draw = (params, api) => {
      const one = slices[params.dataIndex];
      const [letter, begin, end, stage, batch] = one;
      const from = api.coord([begin, stage]);
      const to = api.coord([end, stage]);
      const left = Math.max(from[0], params.coordSys.x);
      const right = Math.min(to[0], params.coordSys.x + params.coordSys.width);
      if (right <= left || right - left < 0.15) return null;
      const height = Math.min(30, api.size([0, 1])[1] * 0.78);
      const top = from[1] - height / 2;
      const idle = letter === "-";
      const small = COLOUR[letter] === "transfer";
      const shape = { x: left, y: small ? top + height * 0.2 : top, width: right - left, height: small ? height * 0.6 : height };
      const box = { type: "rect", shape, style: { fill: fill(letter), stroke: right - left > 3 ? page.page : null, lineWidth: 0.6 } };
      if (height < 12 || right - left < 4) return box; // too small for lines and letters
      const children = [box];
      // Hatched: waiting leans to the left, recomputation to the right; neither is told by colour alone.
      if (idle || letter === "A") {
        const lines = [];
        const step = idle ? 9 : 6;
        for (let x = shape.x - shape.height; x < shape.x + shape.width; x += step) {
          const [x1, x2] = idle ? [x + shape.height, x] : [x, x + shape.height];
          lines.push({ type: "line", silent: true, shape: { x1, y1: shape.y, x2, y2: shape.y + shape.height }, style: { stroke: idle ? page.idle_edge : page.page, lineWidth: idle ? 0.5 : 1.2, opacity: idle ? 0.55 : 0.8 } });
          if (lines.length > 300) break;
        }
        children.push({ type: "group", clipPath: { type: "rect", shape: { ...shape } }, children: lines });
      }
      const label = SHORT[letter] === undefined ? "" : batch >= 0 && (letter === "F" || letter === "B") ? `${SHORT[letter]}${batch}` : SHORT[letter];
      if (label && height > 11 && right - left > 6.6 * label.length + 3) {
        children.push({ type: "text", silent: true, style: { text: label, x: (left + right) / 2, y: from[1], fill: page.page, align: "center", verticalAlign: "middle", fontSize: Math.min(12, height * 0.6), fontWeight: 600 } });
      }
      return { type: "group", children };
    };
    // A legend of series that hold nothing: names, colours and shapes.
    const legends = shown.map(([letter, name]) => ({
      type: "custom", name, silent: true, data: [], renderItem: () => null,
      itemStyle: { color: fill(letter), borderColor: letter === "-" ? page.idle_edge : "transparent", borderWidth: letter === "-" ? 1 : 0 },
    }));
    return {
      points: rowsOf.filter((row) => row.length),
      extra: key.height - 25,
      option: {
        legend: key.option,
        grid: { top: key.height + 8, left: data.names_px || 64, right: stages > 16 ? 36 : 18, bottom: 70 },
        xAxis: axis("value", { name: "time in the step", unit: "seconds", min: 0, max: data.longest, splitLine: { show: true, lineStyle: { color: page.line } } }, page, "x"),
        yAxis: axis("category", { data: data.rows.map((_, stage) => rowName(stage)), inverse: true, splitLine: { show: false }, axisLine: { show: false }, axisTick: { show: false } }, page, "x"),
        dataZoom: [
          { type: "slider", xAxisIndex: 0, bottom: 6, height: 18, brushSelect: false, filterMode: "none", labelFormatter: ticks.seconds, borderColor: page.line, fillerColor: `${page.accent}22`, handleStyle: { color: page.page, borderColor: page.idle_edge }, moveHandleStyle: { color: page.idle_edge }, textStyle: { color: page.muted }, showDataShadow: false },
          { type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, filterMode: "none" },
          ...(stages > 16 ? [{ type: "slider", yAxisIndex: 0, right: 4, width: 16, brushSelect: false, filterMode: "none", borderColor: page.line, fillerColor: `${page.accent}22`, handleStyle: { color: page.page, borderColor: page.idle_edge }, textStyle: { color: page.muted }, showDetail: false, showDataShadow: false, startValue: 0, endValue: 63 }] : []),
        ],
        tooltip: {
          trigger: "item",
          formatter: ({ dataIndex }) => {
            const [letter, begin, end, stage, batch] = slices[dataIndex];
            const what = words[letter] + (batch >= 0 ? `, micro-batch ${batch}` : "");
            return tip(`${rowName(stage)}: ${what}`, [
              [fill(letter), "takes", formats.seconds(end - begin)],
              [null, "from", formats.seconds(begin)],
              [null, "to", formats.seconds(end)],
            ]);
          },
        },
        series: [
          { type: "custom", name: "schedule", renderItem: draw, clip: true, data: slices.map(([, begin, end, stage]) => [begin, stage, end]), encode: { x: [0, 2], y: 1 }, progressive: 0 },
          ...legends,
        ],
      },
    };
  };
})();
