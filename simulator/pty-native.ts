/**
 * The native part of @lydell/node-pty, and nothing of its JavaScript.
 *
 * What that package's own open() returns must never be destroyed or killed: its pid is −1, and its destroy() sends SIGHUP
 * to every process that this user may signal. The native `open` only calls openpty(3) and gives two descriptors.
 */
import { createRequire } from "node:module";
import { join } from "node:path";

export interface PtyNative {
  /** openpty(3): descriptors of both ends, non-blocking, and the path of the slave. */
  open(columns: number, rows: number): { readonly master: number; readonly slave: number; readonly pty: string };
}

/** In a bundle `pty.node` lies beside it; esbuild sets ECP_BUNDLED to the text "true" there and writes CommonJS. */
export function loadPtyNative(): PtyNative {
  if (process.env.ECP_BUNDLED === "true") {
    const loaded: { exports: unknown } = { exports: {} };
    process.dlopen(loaded, join(__dirname, "pty.node"));
    return loaded.exports as PtyNative;
  }
  return createRequire(import.meta.url)(`@lydell/node-pty-linux-${process.arch}/pty.node`) as PtyNative;
}
