/**
 * Which records to send next, over all epochs that the wallet still holds: a window over each. Those of earlier epochs go
 * first; where they wait for receipts, the running one goes on beside them. Pure, like the forwarder that it is made of.
 */
import type { WalletHello } from "../protocol/wallet-message.ts";
import { Forwarder } from "./forwarder.ts";

export interface EpochForwarder {
  readonly epoch: number;
  readonly forwarder: Forwarder;
}

export class EpochForwarders {
  /** Oldest first, the running one last. */
  #epochs: readonly EpochForwarder[] = [];
  #before = new Forwarder();

  /** What the wallet says; `anew` when it is met: then all that is not released is sent again. */
  meet(hello: WalletHello, anew: boolean): void {
    const known = new Map(this.#epochs.map(({ epoch, forwarder }) => [epoch, forwarder]));
    const states = [
      ...hello.earlierEpochs,
      { epoch: hello.epoch, through: hello.through, last: hello.nextSequence - 1 },
    ];
    this.#epochs = states.map(({ epoch, through, last }) => {
      const forwarder = known.get(epoch) ?? new Forwarder();
      if (anew || !known.has(epoch)) forwarder.begin(epoch, through, last);
      else forwarder.learn(through, last);
      return { epoch, forwarder };
    });
  }

  get all(): readonly EpochForwarder[] {
    return this.#epochs;
  }
  /** That of the running epoch; an empty one before the wallet was met. */
  get running(): Forwarder {
    return this.#epochs.at(-1)?.forwarder ?? this.#before;
  }
  /** Records that wait for a receipt. */
  get waiting(): number {
    return this.#epochs.reduce((sum, { forwarder }) => sum + forwarder.waiting, 0);
  }
  of(epoch: number): Forwarder | undefined {
    return this.#epochs.find((item) => item.epoch === epoch)?.forwarder;
  }

  /** There is a new connection: what was sent may be lost. */
  restart(): void {
    for (const { forwarder } of this.#epochs) forwarder.restart();
  }
}
