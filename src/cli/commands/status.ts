import { setTimeout as sleep } from "node:timers/promises";
import { ReplicateError, type Status } from "../../index.ts";
import { open, printResult, wasStopped, type Command } from "../command.ts";
import { statusLines } from "../status-text.ts";

const watchMs = 2000;

export const status: Command = async (context) => {
  const { values, signal, output } = context;
  await using sync = await open(context);
  if (values.watch !== true) {
    const found = await sync.status({ signal });
    printResult(context, found);
    output.print(...statusLines(found, new Date()));
    return 0;
  }
  while (!signal.aborted) {
    const show = (found: Status | ReplicateError): void => {
      if (found instanceof ReplicateError) {
        if (output.json)
          output.line({ error: { code: found.code, message: found.message, hint: found.hint } });
        else output.redraw([`error ${found.code}: ${found.message}`, "trying again"]);
      } else if (output.json) {
        output.line(found);
      } else {
        output.redraw([
          ...statusLines(found, new Date()),
          "",
          `${new Date().toISOString()}, every ${watchMs / 1000} s`,
        ]);
      }
    };
    try {
      show(await sync.status({ signal }));
    } catch (error) {
      // A server that is away for a moment is what one watches for.
      if (wasStopped(error, signal)) break;
      if (!(error instanceof ReplicateError) || error.retry !== "now") throw error;
      show(error);
    }
    await sleep(watchMs, undefined, { signal }).catch(() => undefined);
  }
  return 0;
};
