/** Encodings, and collations: whether text arrives, and whether it sorts and compares as before. */
import { tableLabel } from "../catalog/table.ts";
import { ident, literal, load } from "../postgres/sql.ts";
import type { Examination } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";

/** As sql/preflight/locale returns it. */
export interface Locale {
  readonly encoding: string;
  readonly provider: string;
  readonly locale: string;
  readonly collate: string;
  readonly ctype: string;
  readonly version: string | null;
}

/** As sql/preflight/collations returns it. */
interface CollatedColumn {
  readonly relid: number;
  readonly column: string;
  readonly isUnique: boolean;
  readonly isRange: boolean;
  readonly isDefault: boolean;
  readonly collation: string;
  readonly provider: string;
  readonly locale: string | null;
  readonly isDeterministic: boolean;
}

export async function checkLocale({ source, target, servers, pairs }: Examination): Promise<Finding[]> {
  const [own, other] = await Promise.all([source.row<Locale>(load("preflight/locale")), target.row<Locale>(load("preflight/locale"))]); // prettier-ignore
  const [columns, others] = await Promise.all([
    source.rows<CollatedColumn>(load("preflight/collations"), [pairs.map((pair) => pair.source.oid)]),
    target.rows<CollatedColumn>(load("preflight/collations"), [pairs.map((pair) => pair.target.oid)]),
  ]);
  const anew = run("target", administrator, createDatabase(servers.target.database, own, other));
  return [
    ...encodingFindings(own, other, anew),
    ...orderFindings(own, other, columns, pairs, anew),
    ...collationFindings(columns, others, pairs),
  ];
}

type Remedy = ReturnType<typeof run>;

function encodingFindings(own: Locale, other: Locale, anew: Remedy): Finding[] {
  if (own.encoding === other.encoding) return [];
  const differs = `text is ${own.encoding} on the source and ${other.encoding} on the target`;
  if (own.encoding === "SQL_ASCII") {
    const message = `${differs}: bytes of the source that are no valid ${other.encoding} are rejected by the target`;
    return [{ severity: "warning", subject: "encoding", message, ...anew }];
  }
  if (other.encoding === "UTF8") return [];
  const message =
    other.encoding === "SQL_ASCII"
      ? `${differs}, which stores any bytes and knows no characters: lengths, order and upper case change`
      : `${differs}: characters that ${other.encoding} does not have are rejected by the target`;
  return [
    {
      severity: other.encoding === "SQL_ASCII" ? "warning" : "blocking",
      subject: "encoding",
      message,
      ...anew,
    },
  ];
}

/** A database cannot be given another order: it has to be made anew. */
function createDatabase(database: string, own: Locale, other: Locale): string {
  const encoding = other.encoding === "UTF8" ? "UTF8" : own.encoding;
  return `create database ${ident(database)} template template0 encoding ${literal(encoding)} lc_collate ${literal(own.collate)} lc_ctype ${literal(own.ctype)};  -- anew: the one that is there cannot be changed`;
}

/** The database's own order, which columns without COLLATE follow. */
function orderFindings(
  own: Locale,
  other: Locale,
  columns: readonly CollatedColumn[],
  pairs: readonly TablePair[],
  anew: Remedy,
): Finding[] {
  const affected = columns.filter(({ isDefault }) => isDefault);
  if (affected.length === 0) return [];
  const names = some(affected.map((each) => columnName(each, pairs)), 3); // prettier-ignore
  const isSame = own.provider === other.provider && plainLocale(own.locale) === plainLocale(other.locale);
  if (!isSame) {
    const ranged = affected.filter(({ isRange }) => isRange);
    const partitions =
      ranged.length === 0
        ? ""
        : `; rows may belong to other partitions by ${some(ranged.map((each) => columnName(each, pairs)), 3)}`; // prettier-ignore
    return [
      {
        severity: "warning",
        subject: "collation",
        message: `text sorts by ${own.locale} on the source and by ${other.locale} on the target; ${affected.length} columns in indexes are concerned (${names})${partitions}`,
        ...anew,
      },
    ];
  }
  if (own.version === null || other.version === null || own.version === other.version) return [];
  return [
    {
      severity: "note",
      subject: "collation",
      message: `${own.locale} is of version ${own.version} on the source and ${other.version} on the target: text may sort a little differently (${names}). Indexes are built anew, so they are right`,
    },
  ];
}

/** `en_US.UTF-8` and `en_US.utf8` are one. */
function plainLocale(locale: string): string {
  return locale
    .toLowerCase()
    .replaceAll("-", "")
    .replace(/^posix$/, "c");
}

/** Collations of the same name that are not the same. Other names are differences of the schema. */
function collationFindings(
  columns: readonly CollatedColumn[],
  others: readonly CollatedColumn[],
  pairs: readonly TablePair[],
): Finding[] {
  const findings = new Map<string, Finding>();
  for (const column of columns.filter(({ isDefault }) => !isDefault)) {
    const relid = pairs.find((pair) => pair.source.oid === column.relid)?.target.oid;
    const other = others.find((each) => each.relid === relid && each.column === column.column);
    if (other === undefined || other.collation !== column.collation) continue;
    const changes = [
      ...(column.provider === other.provider &&
      plainLocale(column.locale ?? "") === plainLocale(other.locale ?? "")
        ? []
        : [`its locale is ${column.locale} on the source and ${other.locale} on the target`]),
      ...(column.isDeterministic === other.isDeterministic
        ? []
        : [
            column.isDeterministic
              ? `on the target it takes different texts for equal${column.isUnique ? ", which a unique index then refuses" : ""}`
              : "on the target it does not take different texts for equal, as it does on the source",
          ]),
    ];
    if (changes.length === 0 || findings.has(column.collation)) continue;
    findings.set(column.collation, {
      severity: "warning",
      subject: `collation ${column.collation}`,
      message: `${changes.join("; ")} (${columnName(column, pairs)})`,
      ...run("target", administrator, replaceCollation(column)),
    });
  }
  return [...findings.values()];
}

function replaceCollation({ collation, provider, locale, isDeterministic }: CollatedColumn): string {
  const options = [
    `provider = ${provider === "i" ? "icu" : provider === "b" ? "builtin" : "libc"}`,
    `locale = ${literal(locale)}`,
    ...(isDeterministic ? [] : ["deterministic = false"]),
  ];
  return [
    `alter collation ${collation} rename to replaced;`,
    `create collation ${collation} (${options.join(", ")});`,
    "-- then, for each column that used it: alter table … alter column … type text collate …",
  ].join("\n");
}

function columnName({ relid, column }: CollatedColumn, pairs: readonly TablePair[]): string {
  const table = pairs.find((pair) => pair.source.oid === relid)?.source;
  return table === undefined ? column : `${tableLabel(table)}.${column}`;
}
