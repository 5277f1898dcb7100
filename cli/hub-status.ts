/** ecp status: what wallet and agent say of themselves. */

import type { AgentStatus } from "../agent/agent-status.ts";
import { ringAlarmShare } from "../agent/alarms.ts";
import { WalletClient, WalletUnavailable } from "../agent/wallet-client.ts";
import { runbookOf } from "../platform/alarm-log.ts";
import { askStatus } from "../platform/status-socket.ts";
import { equalBytes } from "../protocol/deterministic-cbor.ts";
import { didKeyOf } from "../protocol/public-key.ts";
import { type ClockStateLetter, clockStateLetters } from "../protocol/reading-status.ts";
import type { WalletHello } from "../protocol/wallet-hello.ts";
import { type Command, exit, parseCommand, usageError } from "./command.ts";
import { readHubFile } from "./hub-configuration.ts";
import { configOption, jsonOption } from "./hub-options.ts";
import { loraText } from "./hub-status-lora.ts";
import { qrCode } from "./qr-code.ts";
import { durationText, formatTable, localTime, terminalColumns } from "./table.ts";

const clockWords: Record<ClockStateLetter, string> = {
  S: "S (synchronised, seen by the wallet itself)",
  I: "I (informative: no time daemon's mark is seen)",
  U: "U (unknown: the clock is not set)",
  R: "R (relative to the boot)",
};

export const hubStatus: Command = {
  summary: "how the hub is doing: wallet, agent, meters, what waits",
  usage: `Usage: ecp status [--config hub.yaml] [--qr | --no-qr] [--json]

--qr    the device's did:key also as a QR code, to compare or carry it by phone; --no-qr: not. At a terminal it is shown unless
        --no-qr says otherwise.

Exit status 0: wallet and agent answer and nothing is wrong; 1: one of them does not, or there is something to do.`,

  async run(args) {
    const qrOptions = { qr: { type: "boolean" }, "no-qr": { type: "boolean" } } as const;
    const { values } = parseCommand("ecp status", args, { ...configOption, ...jsonOption, ...qrOptions }, []);
    if (values.qr && values["no-qr"]) throw usageError("ecp status", "--qr and --no-qr together");
    const isQrShown = values["no-qr"] ? false : (values.qr ?? process.stdout.isTTY === true);
    const { configuration, policy } = readHubFile(values.config);
    const wallet = await askWallet(configuration.walletSocket);
    const agent = await askStatus<AgentStatus>(configuration.agentSocket);
    const isolated = wallet !== undefined && isolation(wallet, process.getuid?.() ?? 0).isolated;
    if (values.json) {
      const { publicKey, nameKey, policyDigest, ...rest } = wallet ?? {};
      const walletJson = wallet && {
        device: didKeyOf(nameKey as Uint8Array),
        key: didKeyOf(publicKey as Uint8Array),
        ...rest,
        policyDigest: Buffer.from(policyDigest as Uint8Array).toString("hex"),
        clock: clockStateLetters[wallet.clockState],
        isolated,
      };
      process.stdout.write(`${JSON.stringify({ wallet: walletJson ?? null, agent: agent ?? null })}\n`);
    } else {
      // First, so that what it says below stays on a small screen.
      if (wallet && isQrShown) process.stdout.write(`${qrCode(didKeyOf(wallet.nameKey))}\n`);
      if (wallet)
        process.stdout.write(
          warnings(wallet)
            .map((text) => `!! ${text}\n`)
            .join(""),
        );
      process.stdout.write(alarmText(agent?.alarms ?? []));
      const isLoraAlone = configuration.lora !== undefined && configuration.mqtt === undefined;
      const isEncryptionWanted = policy.encryptTo !== "nobody" && !isLoraAlone;
      process.stdout.write(walletText(wallet, configuration.walletSocket, isEncryptionWanted, isLoraAlone));
      process.stdout.write(agentText(agent, configuration.agentSocket));
    }
    const well =
      wallet !== undefined &&
      wallet.pinnedNodes > 0 &&
      wallet.segmentsInUse < wallet.segments * ringAlarmShare &&
      wallet.keyProtection !== "none" &&
      !wallet.retired &&
      wallet.holes === 0 &&
      agent !== undefined &&
      (agent.alarms ?? []).length === 0 &&
      (agent.uplink === undefined || agent.uplink.connected) &&
      (agent.lora === undefined || agent.lora.isJoined) &&
      agent.meters.every((meter) => meter.lastStatus === "G");
    return well ? exit.ok : exit.failed;
  },
};

