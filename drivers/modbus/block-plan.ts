/** Merges registers into as few and as short requests as cost least time on the line. Pure. */

/** A register or pair to be read. */
export interface RegisterSpan {
  readonly functionCode: 3 | 4;
  readonly address: number;
  /** Registers it takes: 2 for a float32. */
  readonly count: number;
}

/** One request. */
export type RegisterBlock = RegisterSpan;

export interface BlockLimits {
  readonly maxRegistersPerRequest: number;
  /** Address and count of every block must be multiples of this. */
  readonly countStep: number;
  /** What one more request costs, in registers (ModbusLine.requestCostRegisters). */
  readonly requestCostRegisters: number;
  /** Requests that this meter refused: no block of several spans covers one of them. */
  readonly refused?: readonly RegisterBlock[];
}

/**
 * The cheapest cover of the spans: the sum over the blocks of their registers plus the cost of each request is least.
 * Reading a gap in vain is taken when it is cheaper than asking twice. Blocks come in ascending order.
 */
export function planBlocks(spans: readonly RegisterSpan[], limits: BlockLimits): RegisterBlock[] {
  return ([3, 4] as const).flatMap((functionCode) =>
    planOneTable(
      spans.filter((span) => span.functionCode === functionCode),
      limits,
    ),
  );
}

function planOneTable(spans: readonly RegisterSpan[], limits: BlockLimits): RegisterBlock[] {
  const { countStep: step, maxRegistersPerRequest, requestCostRegisters, refused = [] } = limits;
  const sorted = [...spans].sort((a, b) => a.address - b.address);
  // best[n]: the cheapest plan of the first n spans, and where its last block begins.
  const best: { cost: number; block?: RegisterBlock; before: number }[] = [{ cost: 0, before: 0 }];
  for (let last = 1; last <= sorted.length; last++) {
    let choice: { cost: number; block?: RegisterBlock; before: number } = { cost: Number.POSITIVE_INFINITY, before: 0 };
    let end = 0;
    for (let first = last - 1; first >= 0; first--) {
      const span = sorted[first]!;
      end = Math.max(end, span.address + span.count);
      const address = Math.floor(span.address / step) * step;
      const count = Math.ceil((end - address) / step) * step;
      if (count > maxRegistersPerRequest) break;
      // A span by itself has to be asked for as it is, whatever was refused before.
      const block = { functionCode: span.functionCode, address, count };
      if (end - span.address > span.count && refused.some((other) => coversSpan(block, other))) break;
      const cost = best[first]!.cost + requestCostRegisters + count;
      if (cost < choice.cost) choice = { cost, before: first, block };
    }
    if (choice.block === undefined) {
      throw new RangeError(`register 0x${sorted[last - 1]!.address.toString(16)} is wider than one request may be`);
    }
    best.push(choice);
  }
  const blocks: RegisterBlock[] = [];
  for (let n = sorted.length; n > 0; n = best[n]!.before) blocks.unshift(best[n]!.block!);
  return blocks;
}

/** Whether a block holds all registers of a span. */
export function coversSpan(block: RegisterBlock, span: RegisterSpan): boolean {
  return (
    block.functionCode === span.functionCode &&
    block.address <= span.address &&
    span.address + span.count <= block.address + block.count
  );
}
