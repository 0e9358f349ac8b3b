/** From old to new, from a version to itself, and back. From 13 to 18 is the way of the daily tests, test/postgres. */
export const versionPairs = [
  ["10", "18"],
  ["12", "16"],
  ["15", "15"],
  ["17", "17"],
  ["18", "18"],
  ["18", "14"],
] as const;
