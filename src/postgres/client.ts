/** What is used of the driver's client, in words of our own: the package's types are complete without those of the driver. */

export interface QueryResult<R = never> {
  readonly rows: R[];
  readonly rowCount: number | null;
  readonly fields: readonly {
    readonly name: string;
    readonly dataTypeID: number;
    readonly dataTypeModifier: number;
  }[];
}

export interface Client {
  readonly host: string;
  readonly port: number;
  readonly database?: string | undefined;
  readonly user?: string | undefined;
  on(event: "error", listener: (error: Error) => void): unknown;
  on(event: "end", listener: () => void): unknown;
  once(event: "end", listener: () => void): unknown;
  /** Several statements give an array of results. */
  query<R = never>(
    query: string | { readonly text: string; readonly values?: unknown[]; readonly rowMode?: "array" },
    values?: unknown[],
  ): Promise<QueryResult<R>>;
  /** A query that speaks the protocol by itself: `submit`. */
  query(query: { submit(connection: never): void }): void;
  end(): Promise<void>;
}
