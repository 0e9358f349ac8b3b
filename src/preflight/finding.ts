/** What a check says: how bad it is, what it is about, why, and the statement that repairs it. */
import { problemsError, type Problem } from "../errors.ts";
import type { Side } from "../events.ts";

/**
 * blocking: the sync cannot start or cannot end well; what init itself would trip over makes it refuse. warning:
 * something is not replicated, or may surprise. note: good to know.
 */
export type Severity = "blocking" | "warning" | "note";

export interface Finding extends Problem {
  readonly severity: Severity;
  /** Where the remedy is to be run, when it is SQL. */
  readonly side?: Side;
  /** Who may run it: a role of that side, or `administrator`. */
  readonly role?: string;
  /** Every table that the finding is about, where there are several. */
  readonly subjects?: readonly string[];
}

/** A finding before it is told. */
export interface RawFinding extends Finding {
  /** The subject is a table of the source, and others may have the same finding (see `gather`). */
  readonly isOfTable?: boolean;
}

/** A superuser, or the role that a provider gives instead of one. */
export const administrator = "an administrator";

/** A remedy in SQL, which can be pasted into psql as it is. */
export function run(
  side: Side,
  role: string,
  ...statements: readonly string[]
): { readonly remedy: string; readonly side: Side; readonly role: string } {
  return { remedy: [`-- on the ${side}, as ${role}`, ...statements].join("\n"), side, role };
}

/** The first few of many names. */
export function some(names: readonly string[], most = 5): string {
  const rest = names.length - most;
  return rest > 1 ? `${names.slice(0, most).join(", ")} and ${rest} more` : names.join(", ");
}

/** Throws PREFLIGHT_BLOCKED when a finding is blocking. */
export function assertNoneBlocking(findings: readonly Finding[]): void {
  const blocking = findings.filter((finding) => finding.severity === "blocking");
  if (blocking.length === 0) return;
  const count = `${blocking.length} finding${blocking.length > 1 ? "s" : ""}`;
  throw problemsError("PREFLIGHT_BLOCKED", `${count} must be settled first`, blocking);
}
