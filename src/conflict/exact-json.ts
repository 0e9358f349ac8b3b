/** JSON with numbers that JavaScript cannot hold. */

/** Digits that a double holds whatever they are. */
const exactDigits = 15;

/** Reads JSON as the server writes it; a number that would lose digits becomes a text, as in the driver's rows. */
export function parseExact(text: string): unknown {
  const exact = text.replaceAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) =>
    token.startsWith('"') || token.replaceAll(/\D/g, "").length <= exactDigits ? token : `"${token}"`,
  );
  return JSON.parse(exact);
}
