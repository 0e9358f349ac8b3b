/**
 * What a server says of an error, without the values of rows. Its DETAIL and CONTEXT hold them ("Failing row contains …",
 * "Key (email)=(…)", the line of a COPY), and of data exceptions the message itself. Decided by SQLSTATE and by what the
 * server sends in fields of their own, never by its words: servers speak the language of their lc_messages.
 */

/** What is used of the driver's error, or of GET STACKED DIAGNOSTICS. */
export interface ServerError {
  readonly message: string;
  readonly code?: string | undefined;
  readonly detail?: string | undefined;
  readonly column?: string | undefined;
  /** The server's function that raised it; never translated. */
  readonly routine?: string | undefined;
}

/** Class 22 in our words: messages of these quote the value. */
const dataWords: Readonly<Record<string, string>> = {
  "22003": "a number is out of the range of its type",
  "22007": "a date or time cannot be read as the column's type",
  "22008": "a date or time is out of the range of its type",
  "22P02": "a value cannot be read as the column's type",
  "22P03": "a value cannot be read from its binary form",
};

/** Messages of class 22 that name types, columns and lengths, or a single character's bytes, and no value. */
const valueless: ReadonlySet<string> = new Set([
  "22001",
  "22004",
  "22012",
  "22021",
  "22026",
  "22P04",
  "22P05",
]);

/** Classes whose DETAIL tells of objects, locks and servers, not of rows. */
const tellingDetails = /^(0[8A]|2[58BD]|3D|40|42|5[3578])/;

/** For these, the DETAIL begins with the columns that the constraint is about. */
const keyDetails: ReadonlySet<string> = new Set(["23503", "23505", "23514", "23P01"]);

/** For people: the message, or what stands for it, with the columns where only the DETAIL names them. */
export function saidBy(error: unknown): string {
  if (!isServerError(error)) {
    if (!(error instanceof Error)) return String(error);
    // An error of ours around the server's may repeat its words.
    return isServerError(error.cause) && error.message === error.cause.message
      ? saidBy(error.cause)
      : error.message;
  }
  const { code, detail = "" } = error;
  const words = messageOf(error);
  if (tellingDetails.test(code) && detail !== "") return `${words} (${detail})`;
  const columns = keyDetails.has(code) ? columnsIn(detail) : undefined;
  return columns === undefined ? words : `${words} (${columns})`;
}

/** What an enum's input function says; a label is missing on one side. */
export function isUnknownLabel(error: unknown): boolean {
  return (
    isServerError(error) &&
    error.code === "22P02" &&
    (error.routine === "enum_in" || error.routine === "enum_recv")
  );
}

function messageOf(error: ServerError & { readonly code: string }): string {
  const { code, message, column, routine } = error;
  // Of a function that raises it by itself the text is its author's.
  if (!code.startsWith("22") || valueless.has(code) || routine === "exec_stmt_raise") return message;
  const words = isUnknownLabel(error)
    ? "a value is no label of the column's enum"
    : (dataWords[code] ?? "a value does not fit the column's type");
  return column === undefined || column === "" ? words : `${words} (column ${column})`;
}

/** Of `Key (a, b)=(…)` what stands in the first parentheses, which translations leave where it is. */
function columnsIn(detail: string): string | undefined {
  const found = /^[^(]*\(((?:[^()"]|"(?:[^"]|"")*")+)\)\s*=\s*\(/.exec(detail);
  return found?.[1];
}

/** Of the context of a COPY which of our temporary tables it was, and which column of the key: `stage_7 k1`. */
export function stageIn(where: string | undefined): string | undefined {
  // Around the names the words are translated, and behind the column comes the value.
  const found = /\b(stage_\d+(?:_text)?)\b(?:[^:"'\u00AB\u00BB\u201E\u201C]*?\b(k\d+)\b)?/.exec(where ?? "");
  return found === null ? undefined : [found[1], found[2]].filter((each) => each !== undefined).join(" ");
}

function isServerError(error: unknown): error is ServerError & { readonly code: string } {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  return typeof message === "string" && typeof code === "string" && /^[0-9A-Z]{5}$/.test(code);
}

/**
 * The same error without values, to be kept as the cause of ours, which callers print and log as a whole. Other errors as
 * they are.
 */
export function withoutValues(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const inner = error.cause === undefined ? undefined : withoutValues(error.cause);
  if (!isServerError(error)) {
    if (inner === error.cause) return error;
    // An error of ours around the server's, which may repeat its words.
    return Object.assign(
      new Error(inner instanceof Error ? inner.message : error.message, { cause: inner }),
      {
        name: error.name,
      },
    );
  }
  const { code, severity, schema, table, column, dataType, constraint, routine, where } =
    error as unknown as Record<string, string | undefined>;
  const fields = {
    code,
    severity,
    schema,
    table,
    column,
    dataType,
    constraint,
    routine,
    where: stageIn(where),
  };
  const kept = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  return Object.assign(new Error(saidBy(error)), { name: error.name }, kept);
}
