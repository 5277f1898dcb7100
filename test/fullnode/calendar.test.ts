// Slots of a time zone tile the time, without gap or overlap, and begin where clocks say so; days of a change have 23 or 25 hours.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Calendar, type Resolution } from "../../fullnode/calendar.ts";

const at = (iso: string) => Date.parse(iso) / 1_000;

test("days of Berlin have 24 hours, and 23 or 25 where the clock changes", () => {
  const berlin = new Calendar("Europe/Berlin");
  const hours = (day: string) => {
    const { startS, endS } = berlin.slotAt("day", at(`${day}T12:00:00Z`));
    return [berlin.text(startS), (endS - startS) / 3_600];
  };
  assert.deepEqual(hours("2026-03-28"), ["2026-03-28T00:00:00+01:00", 24]);
  assert.deepEqual(hours("2026-03-29"), ["2026-03-29T00:00:00+01:00", 23]);
  assert.deepEqual(hours("2026-10-25"), ["2026-10-25T00:00:00+02:00", 25]);
  assert.deepEqual(hours("2026-10-26"), ["2026-10-26T00:00:00+01:00", 24]);
  // The hour that comes twice is two slots.
  const twice = [at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z")].map((timeS) => berlin.slotAt("hour", timeS));
  assert.deepEqual(
    twice.map(({ startS }) => berlin.text(startS)),
    ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"],
  );
  const march = berlin.slotAt("month", at("2026-03-31T21:59:59Z"));
  assert.equal((march.endS - march.startS) / 3_600, 31 * 24 - 1);
  assert.equal(berlin.text(march.endS), "2026-04-01T00:00:00+02:00");
});

test("a zone that does not exist is a RangeError", () => {
  assert.throws(() => new Calendar("Europe/Atlantis"), RangeError);
});

const zones = [
  ...["UTC", "Europe/Berlin", "America/Sao_Paulo", "America/St_Johns", "Asia/Kolkata", "Asia/Kathmandu"],
  ...["Australia/Lord_Howe", "Asia/Beirut", "Africa/Cairo", "Pacific/Apia", "Pacific/Chatham", "America/Havana"],
];

for (const zone of zones)
  test(`slots of ${zone} tile the time, whatever its clocks do`, () => {
    const calendar = new Calendar(zone);
    const clock = new Intl.DateTimeFormat("en-CA", { timeZone: zone, dateStyle: "short" });
    // Years with changes at midnight (Sao Paulo, Beirut, Havana) and a day that never was (Apia, 2011-12-30).
    for (const year of [2011, 2017, 2026])
      for (const resolution of ["hour", "day", "month"] as const satisfies readonly Resolution[]) {
        const endS = at(`${year + 1}-01-02T00:00:00Z`);
        let slot = calendar.slotAt(resolution, at(`${year}-01-01T00:00:00Z`));
        while (slot.endS < endS) {
          assert.ok(slot.endS > slot.startS, calendar.text(slot.startS));
          for (const inside of [slot.startS, (slot.startS + slot.endS) / 2, slot.endS - 1])
            assert.deepEqual(calendar.slotAt(resolution, inside), slot, `${resolution} ${calendar.text(inside)}`);
          if (resolution === "day")
            assert.equal(clock.format(slot.startS * 1_000), clock.format((slot.endS - 1) * 1_000));
          const next = calendar.slotAt(resolution, slot.endS);
          assert.equal(next.startS, slot.endS, `${resolution} ${calendar.text(slot.endS)}`);
          slot = next;
        }
      }
  });
