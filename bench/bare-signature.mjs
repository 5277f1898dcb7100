// The limit that the wallet is measured against: signatures by @noble/ed25519 with node:crypto's SHA-512, as the wallet makes them, and
// nothing else. JavaScript, since it runs under --jitless, where Node strips no types. Argument: how many; a line on stdin starts a round.
import { hash, randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { hashes, sign } from "@noble/ed25519";

hashes.sha512 = (message) => new Uint8Array(hash("sha512", message, "buffer"));
const rounds = Number(process.argv[2]);
const seed = new Uint8Array(randomBytes(32));
const message = new Uint8Array(randomBytes(120)); // what is signed of a record of two energies
sign(message, seed);
createInterface({ input: process.stdin }).on("line", () => {
  const fromMs = performance.now();
  for (let i = 0; i < rounds; i++) {
    message[i % message.length] ^= 1;
    sign(message, seed);
  }
  process.stdout.write(`${(performance.now() - fromMs) / rounds}\n`);
});
