/** A store with a fault, for controls: the rows of a record count when it arrives, not when its chain is whole up to it. */
import type { CountedRow, Store, StoreTransaction } from "../fullnode/store.ts";
import { decodeCose } from "../protocol/cose-sign1.ts";
import { clockStates, statuses } from "../protocol/reading-status.ts";
import { decodeRecordPayload } from "../protocol/record.ts";

/** The rows of the record as the chain counts them. */
function rowsOf(bytes: Uint8Array): readonly CountedRow[] {
  const content = decodeRecordPayload(decodeCose(bytes).payload);
  if (content.kind !== "reading") return [];
  const { meter, generation, slotS, codes, clockState, rows } = content;
  return rows.map(({ timeS, status, values }) => ({
    meter,
    generation,
    timeS,
    slotS,
    status,
    booked: clockState !== clockStates.relative && status === statuses.good,
    values: values.flatMap((value, i) => [codes[i] as number, value]),
  }));
}

export function bookingOnArrival(store: Store): Store {
  const withFault = (tx: StoreTransaction): StoreTransaction => ({
    ...tx,
    addSeat: async (device, epoch, seat, declared) => {
      await tx.addSeat(device, epoch, seat, declared);
      await tx.countRows(device, epoch, seat.sequence, rowsOf(seat.bytes));
    },
    countRows: () => undefined,
  });
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (name === "transaction")
        return (scope: Parameters<Store["transaction"]>[0], work: (tx: StoreTransaction) => Promise<unknown>) =>
          target.transaction(scope, (tx) => work(withFault(tx)));
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
