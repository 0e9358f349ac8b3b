/** Tables without a key: refused with every way out, or read again as a whole where the settings say so. */
import { tableBytes, tableLabel, tableSql, type Table } from "../catalog/table.ts";
import type { KeylessPolicy } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { run, type RawFinding } from "./finding.ts";

export function checkKeyless(
  table: Table,
  source: Connection,
  policy: KeylessPolicy,
  limitBytes: number,
): RawFinding[] {
  if (table.key !== null) return [];
  const subject = tableLabel(table);
  if (policy === "reload") {
    const size = megabytes(tableBytes(table));
    const isLarge = tableBytes(table) > limitBytes;
    const message = isLarge
      ? `has no key and ${size}, more than keylessLimit (${megabytes(limitBytes)}): its changes wait for the cutover, which reads it again as a whole while nobody can write`
      : `has no key: it is read again as a whole (${size}) when it has changed`;
    return [{ severity: isLarge ? "warning" : "note", subject, message, isOfTable: true }];
  }
  const isPerPartition = table.kind === "p" && source.version < 110_000;
  return [
    {
      severity: "blocking",
      subject,
      isOfTable: true,
      message: isPerPartition
        ? "has no key: on version 10, each partition needs a unique index on the same NOT NULL columns, those of the partition bounds among them"
        : "has no key: no primary key, and no unique index on NOT NULL columns",
      ...run(
        "source",
        table.owner,
        ...(isPerPartition ? table.leaves : [table]).map(
          (each) => `alter table ${tableSql(each)} add primary key (…);`,
        ),
        `-- or leave the table out: --exclude-tables '${subject}'`,
        `-- or have it read again as a whole when it changes: --keyless reload`,
      ),
    },
  ];
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024 ** 2)} MB`;
}
