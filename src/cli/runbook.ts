/**
 * The runbook of a sync: what a team hands to the engineer on duty. Written once as a list of chapters, and put out as
 * Markdown or as a shell script whose parts are run one at a time.
 */
import type { Status } from "../index.ts";
import { exitCodes } from "./verbs.ts";
import { phases } from "../text/phases.ts";

/** What is known of the sync. Holds no secret: connections are written without their passwords. */
export interface RunbookFacts {
  readonly sync: string;
  readonly source: Place;
  readonly target: Place;
  /** The configuration file, as it was given. */
  readonly config: string | undefined;
  /** Flags that select the tables. */
  readonly selection: readonly string[];
  /** Flags for preflight and init beyond those. */
  readonly setup: readonly string[];
  /** Flags for cutover and rollback. */
  readonly switching: readonly string[];
  /** Null where it is not set up yet, or the target cannot be asked. */
  readonly status: Status | null;
}

export interface Place {
  /** For people: host, port and database. */
  readonly label: string;
  /** For the program: libpq's keywords, without the password. */
  readonly connection: string;
  /** Whether the password has to come from a variable, because it was given and is in no file. */
  readonly needsPassword: boolean;
}

interface Chapter {
  /** Its name in the script; null: nothing to run. */
  readonly part: string | null;
  readonly title: string;
  /** Paragraphs; a table is a paragraph too. */
  readonly text: readonly (string | Table)[];
  readonly steps: readonly Step[];
}

interface Step {
  readonly says: string;
  readonly command: string;
}

interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Tables that are listed at most. */
const mostTables = 50;

const advice: Readonly<Record<Status["phase"], string>> = {
  new: "Go on with init.",
  initialised: "Go on with copy. The source only grows by the recorded keys.",
  copying: "Wait; if no copy runs, start it again: it resumes.",
  copied: "Start follow.",
  "catching-up": "Wait; if the lag grows for long, look at the target's disk and locks.",
  following: "Nothing to do. Without a runner, start follow again: nothing is lost, it catches up.",
  fenced: "Act at once: go on with the cutover, or undo it. Until then nobody can write.",
  "cut-over": "Let follow run as long as a rollback shall be possible; then finish.",
  failed: "Read the error and its remedy in the status, then start follow again.",
};

function chapters(facts: RunbookFacts): Chapter[] {
  const selection = ["", ...facts.selection].join(" ");
  const setup = ["", ...facts.selection, ...facts.setup].join(" ");
  const switching = ["", ...facts.switching].join(" ");
  return [
    {
      part: null,
      title: "What this is about",
      text: [
        `Sync \`${facts.sync}\` moves tables from \`${facts.source.label}\` (the source) to \`${facts.target.label}\` (the target) and keeps them in step. All its state is in schema \`replicate\` of the two databases, so every command can be run from any machine that reaches both.`,
        ...tableList(facts),
      ],
      steps: [],
    },
    {
      part: "start",
      title: "Start",
      text: [
        "None of it stops the application. Each command can be repeated; copy resumes where it was interrupted. Where there is no pg_dump for `schema`, make the tables on the target by hand.",
      ],
      steps: [
        { says: "tables, types and keys on the target; needs pg_dump", command: `replicate schema${selection}` },
        { says: "what would be in the way; run the statements it prints", command: `replicate preflight${setup}` },
        { says: "from now on the source records which rows change", command: `replicate init${setup}` },
        { says: "all rows", command: "replicate copy" },
      ], // prettier-ignore
    },
    {
      part: "follow",
      title: "Keep it running",
      text: [
        "Under systemd or whatever restarts it. SIGTERM ends it cleanly, a second one beside it ends with exit code 4, and lost connections come back by themselves. It turns round with the sync at a cutover, so it stays as it is.",
      ],
      steps: [{ says: "applies changes until it is stopped", command: "exec replicate follow" }],
    },
    {
      part: "look",
      title: "Look at it",
      text: [
        "`status` says what goes on, how long it takes, what is in the way, and what to do next. `verify` proves that both sides are equal, while they are written to.",
        {
          head: ["phase", "means", "what to do"],
          rows: Object.entries(phases).map(([phase, means]) => [
            phase,
            means,
            advice[phase as Status["phase"]],
          ]),
        },
        { head: ["exit code", "means"], rows: exitCodes.map(([code, means]) => [String(code), means]) },
      ],
      steps: [
        { says: "where it stands", command: "replicate status" },
        { says: "equal?", command: "replicate verify" },
      ],
    },
    {
      part: "settings",
      title: "What tables do not bring",
      text: [
        "Settings of the database and its roles (`ALTER DATABASE … SET`, `ALTER ROLE … SET`) are no part of a schema. The target has to have them before the switch: sessions of the application begin with them.",
      ],
      steps: [
        {
          says: "warns of each setting that the target lacks; run the statements it prints",
          command: `replicate preflight${setup}`,
        },
      ],
    },
    {
      part: "views",
      title: "Fill the materialized views",
      text: [
        "They hold the rows of the moment at which they were filled: do it shortly before the switch, and again right after it. Each comes after those that it reads, and those that are not filled on the source stay empty. Without pg_dump, run the `refresh materialized view` statements that `preflight` prints, in their order.",
      ],
      steps: [
        {
          says: "fills them, and adds what the target still lacks; needs pg_dump",
          command: `replicate schema --section post-data${selection}`,
        },
      ],
    },
    {
      part: "rehearse",
      title: "Before the day",
      text: ["How many seconds nobody could write, and what would be in the way. Changes nothing."],
      steps: [
        {
          says: "predicts the cutover",
          command: `replicate cutover --rehearse${facts.switching.includes("--no-reverse") ? " --no-reverse" : ""}`,
        },
      ],
    },
    {
      part: "cutover",
      title: "On the day",
      text: [
        "While it lasts, writes to the source fail with SQLSTATE 25006, and reads go on. If anything fails, or takes longer than the timeout, everything is undone and the source takes writes again. After a crash of the program, the same command goes on.",
      ],
      steps: [
        { says: "switches the applications to the target", command: `replicate cutover --yes${switching}` },
      ],
    },
    {
      part: "undo",
      title: "Stop a cutover in the middle",
      text: [
        "When the status says `fenced` and nobody goes on with it: the source takes writes again at once. Too late once the target is open; then roll back.",
      ],
      steps: [{ says: "the source takes writes again", command: "replicate cutover --undo --yes" }],
    },
    {
      part: "back",
      title: "Go back",
      text: [
        "The same machine the other way round. What was written to the target since the cutover is kept. Possible until the clean-up, and not after a cutover with `--no-reverse`.",
      ],
      steps: [
        { says: "switches the applications to the source", command: `replicate rollback --yes${withoutReverse(facts.switching)}` },
      ], // prettier-ignore
    },
    {
      part: "clean-up",
      title: "Clean up after the move",
      text: [
        "No rollback is possible afterwards. Schema `replicate`, its triggers and the fence are gone from both sides.",
      ],
      steps: [
        { says: "ends the time in which one could go back", command: "replicate cutover --finish --yes" },
      ],
    },
    {
      part: "give-up",
      title: "Give up without having moved",
      text: [
        "The source is as it was before init, byte for byte in a schema dump; the target keeps the rows and gets its indexes, constraints and triggers back. If one of the servers is gone for good, add `--source-only` or `--target-only` for the other one. Without this program, `drop schema replicate cascade` on the source ends all recording; it waits for running transactions.",
      ],
      steps: [
        { says: "what would be removed?", command: "replicate drop --dry-run" },
        { says: "removes the sync", command: "replicate drop --yes" },
      ],
    },
  ];
}

