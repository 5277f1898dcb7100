// What the terminal shows is read by a decoder that is not ours.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { qrCode } from "../../cli/qr-code.ts";
import { didKeyOf } from "../../protocol/public-key.ts";
import { keyOfLabel } from "../vectors/signature-suite.ts";

const missing =
  spawnSync("zbarimg", ["--version"]).status === 0 ? false : "zbarimg is not installed: apt-get install zbar-tools";
const scale = 6;

/** The terminal's half blocks as a grey image (PGM), black where the terminal draws black. */
function imageOf(shown: string): Buffer {
  const lines = stripVTControlCharacters(shown).split("\n").slice(0, -1);
  const pixels = lines.flatMap((line) => [
    [...line].map((block) => "█▀".includes(block)),
    [...line].map((block) => "█▄".includes(block)),
  ]);
  const width = (pixels[0]?.length ?? 0) * scale;
  const rows = pixels.flatMap((row) => {
    const grey = Buffer.from(row.flatMap((black) => Array.from({ length: scale }, () => (black ? 0 : 255))));
    return Array.from({ length: scale }, () => grey);
  });
  return Buffer.concat([Buffer.from(`P5 ${width} ${rows.length} 255\n`), ...rows]);
}

test("the QR code of a device's name is read by zbar", { skip: missing }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ecp-qr-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const did = didKeyOf(keyOfLabel("wallet key").publicKey);
  const shown = qrCode(did);
  assert.ok(
    shown.split("\n").every((line) => line.length < 100),
    "it fits a terminal of 80 columns",
  );
  const image = join(folder, "code.pgm");
  writeFileSync(image, imageOf(shown));
  const read = spawnSync("zbarimg", ["--quiet", "--raw", image], { encoding: "utf8" });
  assert.equal(read.stdout.trim(), did, read.stderr);
  // Control: with its upper third painted over it is not read.
  const broken = shown.split("\n").map((line, i) => (i > 2 && i < 10 ? line.replace(/[▀▄]/g, "█") : line));
  writeFileSync(image, imageOf(broken.join("\n")));
  assert.notEqual(spawnSync("zbarimg", ["--quiet", "--raw", image], { encoding: "utf8" }).stdout.trim(), did);
});
