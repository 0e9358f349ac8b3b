/** Lag and rate over time. The figures beside it say the same in words. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { duration, number } from "../../text/format.ts";
import type { Sample } from "../protocol.ts";

export function Chart({ history }: { history: readonly Sample[] }) {
  const element = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  useEffect(() => {
    const parent = element.current;
    if (parent === null) return;
    const style = getComputedStyle(parent);
    const color = (name: string): string => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--ink"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } }; // prettier-ignore
    const made = new uPlot(
      {
        width: parent.clientWidth,
        height: 220,
        scales: { x: { time: true }, lag: { range: (_self, _min, max) => [0, Math.max(1, max)] }, rate: { range: (_self, _min, max) => [0, Math.max(1, max)] } },
        axes: [
          axis,
          { ...axis, scale: "lag", size: 70, values: (_self, values) => values.map((value) => duration(value)) },
          { ...axis, scale: "rate", side: 1, size: 70, grid: { show: false }, values: (_self, values) => values.map((value) => number(value)) },
        ],
        series: [
          {},
          { label: "lag in seconds", scale: "lag", stroke: color("--lag"), width: 2, fill: color("--lag-fill") },
          { label: "rows per second", scale: "rate", stroke: color("--rate"), width: 2, dash: [6, 4] },
        ],
      },
      dataOf(history),
      parent,
    ); // prettier-ignore
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: parent.clientWidth, height: 220 }));
    observer.observe(parent);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(dataOf(history)), [history]);
  const last = history.at(-1);
  return (
    <section class="panel" aria-labelledby="chart">
      <h2 id="chart">Lag and rate</h2>
      <div
        ref={element}
        role="img"
        aria-label={`Lag ${last?.lagSeconds == null ? "unknown" : duration(last.lagSeconds)}, ${number(last?.rowsPerSecond ?? 0)} rows per second`}
      />
    </section>
  );
}

function dataOf(history: readonly Sample[]): uPlot.AlignedData {
  return [
    history.map(({ at }) => at / 1000),
    history.map(({ lagSeconds }) => lagSeconds),
    history.map(({ rowsPerSecond }) => rowsPerSecond),
  ];
}
