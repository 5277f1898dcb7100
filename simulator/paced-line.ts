/** A serial line that keeps the character times of its speed and is understood only by who has the same settings: on a pty. */
import { isFramingShared, type LineFraming, readFraming } from "./paced-line-framing.ts";
import { PacedWire, type PacedWireOptions, type WireStatistics } from "./paced-line-wire.ts";
import { openPty, type Pty } from "./pty.ts";

export interface PacedLineOptions extends PacedWireOptions {
  /** A pty that is there already; it is closed with the line. Default: a new one. */
  readonly pty?: Pty;
  /**
   * What a program with another speed or parity gets: `garbage` as long as the answer, `silence` (slaves that check parity), or the
   * answer all the same (`not checked`, the default for a benchmark: the check runs stty at each request). Default `garbage`.
   */
  readonly otherFraming?: "garbage" | "silence" | "not checked";
  /**
   * `timers`: a character may be late by a millisecond or two. `spin`: on time, at the cost of a processor while there is traffic; for
   * a benchmark, in a process of its own. Default `timers`.
   */
  readonly pace?: "timers" | "spin";
}

export interface PacedLine {
  /** What a program opens as its serial port. */
  readonly path: string;
  readonly statistics: Readonly<WireStatistics>;
  /** Puts bytes on the wire that nobody asked for. */
  send(bytes: Uint8Array): void;
  close(): Promise<void>;
}

/** How long it goes on spinning when nothing is on the wire: longer than a master needs between two requests. */
const spinMs = 50;

/** @throws Error when no pty can be made */
export function openPacedLine(options: PacedLineOptions): PacedLine {
  const { otherFraming = "garbage", pace = "timers", pty = openPty() } = options;
  const wire = new PacedWire(options);
  let isOpen = true;
  let timer: NodeJS.Timeout | undefined;
  let spinning: NodeJS.Immediate | undefined;
  let lastTrafficMs = 0;
  let framing: Promise<LineFraming | undefined> = Promise.resolve(undefined);
  let tail: Promise<void> = Promise.resolve();

  const write = (bytes: Uint8Array): void => {
    if (otherFraming === "not checked") {
      pty.write(bytes);
      return;
    }
    // The check was begun with the request; what it says is known long before the answer, unless the line is very fast.
    const checked = framing;
    tail = tail.then(async () => {
      const theirs = await checked;
      if (!isOpen) return;
      if (theirs === undefined || isFramingShared(options, theirs)) pty.write(bytes);
      else if (otherFraming === "garbage") pty.write(garbageOf(bytes));
    });
  };
  const advance = (): void => {
    const nowMs = performance.now();
    for (let due = wire.takeDue(nowMs); due !== undefined; due = wire.takeDue(nowMs)) write(due);
  };
  const arm = (): void => {
    if (!isOpen || pace === "spin") return;
    clearTimeout(timer);
    const { nextAtMs } = wire;
    if (nextAtMs === Number.POSITIVE_INFINITY) return;
    // A timer may fire early: advance() looks at the real time, and it is armed again.
    timer = setTimeout(
      () => {
        advance();
        arm();
      },
      Math.max(1, nextAtMs - performance.now()),
    );
  };
  const spin = (): void => {
    spinning = undefined;
    advance();
    const isBusy = wire.nextAtMs !== Number.POSITIVE_INFINITY || performance.now() - lastTrafficMs < spinMs;
    if (isOpen && isBusy) spinning = setImmediate(spin);
  };
  const wake = (): void => {
    lastTrafficMs = performance.now();
    if (pace === "timers") arm();
    else spinning ??= setImmediate(spin);
  };

  pty.onData((bytes) => {
    const nowMs = performance.now();
    advance(); // what was due before these bytes came
    if (otherFraming !== "not checked") framing = readFraming(pty.path).catch(() => undefined);
    wire.receive(bytes, nowMs);
    wake();
  });
  return {
    path: pty.path,
    statistics: wire.statistics,
    send: (bytes) => {
      wire.send(bytes, performance.now());
      wake();
    },
    close: async () => {
      isOpen = false;
      clearTimeout(timer);
      clearImmediate(spinning);
      await pty.close();
    },
  };
}

/** What a receiver of another speed or parity makes of characters: as many, none of them right, and no frame among them. */
function garbageOf(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte, index) => (byte ^ 0xff) & (0x7e | (index & 0x81)));
}
