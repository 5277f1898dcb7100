/** ecp enrol: the device's signed request, as a file for a full node. ecp pin: the full node's answer, believed. */
import { isUsableShare } from "../platform/agreed-cipher.ts";
import { contentTypes } from "../protocol/cose-sign1.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { type EnrolmentAnswer, openEnrolmentAnswer } from "../protocol/enrolment.ts";
import { didKeyOf, kidOf } from "../protocol/public-key.ts";
import { Refusal } from "../protocol/refusal.ts";
import { pinnedNodesMax } from "../wallet/policy.ts";
import { type Command, CommandError, exit, parseCommand } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption } from "./hub-options.ts";
import { devicePublicKey, readPolicy, withWallet, writePolicy } from "./hub-wallet.ts";
import { readInput } from "./input-file.ts";
import { checkOutput, signedMessage, writeOutput } from "./output-file.ts";
import { shellWord } from "./shell-word.ts";
import { canAsk, confirm } from "./terminal-question.ts";
import { sha256, verifyEd25519 } from "./verification.ts";

export const hubEnrol: Command = {
  summary: "write the signed request with which a full node enrols this device",
  usage: `Usage: ecp enrol [--config hub.yaml] [--out request.cose]

Asks the wallet (the running one, or one that is started for it) for its signed enrolment request: public keys, epoch,
meters. Take the file to the full node's operator; nothing in it is secret. --out overwrites nothing but a request.`,
  async run(args) {
    const options = { ...configOption, out: { type: "string", default: "request.cose" } } as const;
    const { values } = parseCommand("ecp enrol", args, options, []);
    const hub = readHubFile(values.config);
    const before = signedMessage(contentTypes.enrolmentRequest);
    checkOutput(values.out, before);
    const request = await withWallet(hub, (wallet) => wallet.enrol());
    writeOutput(values.out, request, before);
    const did = didKeyOf(devicePublicKey(hub.configuration.walletFolder));
    process.stdout.write(
      `${values.out} is the request of ${did}\n` +
        `On the full node: ecp-node enrol ${shellWord(values.out)} --data DIR --out answer.cose\n` +
        "Its answer comes back here: ecp pin answer.cose\n",
    );
    return exit.ok;
  },
};

export const hubPin: Command = {
  summary: "believe a full node's receipts, by its enrolment answer",
  usage: `Usage: ecp pin ANSWER [--config hub.yaml] [--node did:key:… | --yes]

Adds the full node's key to the wallet's policy: from the wallet's next start on, receipts signed by it release records.
Compare the did:key with what the node's operator shows you by another way; --node states it, --yes trusts the file.`,
  async run(args) {
    const options = { ...configOption, node: { type: "string" }, yes: { type: "boolean", default: false } } as const;
    const { values, positionals } = parseCommand("ecp pin", args, options, ["ANSWER"]);
    const [file = ""] = positionals;
    const hub = readHubFile(values.config);
    const answer = openAnswer(file);
    const device = kidOf(devicePublicKey(hub.configuration.walletFolder), sha256);
    if (!equalBytes(answer.device, device)) throw bad(file, "an answer to this device", "one to another device");
    if (!isUsableShare(answer.share)) throw bad(file, "a share that a secret can be agreed with", "one of small order");
    const did = didKeyOf(answer.publicKey);
    if (values.node !== undefined && values.node !== did) throw bad(file, `the node ${values.node}`, did);
    process.stdout.write(`Full node "${answer.nodeName}"\n  ${did}\n`);
    if (values.node === undefined && !values.yes && !(await agreed(file))) return exit.failed;
    const policy = readPolicy(hub);
    const place = policy.nodes.findIndex((node) => equalBytes(node.publicKey, answer.publicKey));
    if (place < 0 && policy.nodes.length >= pinnedNodesMax)
      throw bad(file, `at most ${pinnedNodesMax} pinned nodes`, "one more");
    const { nodeName: name, publicKey, share } = answer;
    const pinned = { name, publicKey, share };
    // A node that is pinned again keeps its place: to the first one records are encrypted.
    const nodes = place < 0 ? [...policy.nodes, pinned] : policy.nodes.with(place, pinned);
    writePolicy(hub, { ...policy, nodes });
    process.stdout.write("Pinned. Restart the wallet to make it count.\n");
    return exit.ok;
  },
};

async function agreed(file: string): Promise<boolean> {
  if (!canAsk()) throw bad(file, "--node did:key:… or --yes, since nobody can be asked here", "neither", exit.usage);
  return confirm("Is that the did:key that the node's operator shows?");
}

function openAnswer(file: string): EnrolmentAnswer {
  const bytes = readInput(file, "a full node's enrolment answer", "`ecp-node enrol` on the full node writes it");
  try {
    return openEnrolmentAnswer(bytes, verifyEd25519);
  } catch (error) {
    if (error instanceof Refusal) throw bad(file, "a full node's enrolment answer", error.message);
    throw error;
  }
}

function bad(where: string, expected: string, got: string, status: number = exit.failed): CommandError {
  return new CommandError(status, {
    expected,
    got,
    where,
    todo: "nothing was changed; check the file and who gave it",
  });
}
