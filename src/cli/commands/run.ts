import { open, printResult, type Command } from "../command.ts";
import { printCopy } from "./copy.ts";
import { applyBatches, printFollow, assertFinished } from "./follow.ts";
import { printInit } from "./init.ts";
import { printSchema } from "./schema.ts";

export const run: Command = async (context) => {
  const { signal, values, output } = context;
  await using sync = await open(context);
  const created = values.schema === true ? await sync.schema({ signal }) : undefined;
  if (created !== undefined) printSchema(context, created);
  const prepared = await sync.init({ signal });
  printInit(context, prepared);
  const copied = await sync.copy({
    signal,
    overwrite: values.overwrite === true,
    overwriteSource: values["overwrite-source"] === true,
    adopt: values.adopt === true,
  });
  output.endProgress();
  printCopy(context, copied);
  const followed = await applyBatches(sync, context);
  // What reads the tables can be filled now that they are equal.
  const filled =
    created !== undefined && values["until-caught-up"] === true && !signal.aborted
      ? await sync.schema({ section: "post-data", signal })
      : undefined;
  printResult(context, {
    ...(created === undefined ? {} : { schema: created }),
    init: prepared,
    copy: copied,
    follow: followed,
    ...(filled === undefined ? {} : { schemaAfter: filled }),
  });
  printFollow(context, followed);
  if (filled !== undefined) printSchema(context, filled);
  assertFinished(context, followed);
  return 0;
};
