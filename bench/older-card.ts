/** Older cards with a TPM that counts, and without anybody who could tell. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Scene } from "../test/system/scene-fixture.ts";
import { SoftwareTpm, swtpmMissing } from "../test/system/tpm-fixture.ts";
import { type Campaign, Missing } from "./campaign.ts";
import { Card, inScene, type Pair } from "./card-hub.ts";

const olderCardCode = 65;
/** Images that a card may be put back from: the newest one, or one of some lives before. */
const imagesMax = 5;

function journalDigest(folder: string): string {
  const hash = createHash("sha256");
  for (const name of readdirSync(path.join(folder, "journal")).sort())
    hash.update(readFileSync(path.join(folder, "journal", name)));
  return hash.digest("hex");
}

/** A wallet whose starts and ends a TPM counts is put back again and again; each time it must end before it writes anything. */
export async function refuseByTpm(campaign: Campaign, scene: Scene, restores: number) {
  if (swtpmMissing) throw new Missing(swtpmMissing);
  const { random } = campaign;
  const tpm = new SoftwareTpm(scene);
  await tpm.start();
  const folder = scene.path("counted");
  const counted = ["--insecure", "--tpm", tpm.socket];
  await scene.succeed("ecp-wallet", "init", "--data", folder, "--segments", "3", ...counted);
  const card = new Card(scene, folder, counted);
  card.pin([]);
  let timeS = Math.floor(Date.now() / 1_000) - 2_000_000;
  const sealSome = (): Promise<number[]> =>
    card.seal(
      Array.from({ length: random.integer(1, 5) }, () => ++timeS),
      0,
    );
  const figures = { tpmRestores: 0, tpmRefused: 0, tpmJournalsTouched: 0 };
  const images: string[] = [];
  const newest = scene.path("newest");
  while (figures.tpmRestores < restores) {
    const image = scene.path(`image-${figures.tpmRestores % imagesMax}`);
    if (random.chance(50)) {
      card.copyTo(image);
      await card.start();
      await sealSome();
      await card.stop(random.chance(50));
    } else {
      // While it runs, and then the power goes. The TPM counts at each start: it knows from then on.
      await card.start();
      await sealSome();
      card.copyTo(image);
      await sealSome();
      await card.stop(true);
      await card.start();
      await card.stop(random.chance(50));
    }
    if (!images.includes(image)) images.push(image);
    card.copyTo(newest);
    card.putBack(random.pick(images));
    const before = journalDigest(folder);
    const older = card.run();
    const { code } = await older.ending();
    const isSaid = older.stderr.some((line) => line.includes("this card is older than the TPM has seen"));
    if (code === olderCardCode && isSaid) figures.tpmRefused++;
    else campaign.say(`an older card ended with ${code}:\n${older.stderr.join("\n")}`);
    if (journalDigest(folder) !== before) figures.tpmJournalsTouched++;
    figures.tpmRestores++;
    card.putBack(newest);
    campaign.progress(figures.tpmRestores, restores, `${figures.tpmRefused} refused by the TPM's count`);
  }
  return figures;
}

/** The same without TPM, and without receipts: it starts, notices nothing, and signs sequences for the second time. */
export async function sealUnnoticed(campaign: Campaign, pair: Pair, restores: number) {
  const { random } = campaign;
  const control = { restores: 0, startedAndSealed: 0, noticed: 0, sequencesWithTwoDigests: 0 };
  while (control.restores < restores) {
    await inScene(campaign, async (scene) => {
      const card = pair.card(scene);
      let timeS = Math.floor(Date.now() / 1_000) - 2_000_000;
      const life = async (offsetWh: number) => {
        await card.start();
        const times = Array.from({ length: random.integer(1, 10) }, () => ++timeS);
        const sequences = await card.seal(times, offsetWh);
        const { epoch } = await card.client.hello();
        const records = await card.records([epoch]);
        await card.stop(random.chance(50));
        return {
          epoch,
          sealed: sequences.length,
          digests: new Map(records.map(({ sequence, digest }) => [sequence, digest])),
        };
      };
      await life(0);
      card.copyTo(scene.path("image"));
      const first = await life(0);
      card.putBack(scene.path("image"));
      const second = await life(7);
      if (second.sealed > 0) control.startedAndSealed++;
      if (second.epoch !== first.epoch) control.noticed++;
      for (const [sequence, digest] of second.digests)
        if ((first.digests.get(sequence) ?? digest) !== digest) control.sequencesWithTwoDigests++;
    });
    control.restores++;
    campaign.progress(control.restores, restores, "without TPM and receipts");
  }
  return control;
}
