/** What has to be done to the target's columns so that they follow those of the source. Pure. */
import { normalise } from "../../catalog/expression-text.ts";
import type { ColumnDefinition, SequenceDefinition } from "../../catalog/table-definition.ts";
import { ident, literal, qualified } from "../../postgres/sql.ts";
import { rank, type Step, type Travel } from "./steps.ts";

/** A column of the target as it will be. */
export interface FutureColumn extends ColumnDefinition {
  /** It has been added, or has got another type, and is now as the source's column of its name. */
  readonly isMade: boolean;
  /** The value that rows from before have got in it, see sql/catalog/missing-values. */
  readonly filled?: string;
}

/** Generated columns since this version, those that are not stored since the other. */
const GENERATED_SINCE = 120_000;
const VIRTUAL_SINCE = 180_000;
const DROP_EXPRESSION_SINCE = 130_000;
const SET_EXPRESSION_SINCE = 170_000;
const COMPRESSION_SINCE = 140_000;

const storages: Readonly<Record<string, string>> = { p: "plain", e: "external", m: "main", x: "extended" };

export class ColumnsTravel {
  readonly #travel: Travel;
  readonly #table: string;
  #columns: FutureColumn[];
  readonly steps: Step[] = [];
  /** Changes that are not made, because what they would change is another one on the target. */
  readonly left: string[] = [];

  constructor(travel: Travel) {
    this.#travel = travel;
    this.#table = qualified(travel.target.schema, travel.target.name);
    this.#columns = travel.target.columns.map((column) => ({ ...column, isMade: false }));
  }

  /** The target's columns once all is done. */
  get columns(): readonly FutureColumn[] {
    return this.#columns;
  }

