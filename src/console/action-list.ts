/** What can be asked for in the console, in the order of a migration. The page and the server read this one table. */

export interface Action {
  readonly label: string;
  readonly help: string;
  /** `yes`: asks once; `name`: asks for the sync's name, since it cannot simply be taken back. */
  readonly confirm: "no" | "yes" | "name";
}

export const actions = {
  preflight: { label: "Preflight", help: "Checks everything and changes nothing.", confirm: "no" },
  schema: { label: "Create schema", help: "Creates on the target what the tables need.", confirm: "yes" },
  start: {
    label: "Start",
    help: "Records changes on the source, copies the rows, and follows.",
    confirm: "yes",
  },
  pause: {
    label: "Pause",
    help: "Copying and following end. Nothing is lost: changes wait on the source.",
    confirm: "no",
  },
  resume: { label: "Resume", help: "Goes on where it was.", confirm: "no" },
  verify: { label: "Verify", help: "Compares both sides while they are written to.", confirm: "no" },
  repair: {
    label: "Repair",
    help: "Compares both sides, and brings the rows over again that differ.",
    confirm: "yes",
  },
  rehearse: { label: "Rehearse", help: "Predicts the switch and changes nothing.", confirm: "no" },
  cutover: {
    label: "Switch",
    help: "Applications are kept from writing to the source, the last rows are brought over, and the target is opened.",
    confirm: "name",
  },
  undo: { label: "Undo", help: "Opens the old side again, where a switch did not end.", confirm: "yes" },
  rollback: {
    label: "Roll back",
    help: "Switches back to the source, with everything that was written since.",
    confirm: "name",
  },
  finish: {
    label: "Finish",
    help: "Ends the time in which the switch can be taken back. The sync is gone afterwards.",
    confirm: "name",
  },
  abort: {
    label: "Abort",
    help: "Removes the sync from both sides, without a trace. Rows on the target stay.",
    confirm: "name",
  },
} as const satisfies Record<string, Action>;

export type ActionName = keyof typeof actions;

export function isAction(name: string): name is ActionName {
  return Object.hasOwn(actions, name);
}
