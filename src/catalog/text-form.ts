/**
 * Values to text and back, with the types' own functions for output and input alone. `value::text` and `text::type` run
 * whatever cast there is, and who owns a type may define one: it would run as our role, and need not be one to one.
 */

/** Types of the system's own: between them only a superuser can define casts. All others are qualified. */
export function isSystemType(type: string): boolean {
  return !type.includes(".");
}

/** An expression that is not null, as text. */
export function toText(value: string, type: string): string {
  return isSystemType(type) ? `(${value})::pg_catalog.text` : outputText(value);
}

/** The same for a type that is not known; a boolean is `t` or `f` then. */
export function outputText(value: string): string {
  return `pg_catalog.format('%s', ${value})`;
}

/** An expression that gives text, as a value of the type. */
export function fromText(text: string, type: string): string {
  if (isSystemType(type)) return `(${text})::${type}`;
  // A JSON string is read by the input function of whatever type the column has.
  return `(select x.v from pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('v', (${text})::pg_catalog.text)) as x (v ${type}))`;
}