async function askWallet(path: string): Promise<WalletHello | undefined> {
  const client = new WalletClient(path);
  try {
    return await client.hello();
  } catch (error) {
    if (error instanceof WalletUnavailable) return undefined;
    throw error;
  } finally {
    client.close();
  }
}

function isolation(wallet: WalletHello, ownUid: number): { isolated: boolean; text: string } {
  const flags = `${wallet.permission ? "permission model on" : "PERMISSION MODEL OFF"}, ${wallet.jitless ? "no JIT" : "WITH A JIT"}`;
  if (wallet.uid === ownUid && ownUid !== 0)
    return {
      isolated: false,
      text: `not isolated: it runs as the same user (${flags}); the systemd units give it its own`,
    };
  if (wallet.uid === 0) return { isolated: false, text: `not isolated: it runs as root (${flags})` };
  return { isolated: wallet.permission && wallet.jitless, text: `runs as user ${wallet.uid} (${flags})` };
}

/** What must not be overlooked; each says what to do. */
function warnings(wallet: WalletHello): string[] {
  const { isolated, text } = isolation(wallet, process.getuid?.() ?? 0);
  const found: string[] = [];
  if (!isolated) found.push(text);
  if (wallet.keyProtection === "none")
    found.push("key: NOT PROTECTED, made with --insecure: whoever has the card has the key");
  if (wallet.retired)
    found.push(
      "key: RETIRED: nothing more is sealed; what waits is still delivered. 'ecp-wallet init' makes a new device",
    );
  if (wallet.holes > 0)
    found.push(
      `journal: ${wallet.holes} HOLES: blocks that cannot be read any more; replace the card. 'ecp-wallet journal check' says where`,
    );
  if (wallet.segmentsInUse >= wallet.segments * ringAlarmShare)
    found.push(
      `journal: ${wallet.segmentsInUse} of ${wallet.segments} segments hold what no full node has acknowledged: mend the way to it, or carry the records: 'ecp-wallet journal export'`,
    );
  return found;
}

function alarmText(alarms: NonNullable<AgentStatus["alarms"]>): string {
  return alarms
    .map(({ kind, subject, detail, sinceMs }) => {
      const since = localTime(sinceMs);
      return `!! ${kind} (${subject}, since ${since}): ${detail}; see ${runbookOf(kind)}\n`;
    })
    .join("");
}

const recordFormTexts: Record<WalletHello["recordForm"], string> = {
  encrypted: "encrypted to a full node: no broker reads them",
  plain: "readable by every broker that they pass ('uplink: encrypt:' in hub.yaml)",
  withheld: "NOT SENT: they are to be encrypted, and no full node is pinned for it; see 'ecp enrol' and 'ecp pin'",
};

/** Epochs before the running one that are not acknowledged to their end. */
function earlierText({ earlierEpochs }: WalletHello): string[][] {
  return earlierEpochs.map(({ epoch, through, last }) => [
    "earlier",
    `epoch ${epoch}: ${last} sealed, ${through} acknowledged, ${last - through} waiting`,
  ]);
}

/** What leaves the wallet follows its policy, which may be older than hub.yaml. */
function onTheWay({ recordForm }: WalletHello, isEncryptionWanted: boolean): string {
  if (recordForm !== "plain" || !isEncryptionWanted) return recordFormTexts[recordForm];
  return "READABLE by every broker that they pass, though hub.yaml wants them encrypted: run 'ecp config apply', then restart the wallet";
}