function tableList({ status }: RunbookFacts): (string | Table)[] {
  if (status === null) return ["It is not set up yet, or the target could not be asked for its tables."];
  const rows = status.tables
    .slice(0, mostTables)
    .map(({ source, target }) => (source === target ? [source] : [`${source} → ${target}`]));
  const more = status.tables.length - rows.length;
  return [
    { head: ["table"], rows },
    ...(more > 0 ? [`And ${more} more; \`replicate status --json\` lists all.`] : []),
  ];
}

function withoutReverse(flags: readonly string[]): string {
  return ["", ...flags.filter((flag) => flag !== "--no-reverse")].join(" ");
}

/** Lines that every shell needs first. */
function environment(facts: RunbookFacts): string[] {
  const lines = [`export REPLICATE_NAME=${shellWord(facts.sync)}`];
  if (facts.config !== undefined) {
    lines.push(`export REPLICATE_CONFIG=${shellWord(facts.config)}  # the variables in it have to be set`);
    return lines;
  }
  for (const [name, place] of [
    ["SOURCE", facts.source],
    ["TARGET", facts.target],
  ] as const) {
    // prettier-ignore
    lines.push(`export REPLICATE_${name}=${shellWord(place.connection)}`);
    if (place.needsPassword) {
      const variable = `REPLICATE_${name}_PASSWORD`;
      lines.push(`: "\${${variable}:?is not set}"; export ${variable}`);
    }
  }
  return lines;
}

/** A word that the shell takes as it is. */
export function shellWord(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

export function runbookMarkdown(facts: RunbookFacts): string {
  const [about, ...rest] = chapters(facts);
  const fence = (lines: readonly string[]): string[] => ["```sh", ...lines, "```", ""];
  const write = (chapter: Chapter): string[] => [
    `## ${chapter.title}`,
    "",
    ...chapter.text.flatMap((each) => [...(typeof each === "string" ? [each] : markdownTable(each)), ""]),
    ...(chapter.steps.length === 0
      ? []
      : fence(chapter.steps.map(({ command, says }) => `${command.replace(/^exec /, "")}  # ${says}`))),
  ];
  return [
    `# Runbook: sync ${facts.sync}`,
    "",
    ...(about === undefined ? [] : write(about)),
    "## In every shell",
    "",
    "Secrets are not written down here: the variables have to be set by the people on duty.",
    "",
    ...fence(environment(facts)),
    ...rest.flatMap(write),
  ]
    .join("\n")
    .trimEnd();
}

function markdownTable({ head, rows }: Table): string[] {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)];
}

/** A script that does one part per call; without a part it says which there are. */
export function runbookShell(facts: RunbookFacts): string {
  const parts = chapters(facts).flatMap((chapter) =>
    chapter.part === null ? [] : [{ ...chapter, part: chapter.part }],
  );
  return [
    "#!/bin/sh",
    `# Runbook of sync ${facts.sync}: ${facts.source.label} -> ${facts.target.label}`,
    "set -eu",
    "",
    ...environment(facts),
    "",
    'case "${1:-}" in',
    ...parts.flatMap(({ part, title, steps }) => [
      `  ${part}) # ${title}`,
      ...steps.flatMap(({ says, command }) => [`    # ${says}`, `    ${command}`]),
      "    ;;",
    ]),
    "  *)",
    `    echo "usage: $0 ${parts.map(({ part }) => part).join("|")}" >&2`,
    "    exit 2",
    "    ;;",
    "esac",
  ].join("\n");
}
