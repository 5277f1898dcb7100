/** A wallet's socket that answers as a test says: for the agent's side of the conversation, faults included. */
import { createServer, type Server, type Socket } from "node:net";
import { FrameParser, frameOf } from "../../platform/framed-channel.ts";
import type { CborMap } from "../../protocol/deterministic-cbor.ts";
import { helloFields, type WalletHello } from "../../protocol/wallet-hello.ts";
import {
  decodeWalletRequest,
  encodeAnswer,
  encodeRefusal,
  WalletRefusal,
  type WalletRequest,
} from "../../protocol/wallet-message.ts";

// The public key of RFC 8032 §7.1, test 1.
const sampleKey = Uint8Array.from(
  Buffer.from("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "hex"),
);

export const sampleHello: WalletHello = {
  softwareId: "scripted",
  publicKey: sampleKey,
  nameKey: sampleKey,
  epoch: 7,
  nextSequence: 1,
  through: 0,
  policyDigest: new Uint8Array(32),
  clockState: 0,
  generation: 0,
  permission: true,
  jitless: true,
  uid: 1_000,
  meters: [{ index: 0, slotS: 1, lastTimeS: 0 }],
  sealEveryS: 0,
  pinnedNodes: 1,
  segments: 4,
  segmentsInUse: 1,
  pendingRows: 0,
  firstSequence: 1,
  earlierEpochs: [],
  keyProtection: "passphrase",
  retired: false,
  holes: 0,
  recordForm: "plain",
  plans: [],
};

/** What to do with a request: fields, a refusal, or whatever the function does with the socket itself. */
export type Reply = CborMap | WalletRefusal | ((socket: Socket, id: number) => void);

export class ScriptedWallet {
  readonly path: string;
  readonly requests: WalletRequest[] = [];
  connections = 0;
  #answer: (request: WalletRequest) => Reply;
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();

  constructor(path: string, answer: (request: WalletRequest) => Reply = () => helloFields(sampleHello)) {
    this.path = path;
    this.#answer = answer;
  }

  /** Answers this way from now on. */
  script(answer: (request: WalletRequest) => Reply): void {
    this.#answer = answer;
  }

  async start(): Promise<void> {
    this.#server = createServer((socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => socket.destroy());
      const parser = new FrameParser(65_536);
      socket.on("data", (bytes) => {
        for (const message of parser.push(bytes)) this.#reply(socket, message);
      });
    });
    await new Promise<void>((resolve) => this.#server?.listen(this.path, resolve));
  }

  #reply(socket: Socket, message: Uint8Array): void {
    const { id, request } = decodeWalletRequest(message);
    if (request instanceof WalletRefusal) throw request;
    this.requests.push(request);
    const reply = this.#answer(request);
    if (typeof reply === "function") reply(socket, id);
    else if (reply instanceof WalletRefusal) socket.write(frameOf(encodeRefusal(id, reply)));
    else socket.write(frameOf(encodeAnswer(id, reply)));
  }

  /** As when its process is killed: the socket's file goes too, so that it can be started again. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}
