/** One sync: phase, what to do next, progress, lag, troubles, tables, log. */
import { useEffect, useState } from "preact/hooks";
import { bytes, count, duration, number, percent } from "../../text/format.ts";
import type { SyncView } from "../protocol.ts";
import { Actions } from "./actions.tsx";
import { Chart } from "./chart.tsx";
import { CopyPanel } from "./copy-panel.tsx";
import { Findings, Rehearsed, Verified } from "./reports.tsx";
import { Tables } from "./tables.tsx";
import { Troubles } from "./troubles.tsx";

const steps = ["new", "initialised", "copying", "copied", "catching-up", "following", "cut-over"] as const;

export function SyncPage({ view, csrf }: { view: SyncView; csrf: string | null }) {
  const { status, statusError } = view;
  return (
    <>
      <section class={`panel phase phase-${status?.phase ?? "unknown"}`} aria-labelledby="phase">
        <h2 id="phase">
          {view.name}: {status?.phase ?? (statusError?.code === "SYNC_UNKNOWN" ? "new" : "unknown")}
        </h2>
        <p>{view.phaseText ?? (statusError === null ? "Asking the databases…" : statusError.message)}</p>
        {statusError !== null && statusError.hint !== "" && <p class="hint">{statusError.hint}</p>}
        <ol class="steps" aria-label="Phases">
          {steps.map((step) => (
            <li key={step} aria-current={status?.phase === step ? "step" : undefined}>
              {step}
            </li>
          ))}
        </ol>
        {view.next !== null && (
          <p class="next">
            Next: <code>{view.next}</code>
          </p>
        )}
        {status !== null && <Places status={status} at={view.statusAt} />}
      </section>
      {csrf !== null && <Actions view={view} csrf={csrf} />}
      <Troubles view={view} />
      {status !== null && <Figures status={status} />}
      {(status?.phase === "copying" || view.copy !== null) && <CopyPanel view={view} />}
      {view.verifying !== null && view.verified === null && (
        <section class="panel">
          <h2>Verify</h2>
          <p>
            {view.verifying.tablesDone} of {count(view.verifying.tablesTotal, "table")} compared; now{" "}
            {view.verifying.table} ({count(view.verifying.rowsDone, "row")})
          </p>
        </section>
      )}
      <Findings findings={view.findings} />
      <Rehearsed rehearsed={view.rehearsed} />
      <Verified verified={view.verified} />
      {view.history.length > 1 && <Chart history={view.history} />}
      <Tables tables={view.tables} />
      <section class="panel" aria-labelledby="log">
        <h2 id="log">Log</h2>
        {view.log.length === 0 ? (
          <p class="quiet">Nothing has happened in this process yet.</p>
        ) : (
          <ol class="log" tabIndex={0} aria-label="Events, the latest first">
            {view.log.toReversed().map((line) => (
              <li key={line.id} class={line.level}>
                <time dateTime={line.at}>{new Date(line.at).toLocaleTimeString()}</time> {line.text}
              </li>
            ))}
          </ol>
        )}
        <p>
          <a href={`/api/syncs/${encodeURIComponent(view.name)}/diagnostics`} download>
            Download diagnostics
          </a>
        </p>
      </section>
    </>
  );
}

type Status = NonNullable<SyncView["status"]>;

function Places({ status, at }: { status: Status; at: string | null }) {
  const place = ({ host, port, database, role }: Status["source"]): string =>
    `${role === null ? "" : `${role}@`}${host}:${port}/${database}`;
  const { runner } = status;
  return (
    <dl class="places">
      <dt>Source</dt>
      <dd>
        {place(status.source)}
        {status.sourceError !== null && <strong class="bad"> {status.sourceError}</strong>}
      </dd>
      <dt>Target</dt>
      <dd>{place(status.target)}</dd>
      <dt>Runner</dt>
      <dd>
        {runner.alive
          ? `alive on ${runner.host}, pid ${runner.pid}`
          : runner.host === null
            ? "none so far"
            : `none; the last one ran on ${runner.host}`}
      </dd>
      <dt>Asked</dt>
      <dd>{at === null ? "not yet" : <Ago at={at} />}</dd>
    </dl>
  );
}

/** How long ago something was, counted by the page itself. */
function Ago({ at }: { at: string }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, (now - Date.parse(at)) / 1000);
  return <>{seconds < 3 ? "just now" : `${duration(Math.round(seconds))} ago`}</>;
}

function Figures({ status }: { status: Status }) {
  const { lag, follow, copy } = status;
  const figures: readonly (readonly [label: string, value: string, more?: string])[] = [
    ["Lag", lag.seconds === null ? "unknown" : duration(lag.seconds), lag.rows === null ? "" : `${count(lag.rows, "change")} waiting`],
    ["Applied", number(follow.rowsApplied), `rows in ${count(follow.batches, "batch", "batches")}`],
    ["Rate", `${number(follow.rowsPerSecond)}/s`, "rows applied now"],
    ["Copied", copy.bytesTotal === 0 ? "–" : `${percent(copy.bytesDone, copy.bytesTotal)} %`, `${bytes(copy.bytesDone)} of ${bytes(copy.bytesTotal)}`],
    ["Tables", `${copy.tablesDone} of ${copy.tablesTotal}`, "copied"],
    ["Indexes", `${copy.indexesDone} of ${copy.indexesTotal}`, "and constraints back"],
  ]; // prettier-ignore
  return (
    <dl class="figures">
      {figures.map(([label, value, more]) => (
        <div key={label} class="panel">
          <dt>{label}</dt>
          <dd>
            <strong>{value}</strong> <span>{more}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}