  make(): this {
    const { before, now } = this.#travel;
    const was = new Map(before.columns.map((column) => [column.attnum, column]));
    const is = new Map(now.columns.map((column) => [column.attnum, column]));
    for (const column of before.columns) if (!is.has(column.attnum)) this.#drop(column);
    this.#rename(
      now.columns.flatMap((column) => {
        const former = was.get(column.attnum)?.name;
        return former === undefined || former === column.name ? [] : [{ from: former, to: column.name }];
      }),
    );
    for (const column of now.columns) {
      const former = was.get(column.attnum);
      if (former === undefined) this.#add(column);
      else this.#change(former, column);
    }
    return this;
  }

  #step(when: Step["when"], order: number, sql: string): void {
    this.steps.push({ when, rank: order, sql });
  }

  #alter(when: Step["when"], order: number, action: string): void {
    this.#step(when, order, `alter table ${this.#table} ${action}`);
  }

  #find(name: string): FutureColumn | undefined {
    return this.#columns.find((column) => column.name === name);
  }

  #set(name: string, change: Partial<FutureColumn>): void {
    this.#columns = this.#columns.map((column) => (column.name === name ? { ...column, ...change } : column));
  }

  #drop({ name }: ColumnDefinition): void {
    const there = this.#find(name);
    const known = this.#travel.targetNumbers.get(name);
    // Somebody has put another one into its place already.
    if (there === undefined || (known !== undefined && known !== there.attnum)) return;
    this.#alter("before", rank.drop, `drop column ${ident(name)}`);
    this.#columns = this.#columns.filter((column) => column !== there);
  }

  /** Columns may have exchanged their names. */
  #rename(all: readonly { readonly from: string; readonly to: string }[]): void {
    // Where both names are there, somebody has done it, or the name was another column's.
    let moves = all.filter(
      ({ from, to }) =>
        this.#find(from) !== undefined &&
        (this.#find(to) === undefined || all.some((other) => other.from === to)),
    );
    const isDone = ({ from, to }: { from: string; to: string }): boolean => {
      const [known, there] = [this.#travel.targetNumbers.get(from), this.#find(to)];
      return known !== undefined && there?.attnum === known;
    };
    moves = moves.filter((move) => !isDone(move));
    while (moves.length > 0) {
      const free = moves.find(({ to }) => this.#find(to) === undefined);
      const [first] = moves;
      if (first === undefined) return;
      if (free !== undefined) {
        this.#renameTo(free.from, free.to);
        moves = moves.filter((move) => move !== free);
      } else {
        const aside = `replicate_aside_${moves.length}`;
        this.#renameTo(first.from, aside);
        moves = [...moves.slice(1), { from: aside, to: first.to }];
      }
    }
  }

  #renameTo(from: string, to: string): void {
    this.#alter("before", rank.rename, `rename column ${ident(from)} to ${ident(to)}`);
    this.#set(from, { name: to });
  }

  #add(column: ColumnDefinition): void {
    const { name } = column;
    const { version, missing } = this.#travel;
    // What is wrong with one that is there is seen when all is compared.
    if (this.#find(name) !== undefined || column.isInherited) return;
    const definition = `add column ${ident(name)} ${column.type}${column.collation === null ? "" : ` collate ${column.collation}`}`;
    const attnum = 1 + Math.max(...this.#columns.map((each) => each.attnum), 1600);
    const added: FutureColumn = { ...column, attnum, isMade: true };
    if (column.generated !== "") {
      // The target may do without what the source only computes.
      if (version < GENERATED_SINCE) return;
      this.#alter("before", rank.change, `${definition} ${this.#generated(column)}`);
      this.#columns = [...this.#columns, added];
      this.#describe(column, undefined);
      return;
    }
    const value = missing.get(name);
    if (value === undefined) {
      // Nothing is evaluated here: rows from before are null, on the source too, or the table is read again.
      this.#alter("before", rank.change, definition);
      this.#columns = [...this.#columns, added];
    } else {
      const filled = ` default ${literal(value.text)}::${column.type}`;
      this.#alter("before", rank.change, `${definition}${filled}${column.notNull ? " not null" : ""}`);
      this.#columns = [...this.#columns, { ...added, filled: value.array }];
      if (column.default === null)
        this.#alter("before", rank.default, `alter column ${ident(name)} drop default`);
    }
    if (column.identity !== "") {
      this.#alter("after", rank.notNull, `alter column ${ident(name)} set not null`);
      this.#alter("after", rank.identity, `alter column ${ident(name)} add ${identitySql(column)}`);
    } else {
      this.#sequence(column);
      if (column.default !== null && column.default !== `${literal(value?.text ?? "")}::${column.type}`)
        this.#alter("before", rank.default, `alter column ${ident(name)} set default ${column.default}`);
      if (column.notNull && value === undefined)
        this.#alter("after", rank.notNull, `alter column ${ident(name)} set not null`);
    }
    this.#describe(column, undefined);
  }

  /** That of a serial column. */
  #sequence({ name, sequence, identity, default: expression }: ColumnDefinition): void {
    if (sequence === null || identity !== "" || expression === null) return;
    const as = qualified(sequence.schema, sequence.name);
    this.#step("before", rank.sequence, `create sequence if not exists ${as} as ${sequenceSql(sequence)}`);
    this.#step("before", rank.owner, `alter sequence ${as} owned by ${this.#table}.${ident(name)}`);
  }

  #change(was: ColumnDefinition, is: ColumnDefinition): void {
    const there = this.#find(is.name);
    if (there === undefined || is.isInherited) return;
    const name = ident(is.name);
    const isRetyped = this.#retype(was, is, there);
    if (was.generated !== is.generated || (is.generated !== "" && was.default !== is.default))
      this.#regenerate(is, there);
    else if (is.generated === "" && !isRetyped && was.default !== is.default) {
      const same = (one: string | null, other: string | null): boolean =>
        one === other || (one !== null && other !== null && normalise(one) === normalise(other));
      if (!same(there.default, is.default)) {
        if (same(there.default, was.default)) {
          if (was.sequence?.name !== is.sequence?.name) this.#sequence(is);
          this.#alter(
            "before",
            rank.default,
            `alter column ${name} ${is.default === null ? "drop default" : `set default ${is.default}`}`,
          );
        } else this.left.push(`the default of column ${name}, which is another one on the target`);
      }
    }
    if (was.identity !== is.identity && there.identity !== is.identity) {
      if (is.identity === "")
        this.#alter("before", rank.default, `alter column ${name} drop identity if exists`);
      else if (there.identity === "")
        this.#alter("after", rank.identity, `alter column ${name} add ${identitySql(is)}`);
      else
        this.#alter(
          "after",
          rank.identity,
          `alter column ${name} set generated ${is.identity === "a" ? "always" : "by default"}`,
        );
      this.#set(is.name, { identity: is.identity });
    }
    if (was.notNull !== is.notNull && there.notNull !== is.notNull) {
      if (!is.notNull) this.#alter("before", rank.notNull, `alter column ${name} drop not null`);
      else if (!isRetyped) this.#alter("after", rank.notNull, `alter column ${name} set not null`);
      this.#set(is.name, { notNull: is.notNull });
    }
    this.#describe(is, was);
  }

  /** True where the column gets another type. */
  #retype(was: ColumnDefinition, is: ColumnDefinition, there: FutureColumn): boolean {
    const typeOf = (column: ColumnDefinition): string => `${column.type} ${column.collation ?? ""}`;
    if (typeOf(was) === typeOf(is) || typeOf(there) === typeOf(is)) return false;
    // What differs already is told when all is compared.
    if (typeOf(there) !== typeOf(was) || is.generated !== "") return false;
    const name = ident(is.name);
    const type = `${is.type}${is.collation === null ? "" : ` collate ${is.collation}`}`;
    const isKept = there.baseType === is.baseType || keepsText(there.baseType, is.baseType);
    const isKey = this.#travel.keyColumns.includes(is.name);
    // Where values change, the rows are read again, and what stands here meanwhile does not matter: a cast that is not the
    // system's own is never called, and one that refuses a value is none.
    const isCast = isKept || isKey || widens(there.baseType, is.baseType);
    const actions = [
      ...(there.default === null ? [] : [`alter column ${name} drop default`]),
      ...(isCast || !there.notNull ? [] : [`alter column ${name} drop not null`]),
      `alter column ${name} type ${type}${isKept ? "" : ` using ${isCast ? `${name}::${is.type}` : `null::${is.type}`}`}`,
    ];
    this.#alter("before", rank.change, actions.join(", "));
    if (is.default !== null) {
      if (was.sequence?.name !== is.sequence?.name) this.#sequence(is);
      this.#alter("before", rank.default, `alter column ${name} set default ${is.default}`);
    }
    const { sequence } = is;
    if (sequence !== null && was.sequence !== null && sequence.type !== was.sequence.type)
      this.#step(
        "before",
        rank.sequence,
        `alter sequence ${qualified(sequence.schema, sequence.name)} as ${sequence.type}`,
      );
    if (!isCast && is.notNull) this.#alter("after", rank.notNull, `alter column ${name} set not null`);
    const { type: _, ...rest } = is;
    this.#set(is.name, {
      ...rest,
      type: is.type,
      attnum: there.attnum,
      notNull: is.notNull,
      identity: there.identity,
      generated: there.generated,
      isMade: true,
    });
    return true;
  }

  #generated({ default: expression, generated }: ColumnDefinition): string {
    const isVirtual = generated === "v" && this.#travel.version >= VIRTUAL_SINCE;
    return `generated always as (${expression ?? ""}) ${isVirtual ? "virtual" : "stored"}`;
  }

  #regenerate(is: ColumnDefinition, there: FutureColumn): void {
    const { version } = this.#travel;
    const name = ident(is.name);
    if (there.generated === is.generated && normalise(there.default ?? "") === normalise(is.default ?? ""))
      return;
    const isStored = there.generated === "s";
    if (is.generated === "") {
      if (there.generated === "" || version < GENERATED_SINCE) return;
      if (isStored && version >= DROP_EXPRESSION_SINCE)
        this.#alter("before", rank.change, `alter column ${name} drop expression`);
      else this.#alter("before", rank.change, `drop column ${name}, add column ${name} ${is.type}`);
      if (is.default !== null)
        this.#alter("before", rank.default, `alter column ${name} set default ${is.default}`);
    } else if (there.generated !== "" && version >= SET_EXPRESSION_SINCE && there.generated === is.generated)
      this.#alter("before", rank.change, `alter column ${name} set expression as (${is.default ?? ""})`);
    else
      this.#alter(
        "before",
        rank.change,
        `drop column ${name}, add column ${name} ${is.type} ${this.#generated(is)}`,
      );
    this.#set(is.name, { generated: is.generated, default: is.default });
  }

  /** What rows do not depend on. */
  #describe(is: ColumnDefinition, was: ColumnDefinition | undefined): void {
    const name = ident(is.name);
    if (is.storage !== (was?.storage ?? null) && is.storage !== null)
      this.#alter(
        "before",
        rank.mark,
        `alter column ${name} set storage ${storages[is.storage] ?? "extended"}`,
      );
    if (is.statistics !== (was?.statistics ?? null))
      this.#alter("before", rank.mark, `alter column ${name} set statistics ${is.statistics ?? -1}`);
    const compression = is.compression === "l" ? "lz4" : is.compression === "p" ? "pglz" : "default";
    if (is.compression !== (was?.compression ?? null) && this.#travel.version >= COMPRESSION_SINCE)
      this.#alter("before", rank.mark, `alter column ${name} set compression ${compression}`);
    if (is.comment !== (was?.comment ?? null))
      this.#step(
        "before",
        rank.mark,
        `comment on column ${this.#table}.${name} is ${is.comment === null ? "null" : literal(is.comment)}`,
      );
  }
}

