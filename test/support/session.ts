import type pg from "pg";

/** One connection, opened by the first query, and again after the server has gone away. */
export class Session {
  readonly #open: () => Promise<pg.Client>;
  #client: Promise<pg.Client> | undefined;

  constructor(open: () => Promise<pg.Client>) {
    this.#open = open;
  }

  /** Without parameters the text may hold several statements; the last one's rows are returned. */
  async query<Row extends pg.QueryResultRow>(text: string, params?: unknown[]): Promise<Row[]> {
    this.#client ??= this.#open();
    try {
      const client = await this.#client;
      // Several statements give a list of results, which the driver's types do not tell.
      const result = (await (params === undefined ? client.query(text) : client.query(text, params))) as
        pg.QueryResult<Row> | pg.QueryResult<Row>[];
      return (Array.isArray(result) ? result.at(-1)?.rows : result.rows) ?? [];
    } catch (error) {
      if (endsConnection(error)) this.#client = undefined;
      throw error;
    }
  }
}

function endsConnection(error: unknown): boolean {
  const { severity, code } = error as { severity?: unknown; code?: unknown };
  // What the server reports carries a severity; anything else is the connection's own failure.
  return typeof severity !== "string" || severity === "FATAL" || /^(57P|08)/.test(String(code));
}
