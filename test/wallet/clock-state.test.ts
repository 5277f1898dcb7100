// What the wallet says of the system's clock: S only by a time daemon's own mark, that is fresh and newer than the last step.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { clockStateLetters } from "../../protocol/reading-status.ts";
import { ClockState, type ClockStateOptions, timeMarkPaths } from "../../wallet/clock-state.ts";
import { startS, TestClock } from "./wallet-fixture.ts";

const timesyncd = "run/systemd/timesync/synchronized";
const chronyDrift = "var/lib/chrony/chrony.drift";

function machine(t: TestContext, options: Partial<ClockStateOptions> = {}) {
  const root = mkdtempSync(path.join(tmpdir(), "ecp-clock-test-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const clock = new TestClock();
  clock.pass(1_000); // some time after the boot
  let state: ClockState | undefined;
  return {
    clock,
    /** What is there before the wallet starts, or after. */
    touch(name: string, wallMs = clock.wallMs()): void {
      const file = path.join(root, name);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, "");
      utimesSync(file, wallMs / 1_000, wallMs / 1_000);
    },
    folder(name: string): void {
      mkdirSync(path.join(root, name), { recursive: true });
    },
    start(): void {
      state = new ClockState({ clock, root, ...options });
    },
    /** Looks as each request and each tick does. */
    letter(): string | undefined {
      state ??= new ClockState({ clock, root, ...options });
      state.look();
      return clockStateLetters[state.state()];
    },
  };
}

test("without a mark the clock is informative, and unknown before 2025", (t) => {
  const { clock, letter } = machine(t);
  assert.equal(letter(), "I");
  clock.set(1_735_689_599);
  assert.equal(letter(), "U");
  clock.set(0);
  assert.equal(letter(), "U");
});

test("timesyncd's mark makes it synchronised while it is touched again and again, and no longer", (t) => {
  const { clock, letter, touch } = machine(t);
  touch(timesyncd);
  assert.equal(letter(), "S");
  for (let poll = 0; poll < 5; poll++) {
    clock.pass(2_048);
    assert.equal(letter(), "S");
    touch(timesyncd);
  }
  clock.pass(3 * 2_048);
  assert.equal(letter(), "S");
  clock.pass(10);
  assert.equal(letter(), "I", "three polls were missed");
  touch(timesyncd);
  clock.pass(1);
  assert.equal(letter(), "S");
});

test("a mark from the future says nothing", (t) => {
  const { clock, letter, touch } = machine(t);
  touch(timesyncd, clock.wallMs() + 60_000);
  assert.equal(letter(), "I");
});

test("chrony's drift file counts only while chrony is there, and for two hours", (t) => {
  const { clock, letter, touch, folder } = machine(t);
  touch(chronyDrift);
  assert.equal(letter(), "I", "a file that an uninstalled chrony left behind");
  folder("run/chrony");
  clock.pass(1);
  assert.equal(letter(), "S");
  clock.pass(7_201);
  assert.equal(letter(), "I");
});

test("after a step, forth or back, the mark must be touched again", (t) => {
  for (const stepS of [-86_400, -30, -2, 2, 30, 5_000]) {
    const { clock, letter, touch } = machine(t);
    touch(timesyncd);
    assert.equal(letter(), "S");
    clock.pass(5);
    clock.set(clock.wallMs() / 1_000 + stepS);
    assert.equal(letter(), "I", `${stepS} s`);
    clock.pass(60);
    assert.equal(letter(), "I", `${stepS} s, a minute later`);
    touch(timesyncd);
    clock.pass(5);
    assert.equal(letter(), "S", `${stepS} s, synchronised again`);
  }
});

test("a step by the daemon itself, which touches the mark at once, is synchronised at once", (t) => {
  const { clock, letter, touch, start } = machine(t);
  clock.set(86_400);
  start();
  clock.pass(3);
  clock.set(startS);
  clock.pass(1);
  touch(timesyncd);
  clock.pass(1);
  assert.equal(letter(), "S");
  // Control: a mark that was touched before the step, by the old time, is none.
  const other = machine(t);
  other.start();
  other.clock.pass(3);
  other.touch(timesyncd);
  other.clock.pass(1);
  other.clock.set(startS + 600);
  assert.equal(other.letter(), "I");
});

test("a clock that stands a day before what is sealed is not believed, unless it is synchronised", (t) => {
  const { letter, touch, clock } = machine(t, { newestS: startS + 90_000 });
  assert.equal(letter(), "U");
  touch(timesyncd);
  clock.pass(5);
  assert.equal(letter(), "S");
  assert.equal(machine(t, { newestS: startS + 80_000 }).letter(), "I", "control: less than a day");
});

test("half a second, or a second in a month as slewing makes it, is no step", () => {
  const clock = new TestClock();
  const state = new ClockState({ clock, root: "/nonexistent" });
  for (let i = 0; i < 100; i++) {
    clock.pass(1);
    clock.set(clock.wallMs() / 1_000 + 0.0005);
    assert.equal(state.look(), 0);
  }
  clock.set(clock.wallMs() / 1_000 + 1.6);
  assert.equal(state.look(), 2);
  assert.equal(state.look(), 0, "once");
  clock.set(clock.wallMs() / 1_000 - 90);
  assert.equal(state.look(), -90);
});

test("the marks are read where the system has them, or under the folder that was named", () => {
  assert.ok(timeMarkPaths().includes(`/${timesyncd}`));
  assert.ok(timeMarkPaths("/elsewhere").every((name) => name.startsWith("/elsewhere/")));
});
