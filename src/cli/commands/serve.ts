import { openHeard, type Command } from "../command.ts";

export const serve: Command = async (context) => {
  const { sync, listeners } = await openHeard(context);
  await using _sync = sync;
  const { serve: run } = await import("../listen.ts");
  await run(context, sync, listeners);
  return 0;
};
