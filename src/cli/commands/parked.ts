import { usageInvalid } from "../arguments.ts";
import { nextCommand, open, printResult, type Command } from "../command.ts";
import { count } from "../../text/format.ts";
import { toJson } from "../output.ts";

export const parked: Command = async (context) => {
  const { signal, values, output } = context;
  const ids = values.ids?.flatMap((each) => each.split(","));
  if (ids?.some((id) => !/^\d+$/.test(id)) === true)
    throw usageInvalid([{ subject: "--ids", message: "has to be numbers such as 3 5" }], "parked");
  await using sync = await open(context);
  const report = await sync.parked({
    signal,
    retry: values.retry === true,
    ...(values.tables === undefined ? {} : { tables: values.tables }),
    ...(ids === undefined ? {} : { ids: ids.map(Number) }),
  });
  printResult(context, report);
  const { rows, retried } = report;
  output.print(
    ...rows.flatMap(({ id, table, key, error, parkedAt, tries }) => [
      `${id}  ${table} ${toJson(key)}, since ${parkedAt}, tried ${count(tries, "time")}`,
      `    ${error}`,
    ]),
    `${count(rows.length, "row")} parked${retried === 0 ? "" : "; tried again with the next batches"}`,
  );
  if (rows.length > 0 && retried === 0)
    output.print(`when that is repaired: ${nextCommand(context, "parked --retry")}`);
  return 0;
};
