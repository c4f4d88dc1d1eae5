/** What a speaker may be called, as in the Python package. */

export const LONGEST_NAME = 200;
/** What a stranger is called. */
export const UNKNOWN = "unknown";
/** Hidden characters, except the zero-width ones that some languages and emoji are written with. */
const HIDDEN = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

/** Return a name as it is stored, in one Unicode form and without surrounding spaces, or throw. */
export function checkName(name: string): string {
  const checked = name.normalize("NFC").trim();
  if (!checked) throw new Error("Type a name first.");
  if (HIDDEN.test(checked) || [...checked].length > LONGEST_NAME) {
    throw new Error(`This is no name: take one line of visible text, of at most ${LONGEST_NAME} characters.`);
  }
  if (checked.toLowerCase() === UNKNOWN) throw new Error(`"${name}" is what a stranger is called: take another name.`);
  return checked;
}
