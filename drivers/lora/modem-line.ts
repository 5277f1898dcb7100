/** Makes lines of what a modem sends, however it comes in pieces. */

/** A downlink of 242 bytes is 484 digits and some 60 characters around them. */
const lineCharactersMax = 640;

export class LineAssembler {
  #text = "";
  #isTooLong = false;
  /** Lines that were longer than any modem's; none of them is read, since a part of a line may say something else. */
  tooLong = 0;

  /**
   * The lines that end in these bytes, trimmed, without the empty ones: where a modem puts blank lines differs between its firmware and its
   * manual. What is no printable ASCII is left out, as a module that wakes up may send a byte that nobody meant.
   */
  push(bytes: Uint8Array): string[] {
    const lines: string[] = [];
    for (const byte of bytes) {
      if (byte === 0x0a || byte === 0x0d) {
        const line = this.#text.trim();
        if (this.#isTooLong) this.tooLong++;
        else if (line !== "") lines.push(line);
        this.reset();
      } else if (byte >= 0x20 && byte < 0x7f) {
        if (this.#text.length >= lineCharactersMax) this.#isTooLong = true;
        else this.#text += String.fromCharCode(byte);
      }
    }
    return lines;
  }

  /** Forgets a line that was begun. */
  reset(): void {
    this.#text = "";
    this.#isTooLong = false;
  }
}
