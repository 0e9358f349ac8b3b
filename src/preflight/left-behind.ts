/** What the application would miss on the target after the switch. */
import { missingSettings, viewsToFill } from "../catalog/left-behind.ts";
import type { Examination } from "./examination.ts";
import { administrator, run, type Finding } from "./finding.ts";

export async function checkLeftBehind({ source, target, servers }: Examination): Promise<Finding[]> {
  const [settings, views] = await Promise.all([missingSettings(source, target), viewsToFill(source, target)]);
  const { role } = servers.target;
  return [
    ...settings.map((problem): Finding => ({
      severity: "warning",
      ...problem,
      ...run("target", administrator, problem.remedy ?? ""),
    })),
    ...views.map((problem): Finding => ({
      severity: "warning",
      ...problem,
      ...run("target", role, `${problem.remedy};  -- once the rows are there`.replace(";;", ";")),
    })),
  ];
}