function identitySql({ identity, sequence }: ColumnDefinition): string {
  const kind = identity === "a" ? "always" : "by default";
  if (sequence === null) return `generated ${kind} as identity`;
  const { type: _, ...options } = sequence;
  return `generated ${kind} as identity (sequence name ${qualified(sequence.schema, sequence.name)} ${optionsSql(options)})`;
}

function sequenceSql({ type, ...options }: SequenceDefinition): string {
  return `${type} ${optionsSql(options)}`;
}

function optionsSql(sequence: Omit<SequenceDefinition, "type">): string {
  const { start, increment, min, max, cache, cycle } = sequence;
  return `increment by ${increment} minvalue ${min} maxvalue ${max} start with ${start} cache ${cache}${cycle ? " cycle" : " no cycle"}`;
}

/** Types that hold the same bytes: nothing is rewritten. */
function keepsText(from: string, to: string): boolean {
  const textual = ["text", "character varying"];
  return textual.includes(from) && textual.includes(to);
}

const widening: Readonly<Record<string, readonly string[]>> = {
  smallint: ["integer", "bigint", "numeric"],
  integer: ["bigint", "numeric"],
  bigint: ["numeric"],
  real: ["double precision"],
};

/** The system's own cast, which refuses nothing. */
function widens(from: string, to: string): boolean {
  return widening[from]?.includes(to) === true;
}
