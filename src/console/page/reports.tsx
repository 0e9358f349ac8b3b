/** What preflight, a rehearsal and verify have found. */
import { count, duration } from "../../text/format.ts";
import type { SyncView } from "../protocol.ts";

const severities = ["blocking", "warning", "note"] as const;

export function Findings({ findings }: Pick<SyncView, "findings">) {
  if (findings === null) return null;
  const sorted = severities.flatMap((severity) => findings.filter((each) => each.severity === severity));
  return (
    <section class="panel" aria-labelledby="findings">
      <h2 id="findings">Preflight</h2>
      {sorted.length === 0 && <p>Nothing stands in the way.</p>}
      <ul class="findings">
        {sorted.map((finding, n) => (
          <Problem key={n} {...finding} />
        ))}
      </ul>
    </section>
  );
}

interface ProblemProps {
  severity: (typeof severities)[number];
  subject: string;
  message: string;
  remedy?: string;
}

function Problem({ severity, subject, message, remedy }: ProblemProps) {
  return (
    <li class={severity}>
      <strong>{severity}</strong> <code>{subject}</code> {message}
      {remedy !== undefined && remedy !== "" && <Copyable text={remedy} />}
    </li>
  );
}

/** A statement with a button that puts it into the clipboard. */
function Copyable({ text }: { text: string }) {
  return (
    <div class="copyable">
      <pre tabIndex={0}>{text}</pre>
      <button type="button" onClick={() => void navigator.clipboard.writeText(text)}>
        Copy
      </button>
    </div>
  );
}

export function Rehearsed({ rehearsed }: Pick<SyncView, "rehearsed">) {
  if (rehearsed === null) return null;
  const { rehearsal, at } = rehearsed;
  const { blockers, warnings, parts } = rehearsal;
  return (
    <section class="panel" aria-labelledby="rehearsed">
      <h2 id="rehearsed">Readiness for the switch</h2>
      <p>
        <strong class={blockers.length === 0 ? "good" : "bad"}>
          {blockers.length > 0 ? "blocked" : warnings.length > 0 ? "ready, with warnings" : "ready"}
        </strong>{" "}
        at {new Date(at).toLocaleTimeString()}: applications could not write for about{" "}
        {duration(rehearsal.fenceSeconds)}.
      </p>
      <ul class="findings">
        {blockers.map((problem, n) => (
          <Problem key={n} severity="blocking" {...problem} />
        ))}
        {warnings.map((problem, n) => (
          <Problem key={n} severity="warning" {...problem} />
        ))}
      </ul>
      <details>
        <summary>Where the time goes</summary>
        <ul>
          {parts.map(({ step, seconds, basis }) => (
            <li key={step}>
              {step}: {duration(seconds)} ({basis})
            </li>
          ))}
        </ul>
      </details>
    </section>
  );
}

/** How many differing keys are shown of a table. */
const mostKeys = 20;

export function Verified({ verified }: Pick<SyncView, "verified">) {
  if (verified === null) return null;
  const { report, at } = verified;
  const different = report.tables.filter(({ differences }) => differences.length > 0);
  return (
    <section class="panel" aria-labelledby="verified">
      <h2 id="verified">Verify</h2>
      <p>
        <strong class={report.equal ? "good" : "bad"}>{report.equal ? "equal" : "different"}</strong> at{" "}
        {new Date(at).toLocaleTimeString()}: {count(report.tables.length, "table")} compared.
      </p>
      {different.map(({ table, differences }) => (
        <details key={table}>
          <summary>
            {table}: {count(differences.length, "differing row")}
          </summary>
          <ul>
            {differences.slice(0, mostKeys).map((difference, n) => (
              <li key={n}>
                <code>{JSON.stringify(difference.key)}</code> {difference.kind}
                {difference.columns.length > 0 && ` in ${difference.columns.join(", ")}`}
              </li>
            ))}
          </ul>
        </details>
      ))}
    </section>
  );
}
