/** QR codes for a terminal: half blocks, black on white whatever the terminal's colours are, so that a phone reads them. */
import { encode } from "uqr";

/** Modules of white around the code that the standard (ISO/IEC 18004) asks for. */
const quietModules = 4;
const blackOnWhite = "\u001b[30;107m";
const reset = "\u001b[0m";

/** Lines for a terminal. Error correction M: 15 % of the code may be unreadable. */
export function qrCode(text: string): string {
  const { data, size } = encode(text, { ecc: "M", border: quietModules });
  const isBlack = (row: number, column: number): boolean => data[row]?.[column] ?? false;
  let lines = "";
  for (let row = 0; row < size; row += 2) {
    let line = "";
    for (let column = 0; column < size; column++) {
      const [upper, lower] = [isBlack(row, column), isBlack(row + 1, column)];
      line += upper ? (lower ? "█" : "▀") : lower ? "▄" : " ";
    }
    lines += `${blackOnWhite}${line}${reset}\n`;
  }
  return lines;
}
