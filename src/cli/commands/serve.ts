import { openHeard, type Command } from "../command.ts";

export const serve: Command = async (context) => {
  await using sync = await openHeard(context);
  const { serve: run } = await import("../listen.ts");
  await run(context, sync);
  return 0;
};
