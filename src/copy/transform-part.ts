/** COPY from one server into another by way of the hook `transformRow`. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { RelayError, type RelayOptions, type RelayResult } from "../postgres/copy-relay.ts";
import { CopyFrames, FeedingScript, runScript, setFlow, tagCount } from "../postgres/script.ts";
import { QUERY_CANCELED, sqlstateOf } from "../postgres/sqlstate.ts";
import type { RowTransformer } from "../transform/transform-rows.ts";

/**
 * As `relayCopy`, with rows that become objects. Throws RelayError, HOOK_FAILED, ABORTED; the source session is cut then,
 * and the target's transaction aborted.
 */
export async function transformCopy(
  source: Connection,
  target: Connection,
  { read, write, signal, onProgress }: RelayOptions,
  transformer: RowTransformer,
): Promise<RelayResult> {
  if (signal.aborted) throw new ReplicateError("ABORTED", "stopped before the copy began");
  const feeding = new FeedingScript(target, write);
  const frames = new CopyFrames((frame) => feeding.send(frame));
  let failure: unknown;
  let bytes = 0;
  const rejection = feeding.done.then(() => undefined, (error: unknown) => new RelayError("target", error)); // prettier-ignore
  let rejected: RelayError | undefined;
  const cut = (): void => source.destroy();
  signal.addEventListener("abort", cut, { once: true });
  // Nobody reads the rest of the rows.
  void rejection.then((error) => {
    rejected = error;
    if (rejected !== undefined) cut();
  });
  try {
    await runScript(source, read, {
      onCopyData: (_, piece) => {
        if (failure !== undefined) return;
        try {
          const { data, rows } = transformer.add(piece);
          bytes += piece.length;
          onProgress?.(piece.length, rows);
          if (data.length > 0 && !frames.add(data)) {
            setFlow(source, false);
            void feeding.drained().then(() => setFlow(source, true));
          }
        } catch (error) {
          failure = error;
          cut();
        }
      },
    });
    if (failure !== undefined) throw failure;
    frames.end();
    const results = await feeding.done.catch((error: unknown) => {
      throw new RelayError("target", error);
    });
    return { rows: tagCount(results.find(({ tag }) => tag.startsWith("COPY "))), bytes };
  } catch (error) {
    cut();
    const earlier = rejected;
    feeding.fail("the source failed");
    const answer = await rejection;
    if (failure !== undefined) throw failure;
    if (signal.aborted) throw new ReplicateError("ABORTED", "stopped on request", { cause: error });
    // A target that rejects a row makes the source fail too; but our own end of its COPY is no rejection.
    if (earlier !== undefined) throw earlier;
    if (answer !== undefined && sqlstateOf(answer.cause) !== QUERY_CANCELED) throw answer;
    throw error instanceof RelayError ? error : new RelayError("source", error);
  } finally {
    signal.removeEventListener("abort", cut);
  }
}
