/** The replies that RUI3 and ST's AT_Slave have in common: value lines, then one word for how it went. */
import { type Dialogue, type Reply, replyMs, until } from "./dialogue.ts";

const failures = new Set([
  "AT_ERROR",
  "AT_PARAM_ERROR",
  "AT_BUSY_ERROR",
  "AT_TEST_PARAM_OVERFLOW",
  "AT_NO_CLASSB_ENABLE",
  "AT_NO_CLASS_B_ENABLE",
  "AT_NO_NETWORK_JOINED",
  "AT_RX_ERROR",
  "AT_MODE_NO_SUPPORT",
  "AT_COMMAND_NOT_FOUND",
  "AT_UNSUPPORTED_BAND",
  "AT_DUTYCYCLE_RESTRICTED",
  "AT_CRYPTO_ERROR",
  "error unknown",
]);

/** The word that ends a command's reply; undefined for any other line. */
export function statusOf(line: string): string | undefined {
  return line === "OK" || failures.has(line) ? line : undefined;
}

/** A command may be lost for a byte that was spoilt or came too quickly: it is said again so many times. */
const repeatsMax = 2;

/** Nothing was done: the first byte was lost while the module slept (RUI3), or a buffer of eight characters was full (AT_Slave). */
function isGarbled(status: string): boolean {
  return status === "AT_COMMAND_NOT_FOUND" || status === "AT_TEST_PARAM_OVERFLOW";
}

/** One command to its status word. Events that come between are not part of its reply. */
export function* atCommand(text: string): Dialogue<Reply> {
  let lines: string[] = [];
  const status = yield* atStatus(text, (line) => {
    const word = statusOf(line);
    if (word !== undefined && isGarbled(word)) lines = [];
    else if (word === undefined && !line.startsWith("+EVT:")) lines.push(line);
  });
  if (status === undefined) return { kind: "silent" };
  return status === "OK" ? { kind: "ok", lines } : { kind: "refused", status };
}

/** A command and its status word, said again where it was garbled; undefined where none came. `hear` is shown every line. */
export function* atStatus(write: string, hear: (line: string) => void = () => undefined): Dialogue<string | undefined> {
  for (let repeat = 0; ; repeat++) {
    const status = yield* until({ write, waitMs: replyMs }, (line) => {
      hear(line);
      return statusOf(line);
    });
    if (status === undefined || !isGarbled(status) || repeat === repeatsMax) return status;
  }
}

/** The value that a read command gave: after `AT+X=`, or the bare line. */
export function valueIn(reply: Reply): string | undefined {
  if (reply.kind !== "ok") return undefined;
  const line = reply.lines.at(-1);
  return line?.replace(/^AT\+\w+=/i, "").trim();
}
