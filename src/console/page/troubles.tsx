/** What is wrong or waits for somebody, each with what to do. */
import type { ComponentChildren } from "preact";
import { bytes, count, duration } from "../../text/format.ts";
import type { SyncView } from "../protocol.ts";

export function Troubles({ view: { status } }: { view: SyncView }) {
  if (status === null) return null;
  const items: ComponentChildren[] = [];
  const { lastError, upkeep, waits, held, conflicts, parked, notReplicated, lag, fence, phase } = status;
  // After a switch that is what the old side is meant to do.
  if (fence !== null && phase === "fenced")
    items.push(
      <>
        <strong>The {fence.side} refuses writes of applications</strong> since{" "}
        {new Date(fence.since).toLocaleString()}.
      </>,
    );
  if (lastError !== null && !lastError.cleared)
    items.push(
      <>
        <strong>{lastError.code}</strong>: {lastError.message}
        <pre class="hint">{lastError.hint}</pre>
      </>,
    );
  if (upkeep !== null)
    items.push(
      <>
        Maintenance is postponed: {upkeep.message}
        <pre class="hint">{upkeep.hint}</pre>
      </>,
    );
  for (const wait of waits)
    items.push(
      <>
        <strong>{wait.session}</strong> waits on the {wait.side}
        {wait.seconds !== null && ` for ${duration(wait.seconds)}`} for a lock on {wait.what}
        {wait.blockedBy !== null && `; held by ${wait.blockedBy}`}.
      </>,
    );
  if (lag.blockedBy !== null) items.push(<>Held up by {lag.blockedBy}.</>);
  for (const each of held)
    items.push(
      <>
        Sync {each.sync} has taken nothing since {new Date(each.since).toLocaleString()}: the source keeps{" "}
        {bytes(each.bytes)} of changes for it. <code>{each.giveUp}</code> gives it up.
      </>,
    );
  if (conflicts > 0)
    items.push(
      <>
        {count(conflicts, "conflict")} to be resolved: <code>replicate conflicts --pending</code>
      </>,
    );
  if (parked > 0)
    items.push(
      <>
        {count(parked, "row")} that the target rejects: <code>replicate parked</code>
      </>,
    );
  if (notReplicated.length > 0)
    items.push(
      <>
        Not replicated, as created after init: {notReplicated.slice(0, 20).join(", ")}
        {notReplicated.length > 20 && ` and ${notReplicated.length - 20} more`}.
      </>,
    );
  if (items.length === 0) return null;
  return (
    <section class="panel troubles" aria-labelledby="troubles">
      <h2 id="troubles">Look at this</h2>
      <ul>
        {items.map((item, n) => (
          <li key={n}>{item}</li>
        ))}
      </ul>
    </section>
  );
}
