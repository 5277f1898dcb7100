// A reporter for node:test that writes, as one JSON object a line, the tests that were skipped and the files that held no test: both
// end with exit status 0, and neither has tested anything.
import path from "node:path";
import type { TestEvent } from "node:test/reporters";

export interface TestNote {
  readonly kind: "skipped" | "empty";
  /** Path of the test file. */
  readonly file: string;
  readonly name: string;
  readonly reason: string;
}

export default async function* notes(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type !== "test:pass" && event.type !== "test:fail") continue;
    const { name, file = "", skip, todo } = event.data;
    // A file in which no test was registered is reported as one test that bears the file's name.
    if (path.resolve(name) === file && event.type === "test:pass")
      yield line({ kind: "empty", file, name, reason: "no test in this file" });
    const mark = skip ?? todo;
    if (mark === undefined || mark === false) continue;
    yield line({
      kind: "skipped",
      file,
      name,
      reason: typeof mark === "string" && mark !== "" ? mark : "no reason given",
    });
  }
}

function line(note: TestNote): string {
  return `${JSON.stringify(note)}\n`;
}
