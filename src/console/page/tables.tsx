/** All tables, to be searched and sorted. */
import { useState } from "preact/hooks";
import { bytes, count, number } from "../../text/format.ts";
import type { TableStatus } from "../protocol.ts";

/** More rows than that are not put into the page at once. */
const mostShown = 200;

type Order = "source" | "state" | "rows" | "bytes" | "pending";

export function Tables({ tables }: { tables: readonly TableStatus[] }) {
  const [search, setSearch] = useState("");
  const [order, setOrder] = useState<Order>("source");
  if (tables.length === 0) return null;
  const found = tables
    .filter(({ source, state }) => source.includes(search) || state === search)
    .toSorted((a, b) =>
      order === "source" || order === "state"
        ? a[order].localeCompare(b[order])
        : (b[order] ?? 0) - (a[order] ?? 0),
    );
  const head = (name: Order, text: string) => (
    <th scope="col" aria-sort={order === name ? (name === "source" || name === "state" ? "ascending" : "descending") : "none"}>
      <button type="button" onClick={() => setOrder(name)}>
        {text}
      </button>
    </th>
  ); // prettier-ignore
  return (
    <section class="panel" aria-labelledby="tables">
      <h2 id="tables">Tables</h2>
      {tables.length > 10 && (
        <label>
          Find{" "}
          <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
      )}
      <div class="scroll" tabIndex={0} role="region" aria-label="List of tables">
        <table>
          <thead>
            <tr>
              {head("source", "Table")}
              {head("state", "State")}
              {head("rows", "Rows")}
              {head("bytes", "Size")}
              {head("pending", "Waiting")}
            </tr>
          </thead>
          <tbody>
            {found.slice(0, mostShown).map((table) => (
              <tr key={table.source}>
                <th scope="row">
                  {table.source}
                  {table.source !== table.target && ` → ${table.target}`}
                  {table.parked > 0 && <em> {count(table.parked, "parked row")}</em>}
                  {table.reload !== null && <em> to be read again</em>}
                </th>
                <td>{table.state}</td>
                <td class="number">{number(table.rows)}</td>
                <td class="number">{bytes(table.bytes)}</td>
                <td class="number">{table.pending === null ? "?" : number(table.pending)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {found.length > mostShown && <p class="quiet">and {number(found.length - mostShown)} more</p>}
    </section>
  );
}