function walletText(
  wallet: WalletHello | undefined,
  path: string,
  isEncryptionWanted: boolean,
  isLoraAlone: boolean,
): string {
  if (!wallet) return `Wallet   does not answer at ${path}; start it: ecp run, or systemctl start ecp-wallet\n`;
  const sealed = wallet.nextSequence - 1;
  const clock = clockStateLetters[wallet.clockState] ?? "U";
  const lines = [
    ["device", didKeyOf(wallet.nameKey)],
    ["key", keyText(wallet)],
    ["software", wallet.softwareId],
    ["isolation", isolation(wallet, process.getuid?.() ?? 0).text],
    ["clock", `${clockWords[clock]}${wallet.generation > 0 ? `, generation ${wallet.generation}` : ""}`],
    [
      "full nodes",
      wallet.pinnedNodes === 0
        ? "none pinned: nothing is ever released; see 'ecp enrol' and 'ecp pin'"
        : `${wallet.pinnedNodes} pinned`,
    ],
    [
      "records",
      `${sealed} sealed, ${wallet.through} acknowledged, ${sealed - wallet.through} waiting (epoch ${wallet.epoch})`,
    ],
    ...earlierText(wallet),
    ["on the way", isLoraAlone ? "readable by the LoRaWAN network server" : onTheWay(wallet, isEncryptionWanted)],
    [
      "journal",
      `${wallet.segmentsInUse} of ${wallet.segments} segments in use${wallet.pendingRows > 0 ? `, ${wallet.pendingRows} rows wait for their batch` : ""}`,
    ],
  ];
  return `Wallet\n${lines.map(([name = "", text = ""]) => `  ${name.padEnd(11)}${text}\n`).join("")}`;
}

function keyText({ publicKey, nameKey, keyProtection, retired }: WalletHello): string {
  const words = [
    equalBytes(publicKey, nameKey) ? "that of the name" : `rotated, now ${didKeyOf(publicKey)}`,
    retired ? "RETIRED: its seed is gone" : keyProtection === "none" ? "NOT PROTECTED" : "under a passphrase",
  ];
  return words.join(", ");
}

function lastTime({ lastTimeS, lastIsRelative }: AgentStatus["meters"][number]): string {
  if (lastTimeS === 0) return "no reading yet";
  return lastIsRelative ? `${lastTimeS} s after the boot` : localTime(lastTimeS * 1_000);
}

/** What waits, since when, and how long it will take. */
function waitingText({ backlog, uplink, lora }: AgentStatus): string {
  const { records, stored, rows, bytes, sinceS, remainingS } = backlog;
  const held = stored > 0 ? `${stored} more are at the full node, and kept until it has those before them` : "";
  if (records === 0) return `nothing${held && `; ${held}`}`;
  const pace =
    remainingS !== undefined
      ? `about ${durationText(remainingS)} at this pace`
      : uplink?.connected || (lora && !uplink)
        ? "it does not shrink, or not for long enough to say how long it will take"
        : "until the uplink is connected";
  return [
    `${records} records (about ${rows} readings, ${Math.ceil(bytes / 1_024)} KiB)`,
    `the oldest since ${sinceS === undefined ? "before this agent started" : localTime(sinceS * 1_000)}`,
    pace,
    held,
  ]
    .filter(Boolean)
    .join("; ");
}

function agentText(agent: AgentStatus | undefined, path: string): string {
  if (!agent) return `Agent    does not answer at ${path}; start it: ecp run, or systemctl start ecp-agent\n`;
  const { uplink, lora } = agent;
  const uplinkText = !uplink
    ? lora
      ? "LoRaWAN alone"
      : "none configured"
    : `${uplink.address} ${uplink.connected ? "connected" : `NOT connected: ${uplink.detail || "trying"}`}`;
  const rows = agent.meters.map((meter) => [
    meter.name,
    meter.lastStatus || "–",
    lastTime(meter),
    `${meter.unsealedRows}`,
    `${meter.missedSlots}`,
    `${meter.lateReadings}`,
    `${meter.lostRows}`,
    meter.line,
  ]);
  const columns = [
    { title: "meter" },
    { title: "status" },
    { title: "last reading" },
    { title: "unsealed", align: "right" },
    { title: "missed", align: "right" },
    { title: "late", align: "right" },
    { title: "lost", align: "right" },
    { title: "line" },
  ] as const;
  return `Agent\n  uplink     ${uplinkText}\n${lora ? loraText(lora) : ""}  waiting    ${waitingText(agent)}\n\n${formatTable(columns, rows, terminalColumns())}`;
}
