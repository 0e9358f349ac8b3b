import { open, printResult, type Command } from "../command.ts";
import { printCopy } from "./copy.ts";
import { applyBatches, printFollow } from "./follow.ts";
import { printInit } from "./init.ts";

export const run: Command = async (context) => {
  const { signal, values, output } = context;
  await using sync = await open(context);
  const prepared = await sync.init({ signal });
  printInit(context, prepared);
  const copied = await sync.copy({
    signal,
    overwrite: values.overwrite === true,
    adopt: values.adopt === true,
  });
  output.endProgress();
  printCopy(context, copied);
  const followed = await applyBatches(sync, context);
  printResult(context, { init: prepared, copy: copied, follow: followed });
  printFollow(context, followed);
  return 0;
};
