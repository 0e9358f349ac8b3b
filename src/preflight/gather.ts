/** Findings that say the same of several tables become one, so that an empty target is one thing to settle and not hundreds. */
import { some, type Finding, type RawFinding } from "./finding.ts";

/** From so many tables on: two are as well read by themselves. */
const leastTables = 3;
/** How many names a subject shows; `subjects` has all. */
const mostNames = 10;

const leaveOut = /^-- or leave the table out: --exclude-tables (.*)$/;

/** The findings in their order, each where the first of those stood that it stands for. */
export function gather(findings: readonly RawFinding[]): Finding[] {
  const groups = new Map<string, RawFinding[]>();
  for (const finding of findings) {
    const { severity, message, side, role, subject, isOfTable } = finding;
    const key = JSON.stringify([severity, message, side, role, isOfTable === true ? null : subject]);
    groups.set(key, [...(groups.get(key) ?? []), finding]);
  }
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    const shown = group.map(told);
    return group.length < leastTables || first.isOfTable !== true ? shown : together(shown);
  });
}

function together(group: readonly Finding[]): Finding[] {
  const [first] = group;
  if (first === undefined) return [];
  const subjects = group.map(({ subject }) => subject);
  const remedies = group.flatMap(({ remedy }) => (remedy === undefined ? [] : [remedy.split("\n")]));
  return [
    {
      ...first,
      subject: `${subjects.length} tables (${some(subjects, mostNames)})`,
      message: `each ${first.message}`,
      subjects,
      ...(remedies.length === 0 ? {} : { remedy: joined(remedies).join("\n") }),
    },
  ];
}

/** What all say is said once; what each says of its own table, for each. */
function joined(remedies: readonly (readonly string[])[]): string[] {
  const [first = []] = remedies;
  if (remedies.some(({ length }) => length !== first.length)) return [...new Set(remedies.flat())];
  return first.flatMap((_, at) => {
    const lines = [...new Set(remedies.map((remedy) => remedy[at] ?? ""))];
    const left = lines.map((line) => leaveOut.exec(line)?.[1]);
    return lines.length > 1 && left.every((name) => name !== undefined)
      ? [`-- or leave them out: --exclude-tables ${left.join(" ")}`]
      : lines;
  });
}

function told(finding: RawFinding): Finding {
  const copy: { -readonly [Name in keyof RawFinding]: RawFinding[Name] } = { ...finding };
  delete copy.isOfTable;
  return copy;
}
