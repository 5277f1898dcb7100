/**
 * Cards that are put back from an older image, again and again. Each time: wallet and full node run as they do at home, an image is taken,
 * the hub goes on and is acknowledged, and the card is put back. It must be seen at the first receipt; what comes then is a new
 * epoch, which the node holds until its owner agrees; what was booked stays as it was, and nothing is booked twice or lost. With a TPM
 * that counts, each older card is refused before it seals. Control: without TPM and without receipts it seals its sequences once more.
 */
import { epochReasons, eventCodes } from "../protocol/record.ts";
import { WalletRefusal } from "../protocol/wallet-message.ts";
import { eventually } from "../test/system/running-program-fixture.ts";
import { Scene } from "../test/system/scene-fixture.ts";
import { type Campaign, runCampaign } from "./campaign.ts";
import { eventsOf, inScene, Pair } from "./card-hub.ts";
import { changedRows, countedRows, NodeBooks } from "./node-books.ts";
import { refuseByTpm, sealUnnoticed } from "./older-card.ts";
import { RecordCarrier } from "./record-carrier.ts";

const figures = {
  restores: 0,
  seenAtFirstReceipt: 0,
  newEpochNamesReceipt: 0,
  heldAtNode: 0,
  bookedRowsChanged: 0,
  bookedOfHeldEpochs: 0,
  wronglyBooked: 0,
  acknowledgedRecords: 0,
  lostRecords: 0,
  conflictingRecordsKept: 0,
  slotsSealedTwice: 0,
  bookedBefore: 0,
  bookedOnceAccepted: 0,
  notBookedOnceAccepted: 0,
};

await runCampaign("rollback", async (campaign) => {
  const scene = new Scene({ after: (ending) => campaign.after(ending as () => unknown) });
  const pair = await Pair.make(scene, campaign);
  const restores = campaign.count(100, 4);
  while (figures.restores < restores) {
    await inScene(campaign, (ofRound) => restore(campaign, pair, ofRound));
    figures.restores++;
    campaign.progress(figures.restores, restores, `${figures.seenAtFirstReceipt} seen at the first receipt`);
  }
  const tpm = await inScene(campaign, (ofTpm) => refuseByTpm(campaign, ofTpm, restores));
  const control = await sealUnnoticed(campaign, pair, restores);
  const wrong =
    figures.bookedRowsChanged +
    figures.bookedOfHeldEpochs +
    figures.wronglyBooked +
    figures.lostRecords +
    figures.notBookedOnceAccepted;
  const isSeen = [figures.seenAtFirstReceipt, figures.newEpochNamesReceipt, figures.heldAtNode].every(
    (n) => n === restores,
  );
  const isRefused = tpm.tpmRefused === restores && tpm.tpmJournalsTouched === 0;
  const isLoaded =
    figures.conflictingRecordsKept >= restores &&
    figures.slotsSealedTwice > 0 &&
    figures.bookedOnceAccepted >= restores;
  const canFail =
    control.noticed === 0 && control.startedAndSealed === restores && control.sequencesWithTwoDigests >= restores;
  return {
    figures: { ...figures, ...tpm },
    control,
    holds: wrong === 0 && isSeen && isRefused && isLoaded && canFail,
  };
});

async function restore(campaign: Campaign, pair: Pair, scene: Scene): Promise<void> {
  const { random } = campaign;
  const node = await pair.node(scene);
  const books = new NodeBooks(node.folder);
  const card = pair.card(scene);
  let timeS = Math.floor(Date.now() / 1_000) - 2_000_000;
  const slots = (count: number): number[] => Array.from({ length: count }, () => ++timeS);

  // What the image holds, and what comes after it: all of it is acknowledged.
  const before = await RecordCarrier.connect(node.port, pair.name, "hub");
  await card.start();
  await card.seal(slots(random.integer(0, 10)), 0);
  await before.deliverAll(card.client);
  await card.stop(random.chance(50));
  card.copyTo(scene.path("image"));
  await card.start();
  const later = slots(random.integer(1, 20));
  await card.seal(later, 0);
  await before.deliverAll(card.client);
  const { epoch, through } = await card.client.hello();
  const acknowledged = (await card.records([epoch])).filter(({ sequence }) => sequence <= through);
  await card.stop(random.chance(50));
  await before.close();
  const bookedBefore = books.booked();
  figures.bookedBefore += bookedBefore.size;

  // The older card goes on: in part with the slots that were read before, and with other values.
  card.putBack(scene.path("image"));
  await card.start();
  const again = later.slice(0, random.integer(0, later.length));
  figures.slotsSealedTwice += again.length;
  await card.seal(again, 7);
  await card.seal(slots(random.integer(0, 10)), 7);
  const hub = await RecordCarrier.connect(node.port, pair.name, "hub");
  const waiting = await hub.waiting(card.client);
  for (const bytes of waiting.slice(0, random.integer(1, waiting.length))) await hub.publish(bytes);
  const answer = await hub.release(card.client, await hub.receipt());
  const begun = (await card.client.hello()).epoch;
  if (answer instanceof WalletRefusal && begun !== epoch) figures.seenAtFirstReceipt++;
  else
    campaign.say(
      `an older card went on after a receipt: ${answer instanceof WalletRefusal ? answer.message : "it was taken"}`,
    );
  const [[code, reason, of, sequence, digest] = []] = eventsOf((await card.client.read(1, 1, begun)).records[0]?.[1]);
  const named = acknowledged.find((record) => record.sequence === sequence)?.digest;
  const isNamed =
    named !== undefined && named === Buffer.from((digest as Uint8Array | undefined) ?? []).toString("hex");
  if (code === eventCodes.epochBegun && reason === epochReasons.contradicted && of === epoch && isNamed)
    figures.newEpochNamesReceipt++;

  await card.seal(slots(random.integer(1, 10)), 7);
  await hub.deliverAll(card.client);
  const sealedAfter = await card.records([epoch, begun]);
  const held = books.booked();
  if (books.heldEpochs().includes(begun)) figures.heldAtNode++;
  figures.bookedRowsChanged += changedRows(bookedBefore, held);
  figures.bookedOfHeldEpochs += held.size - bookedBefore.size;
  figures.wronglyBooked += books.wronglyBooked();
  figures.conflictingRecordsKept += books.evidence().length;

  // Its owner agrees.
  await scene.succeed("ecp-node", "epoch", "accept", pair.device, `${begun}`, "--data", node.folder);
  const [last] = slots(1);
  await card.seal([last as number], 7);
  await hub.deliverAll(card.client);
  const sealed = [...sealedAfter, ...(await card.records([begun]))];
  const ofEpoch = sealed.filter((record) => record.epoch === begun).flatMap(({ bytes }) => countedRows(bytes));
  const expected = new Set(ofEpoch.map(({ key }) => key));
  await eventually("the last row is booked", () => [...expected].every((key) => books.booked().has(key)), 5_000).catch(
    () => undefined,
  );
  const accepted = books.booked();
  figures.notBookedOnceAccepted += [...expected].filter((key) => !accepted.has(key)).length;
  figures.bookedOnceAccepted += accepted.size - bookedBefore.size;
  figures.bookedRowsChanged += changedRows(bookedBefore, accepted);
  figures.wronglyBooked += books.wronglyBooked();
  figures.acknowledgedRecords += acknowledged.length + sealed.length;
  figures.lostRecords += books.lostOf([...acknowledged, ...sealed]);
  await hub.close();
  await card.stop();
}
