// The TPM's counter against cards that are put back from an image: with swtpm, and the real wallet.
import assert from "node:assert/strict";
import { cpSync, existsSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { WalletClient } from "../../agent/wallet-client.ts";
import { decodeRecord, epochReasons, eventCodes } from "../../protocol/record.ts";
import { Journal } from "../../wallet/journal.ts";
import { sha256 } from "../../wallet/journal-segments.ts";
import { emptyPolicy, encodePolicy } from "../../wallet/policy.ts";
import { TpmCounter, TpmError } from "../../wallet/tpm-counter.ts";
import { meterOf, rowAt, startS } from "../wallet/wallet-fixture.ts";
import type { RunningProgram } from "./running-program-fixture.ts";
import { Scene } from "./scene-fixture.ts";
import { SoftwareTpm, swtpmMissing } from "./tpm-fixture.ts";

const skip = swtpmMissing;
if (skip) console.log(`skipped: ${skip}`);
const images = Number(process.env.ECP_TPM_IMAGES ?? 8);

interface Hub {
  readonly scene: Scene;
  readonly tpm: SoftwareTpm;
  readonly data: string;
  readonly counter: TpmCounter;
}

async function hubWithTpm(scene: Scene): Promise<Hub> {
  const tpm = new SoftwareTpm(scene);
  await tpm.start();
  const data = scene.path("wallet");
  await scene.succeed("ecp-wallet", "init", "--data", data, "--insecure", "--segments", "3", "--tpm", tpm.socket);
  writeFileSync(`${data}/policy.cbor`, encodePolicy({ ...emptyPolicy, meters: [meterOf()] }));
  return { scene, tpm, data, counter: new TpmCounter(tpm.socket) };
}

function start({ scene, tpm, data }: Hub, ...more: string[]): RunningProgram {
  const args = ["--data", data, "--socket", scene.path("w.sock"), "--insecure", "--tpm", tpm.socket, ...more];
  return scene.start("ecp-wallet", "run", ...args);
}

async function ready(wallet: RunningProgram): Promise<RunningProgram> {
  await wallet.event(({ message }) => message === "ready");
  return wallet;
}

async function seal({ scene }: Hub, second: number): Promise<void> {
  const client = new WalletClient(scene.path("w.sock"));
  await client.seal({ meter: 0, plan: 0, slotS: 1, codes: [2, 4], rows: [rowAt(startS + second)] });
  client.close();
}

function journalOf({ data }: Hub) {
  const journal = new Journal(`${data}/journal`);
  const records = journal.epochs.flatMap(({ epoch, first, last }) =>
    journal
      .records(first, last, Number.POSITIVE_INFINITY, epoch)
      .map(([, bytes]) => decodeRecord(bytes, sha256).content),
  );
  const { counter } = journal;
  journal.close();
  return { records, counter };
}

function putBack({ data }: Hub, image: string): void {
  rmSync(data, { recursive: true });
  cpSync(image, data, { recursive: true });
}

test("the counter: made once, read, counted up; it goes on where the TPM starts again", { skip }, async (t) => {
  const tpm = new SoftwareTpm(new Scene(t));
  await tpm.start();
  const counter = new TpmCounter(tpm.socket);
  assert.equal(await counter.read(), undefined);
  await counter.define();
  const first = (await counter.read()) as number;
  for (let i = 1; i <= 5; i++) {
    await counter.increment();
    assert.equal(await counter.read(), first + i);
  }
  await assert.rejects(counter.define(), /the index is there already/);
  await tpm.stop();
  await tpm.start();
  assert.equal(await counter.read(), first + 5);
});

test("each start and each end counts; the records say to what", { skip }, async (t) => {
  const hub = await hubWithTpm(new Scene(t));
  const before = (await hub.counter.read()) as number;
  for (let i = 1; i <= 3; i++) {
    const wallet = await ready(start(hub));
    assert.equal(await hub.counter.read(), before + 2 * i - 1);
    await wallet.stop();
    assert.equal(await hub.counter.read(), before + 2 * i);
    assert.equal(journalOf(hub).counter, before + 2 * i);
  }
});

test("of cards that are put back from an image, each is refused before anything is sealed", { skip }, async (t) => {
  const hub = await hubWithTpm(new Scene(t));
  const kept: string[] = [];
  for (let i = 0; i < images; i++) {
    kept.push(hub.scene.path(`image-${i}`));
    if (i % 2 === 0) {
      cpSync(hub.data, kept.at(-1) as string, { recursive: true });
      const wallet = await ready(start(hub));
      await seal(hub, i);
      await wallet.stop();
    } else {
      // While it runs, and then the power goes.
      const wallet = await ready(start(hub));
      await seal(hub, i);
      cpSync(hub.data, kept.at(-1) as string, { recursive: true, filter: (from) => !from.endsWith(".lock") });
      await seal(hub, 100 + i);
      wallet.signal("SIGKILL");
      await wallet.ending();
      await (await ready(start(hub))).stop();
    }
  }
  const newest = hub.scene.path("newest");
  cpSync(hub.data, newest, { recursive: true });
  let refused = 0;
  for (const image of kept) {
    putBack(hub, image);
    const sealed = journalOf(hub).records.length;
    const older = start(hub);
    assert.equal((await older.ending()).code, 65);
    assert.match(older.stderr.join("\n"), /this card is older than the TPM has seen.*--accept-older-card/);
    assert.equal(journalOf(hub).records.length, sealed);
    refused++;
  }
  console.log(`${refused} of ${kept.length} images refused before the first seal`);
  putBack(hub, newest);
  await (await ready(start(hub))).stop();
});

test("control: without the TPM the same older card seals on", { skip }, async (t) => {
  const scene = new Scene(t);
  const data = scene.path("wallet");
  await scene.succeed("ecp-wallet", "init", "--data", data, "--insecure", "--segments", "3");
  const run = () => scene.start("ecp-wallet", "run", "--data", data, "--socket", scene.path("w.sock"), "--insecure");
  await (await ready(run())).stop();
  cpSync(data, scene.path("image"), { recursive: true });
  await (await ready(run())).stop();
  rmSync(data, { recursive: true });
  cpSync(scene.path("image"), data, { recursive: true });
  await (await ready(run())).stop();
});

test("an older card goes on in a new epoch where that is meant, also without the TPM; then it is refused no more", {
  skip,
}, async (t) => {
  const hub = await hubWithTpm(new Scene(t));
  const image = hub.scene.path("image");
  cpSync(hub.data, image, { recursive: true });
  await (await ready(start(hub))).stop();
  for (const withTpm of [true, false]) {
    putBack(hub, image);
    const run = (...more: string[]): RunningProgram =>
      withTpm
        ? start(hub, ...more)
        : hub.scene.start(
            "ecp-wallet",
            "run",
            "--data",
            hub.data,
            "--socket",
            hub.scene.path("w.sock"),
            "--insecure",
            ...more,
          );
    assert.equal((await run().ending()).code, 65);
    const wallet = await ready(run("--accept-older-card"));
    await seal(hub, 1);
    await wallet.stop();
    const { records } = journalOf(hub);
    const [first] = records;
    assert.equal(first?.sequence, 1);
    const [begun] = first?.kind === "event" ? first.events : [];
    assert.deepEqual(begun?.slice(0, 2), [eventCodes.epochBegun, epochReasons.olderCard]);
    await (await ready(run())).stop();
  }
});

test("killed between journal and TPM, or told by a TPM that died, it goes on where it stood", { skip }, async (t) => {
  const hub = await hubWithTpm(new Scene(t));
  const wallet = await ready(start(hub));
  const known = (await hub.counter.read()) as number;
  hub.tpm.kill();
  await seal(hub, 1);
  // It seals what the counter is raised to, and cannot raise it.
  const { code } = await wallet.stop();
  assert.equal(code, 0);
  assert.ok(wallet.stderr.some((line) => line.includes("the TPM does not count")));
  const absent = start(hub);
  assert.equal((await absent.ending()).code, 69);
  assert.match(absent.stderr.join("\n"), /TPM at .* (cannot be reached|does not answer|went away)/);
  await hub.tpm.start();
  assert.equal(await hub.counter.read(), known);
  const again = await ready(start(hub));
  await seal(hub, 2);
  await again.stop();
  assert.equal(await hub.counter.read(), journalOf(hub).counter);
});

test("another TPM, a path that is none, an index that is none: each is said, and nothing is made", {
  skip,
}, async (t) => {
  const hub = await hubWithTpm(new Scene(t));
  await (await ready(start(hub))).stop();
  const other = new SoftwareTpm(hub.scene, "other");
  await other.start();
  const run = (tpm: string, ...more: string[]) =>
    hub.scene.run(
      "ecp-wallet",
      "run",
      "--data",
      hub.data,
      "--socket",
      hub.scene.path("w.sock"),
      "--insecure",
      "--tpm",
      tpm,
      ...more,
    );
  const wrong = await run(other.socket);
  assert.equal(wrong.code, 65);
  assert.match(wrong.stderr, /this is another TPM/);
  assert.equal(await new TpmCounter(other.socket).read(), undefined, "no counter was made there");
  for (const [place, message] of [
    ["/dev/null", /no TPM/],
    [`${hub.data}/policy.cbor`, /is no TPM: a device such as/],
    [hub.scene.path("none"), /no TPM at/],
  ] as const) {
    const { code, stderr } = await run(place);
    assert.equal(code, 69, stderr);
    assert.match(stderr, message);
  }
  for (const index of ["0x01000000", "many", "-1"])
    assert.equal((await run(hub.tpm.socket, `--tpm-index=${index}`)).code, 64, index);
  const init = await hub.scene.run(
    "ecp-wallet",
    "init",
    "--data",
    hub.scene.path("new"),
    "--insecure",
    "--tpm",
    "/dev/null",
  );
  assert.equal(init.code, 69);
  assert.ok(!existsSync(hub.scene.path("new")));
  const without = await hub.scene.run("ecp-wallet", "rotate", "--data", hub.data, "--insecure");
  assert.equal(without.code, 65);
  assert.match(without.stderr, /counts with a TPM/);
  await hub.scene.succeed("ecp-wallet", "rotate", "--data", hub.data, "--insecure", "--tpm", hub.tpm.socket);
  await (await ready(start(hub))).stop();
  await assert.rejects(new TpmCounter("/dev/null").read(), TpmError);
});
