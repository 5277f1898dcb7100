/** A folder with a short path for a test's Unix sockets (107 bytes at most). */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";

export function socketPath(t: TestContext): string {
  const folder = mkdtempSync("/tmp/ecp-a-");
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "s");
}
