/** Expressions as servers print them, compared. */

/**
 * An expression without what servers write differently each time they read it: casts, parentheses, spaces, and the
 * older word for a trigger's function. Two expressions that differ in nothing else count as the same.
 */
export function normalise(expression: string): string {
  const literals: string[] = [];
  const hidden = expression.replaceAll(
    /'(?:[^']|'')*'/g,
    (literal) => `\uE000${literals.push(literal) - 1}\uE001`,
  );
  const type =
    /::(?:(?:"[^"]*"|\w+)\.)?(?:"[^"]*"|character varying|double precision|bit varying|time(?:stamp)?(?: *\(\d+\))? with(?:out)? time zone|\w+)(?:\(\d+(?:, *\d+)?\))?(?:\[\])*/g;
  return hidden
    .replaceAll("EXECUTE PROCEDURE", "EXECUTE FUNCTION")
    .replaceAll(type, "")
    .replaceAll(/[()]/g, " ")
    .replaceAll(/\s+/g, " ")
    .replaceAll(/ ?([,[\]=<>+*/-]) ?/g, "$1")
    .trim()
    .replaceAll(/\uE000(\d+)\uE001/g, (_, n: string) => literals[Number(n)] ?? "");
}
