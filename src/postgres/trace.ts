/**
 * Tells of every statement that a session runs: which, how long, how many rows. For who looks for what takes its time, in a
 * log that may be sent to others: no value of a row and no secret is told, so all that is not a word of SQL or a name is
 * left out.
 */
import { sqlstateOf } from "./sqlstate.ts";

export interface TracedStatement {
  /** One line, without comments; literals are `'…'` and `?`. */
  readonly text: string;
  readonly milliseconds: number;
  /** Rows of all statements of a script together. */
  readonly rows: number;
  /** SQLSTATE, or "lost" where the session broke. The server's words may have values in them. */
  readonly error?: string;
}

const MAX_READ = 20_000;
const MAX_SHOWN = 2000;

/** What has no end is taken to go on to the end of the text: nothing is shown by mistake. */
const tokens = new RegExp(
  [
    /(?<comment>--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))/,
    /(?<text>[eE]'[^'\\]*(?:(?:''|\\[\s\S])[^'\\]*)*(?:'|\\?$)|'[^']*(?:''[^']*)*(?:'|$))/,
    /(?<body>\$(?<tag>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$[\s\S]*?(?:\$\k<tag>\$|$))/,
    /(?<name>"[^"]*(?:""[^"]*)*(?:"|$)|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|\$\d+)/,
    /(?<number>\d[\w.]*)/,
    /(?<space>\s+)/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "g",
);

/** A statement as it may be shown: without comments and without any literal. */
export function withoutValues(statement: string): string {
  const shown = statement.slice(0, MAX_READ).replaceAll(tokens, (token: string, ...rest: unknown[]) => {
    const groups = rest.at(-1) as Readonly<Record<string, string | undefined>>;
    if (groups["text"] !== undefined) return "'…'";
    if (groups["body"] !== undefined) return "$…$";
    if (groups["number"] !== undefined) return "?";
    return groups["name"] === undefined ? " " : token;
  });
  const line = shown.replaceAll(/ {2,}/g, " ").trim();
  return line.length > MAX_SHOWN || statement.length > MAX_READ ? `${line.slice(0, MAX_SHOWN)}…` : line;
}

/** What the driver calls of a query that speaks the protocol by itself. */
interface Submittable {
  readonly text: string;
  submit(connection: never): unknown;
  handleCommandComplete(message: { text: string }, ...more: unknown[]): void;
  handleError(error: unknown, ...more: unknown[]): void;
  handleReadyForQuery(...values: unknown[]): void;
}

interface Result {
  readonly rowCount: number | null;
}

type Query = (query: string | { readonly text: string } | Submittable, ...more: unknown[]) => unknown;

/** Has `tell` called at the end of each statement of a client that is not connected yet. */
export function traceStatements(
  driver: { readonly query: unknown },
  tell: (statement: TracedStatement) => void,
): void {
  const client = driver as { query: Query };
  const run = client.query.bind(driver);
  client.query = (query, ...more) => {
    const startedAt = performance.now();
    const end = (rows: number, error?: unknown): void => {
      tell({
        text: withoutValues(typeof query === "string" ? query : query.text),
        milliseconds: Math.round((performance.now() - startedAt) * 10) / 10,
        rows,
        ...(error === undefined ? {} : { error: sqlstateOf(error) ?? "lost" }),
      });
    };
    if (typeof query === "object" && "submit" in query) {
      listenTo(query, end);
      return run(query, ...more);
    }
    const answer = run(query, ...more) as Promise<Result | Result[]>;
    answer.then(
      (results) => end([results].flat().reduce((sum, { rowCount }) => sum + (rowCount ?? 0), 0)),
      (error: unknown) => end(0, error),
    );
    return answer;
  };
}

function listenTo(query: Submittable, end: (rows: number, error?: unknown) => void): void {
  const complete = query.handleCommandComplete.bind(query);
  const fail = query.handleError.bind(query);
  const ready = query.handleReadyForQuery.bind(query);
  let rows = 0;
  query.handleCommandComplete = (message, ...more) => {
    rows += Number(/\d+$/.exec(message.text)?.[0] ?? 0);
    complete(message, ...more);
  };
  query.handleError = (error, ...more) => {
    end(rows, error);
    fail(error, ...more);
  };
  query.handleReadyForQuery = (...values) => {
    end(rows);
    ready(...values);
  };
}
