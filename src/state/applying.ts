/** Sessions that apply a two-way sync: captures leave out what they change, and nobody else can pass for one. */
import { randomUUID } from "node:crypto";
import { APPLYING } from "../catalog/delta.ts";
import type { Connection } from "../postgres/connect.ts";
import { fill, literal } from "../postgres/sql.ts";

/** To be called again for a session that was there before the state that it is recorded in. */
export async function declareApplying(session: Connection): Promise<void> {
  const token = literal(randomUUID());
  await session.script(fill("state/declare-applying", { token }));
  await session.script(`set ${APPLYING} = ${token}`);
}
