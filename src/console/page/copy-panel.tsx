/** The copy: the whole, the tables with parts in flight, and indexes that are being built. */
import { bytes, count, duration, percent } from "../../text/format.ts";
import type { SyncView } from "../protocol.ts";

export function CopyPanel({ view }: { view: SyncView }) {
  const whole = view.copy ?? view.status?.copy;
  if (whole == null) return null;
  const rate = view.copy?.bytesPerSecond ?? 0;
  return (
    <section class="panel" aria-labelledby="copy">
      <h2 id="copy">Copy</h2>
      <Bar label="Rows of all tables" done={whole.bytesDone} total={whole.bytesTotal} />
      <p>
        {bytes(whole.bytesDone)} of {bytes(whole.bytesTotal)}, {count(whole.rowsDone, "row")}
        {rate > 0 && `, ${bytes(rate)}/s`}
        {whole.etaSeconds !== null && whole.etaSeconds >= 1 && `, about ${duration(whole.etaSeconds)} left`}
      </p>
      {whole.indexesTotal > 0 && (
        <>
          <Bar label="Indexes and constraints" done={whole.indexesDone} total={whole.indexesTotal} />
          <p>
            indexes and constraints: {whole.indexesDone} of {whole.indexesTotal}
          </p>
        </>
      )}
      {view.copy !== null && view.copy.tables.length > 0 && (
        <ul class="inflight">
          {view.copy.tables.map((table) => (
            <li key={table.table}>
              <span>{table.table}</span>
              <Bar label={table.table} done={table.bytesDone} total={table.bytesTotal} />
              <span>{count(table.rowsDone, "row")}</span>
            </li>
          ))}
        </ul>
      )}
      {view.copy !== null && view.copy.building.length > 0 && (
        <ul class="inflight">
          {view.copy.building.map((build) => (
            <li key={build.index}>
              <span>{build.index}</span>
              {build.percent === null ? (
                <span />
              ) : (
                <Bar label={build.index} done={build.percent} total={100} />
              )}
              <span>{build.phase}</span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Bar({ label, done, total }: { label: string; done: number; total: number }) {
  const value = percent(done, total);
  return (
    <progress aria-label={label} max={100} value={value}>
      {value} %
    </progress>
  );
}
