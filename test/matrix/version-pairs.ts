/** From old to new, from a version to itself, and back. */
export const versionPairs = [
  ["10", "18"],
  ["12", "16"],
  ["13", "18"],
  ["15", "15"],
  ["17", "17"],
  ["18", "18"],
  ["18", "14"],
] as const;
