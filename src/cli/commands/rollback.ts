import type { Command } from "../command.ts";
import { switchSides } from "./cutover.ts";

export const rollback: Command = async (context) => await switchSides(context, "rollback");
