import { expect, test } from "vitest";
import { asReplicateError } from "../../../src/postgres/sqlstate.ts";

// Servers speak the language of lc_messages: what is known of an error is its code, its routine and the names in it.

const tables = [
  { schema: "app", name: "order" },
  { schema: "app", name: "order_line" },
  { schema: "Über", name: 'odd "name' },
  { schema: "app", name: "line" },
];

const denied = (message: string, routine = "aclcheck_error"): Error =>
  Object.assign(new Error(message), { code: "42501", routine });

test.each([
  ["permission denied for table order_line", 'table "app"."order_line"'],
  ["keine Berechtigung für Tabelle order", 'table "app"."order"'],
  ["droit refusé pour la table « line »", 'table "app"."line"'],
  ["テーブルorder_lineへのアクセスが拒否されました", 'table "app"."order_line"'],
  ['отказано в доступе к таблице odd "name', 'table "Über"."odd ""name"'],
])("a privilege that is missing: %s", (message, named) => {
  const { code, hint } = asReplicateError(denied(message), "follow", tables);
  expect(code).toBe("PERMISSION_DENIED");
  expect(hint).toContain("replicate preflight");
  expect(hint).toContain(`grant all on ${named} to`);
});

test.each([
  "keine Berechtigung für Schema orders",
  "permission denied for relation reorder",
  "permission denied",
])("what is not known is not named: %s", (message) => {
  const { hint } = asReplicateError(denied(message), "follow", tables);
  expect(hint).toContain("replicate preflight");
  expect(hint).not.toContain("grant all");
});

test("a publication that cannot tell rows apart, and rows that are hidden", () => {
  const publication = Object.assign(
    new Error("kann Tabelle »order« nicht aktualisieren, weil sie keine Replikatidentität hat"),
    { code: "55000", routine: "CheckCmdReplicaIdentity" },
  );
  expect(asReplicateError(publication, "follow", tables).hint).toContain(
    'alter table "app"."order" replica identity full',
  );
  const hidden = denied(
    "Anfrage würde von Policy für Sicherheit auf Zeilenebene betroffen sein",
    "check_enable_rls",
  );
  expect(asReplicateError(hidden, "follow", tables)).toMatchObject({
    code: "ROWS_HIDDEN",
    hint: expect.stringContaining("no force row level security") as string,
  });
});
