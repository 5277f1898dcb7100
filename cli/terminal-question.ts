/** Questions at the terminal. */
import { createInterface } from "node:readline/promises";

/** Whether there is a person to ask. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stdout.isTTY === true;
}

/** Asks until the answer is accepted; an empty answer takes the default. `check` says what is wrong, or nothing. */
export async function ask(
  question: string,
  preset: string,
  check: (answer: string) => string | undefined,
): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    for (;;) {
      const answer =
        (await terminal.question(preset === "" ? `${question}: ` : `${question} [${preset}]: `)).trim() || preset;
      const wrong = check(answer);
      if (wrong === undefined) return answer;
      process.stdout.write(`  ${wrong}\n`);
    }
  } finally {
    terminal.close();
  }
}

export async function confirm(question: string): Promise<boolean> {
  const answer = await ask(`${question} (yes/no)`, "", (text) =>
    /^(y|yes|n|no)$/i.test(text) ? undefined : "yes or no",
  );
  return /^y/i.test(answer);
}
