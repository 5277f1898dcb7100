import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Part, type PartOptions } from "../../platform/supervisor.ts";

/** A part that runs a line of JavaScript, what happens to it, and a way to wait for the next of that. */
class PartFixture {
  readonly happened: string[] = [];
  readonly part: Part;
  #news: () => void = () => undefined;

  constructor(t: TestContext, script: string, more: Partial<PartOptions> = {}, restartAfterMs = 10, stopGraceMs = 200) {
    const note = (text: string): void => {
      this.happened.push(text);
      this.#news();
    };
    this.part = new Part(
      {
        name: "part",
        command: process.execPath,
        arguments: () => ["-e", script],
        onLine: (line) => note(line),
        onErrorLine: (line) => note(`error: ${line}`),
        onStart: (pid) => note(pid > 1 ? "start" : "?"),
        onExit: (code, signal) => note(`exit ${code ?? signal}`),
        ...more,
      },
      restartAfterMs,
      stopGraceMs,
    );
    t.after(() => this.part.stop());
    this.part.start();
  }

  /** Resolves when so many of an event have happened. */
  async until(event: string, times = 1): Promise<void> {
    while (this.happened.filter((item) => item === event).length < times)
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
  }
}

const stayScript = "console.log('up'); setInterval(() => {}, 1000)";

test("a child that ends is started again, and each start asks for its arguments anew", async (t) => {
  let starts = 0;
  const script = (): string[] => ["-e", `console.log('run ${++starts}'); process.exit(3)`];
  const fixture = new PartFixture(t, "", { arguments: script });
  await fixture.until("run 3");
  assert.deepEqual(fixture.happened.slice(0, 6), ["start", "run 1", "exit 3", "start", "run 2", "exit 3"]);
});

test("a child that is killed is started again", async (t) => {
  const fixture = new PartFixture(t, stayScript);
  await fixture.until("up");
  process.kill(fixture.part.pid as number, "SIGKILL");
  await fixture.until("up", 2);
  assert.deepEqual(fixture.happened, ["start", "up", "exit SIGKILL", "start", "up"]);
});

test("a final exit code ends it: no new start", async (t) => {
  const fixture = new PartFixture(t, "process.exit(78)", { finalExitCodes: [77, 78] }, 0);
  await fixture.until("exit 78");
  const other = new PartFixture(t, "process.exit(79)", { finalExitCodes: [77, 78] }, 0);
  await other.until("start", 3); // control: another code is no reason to stay down
  assert.equal(fixture.part.pid, undefined);
  assert.deepEqual(fixture.happened, ["start", "exit 78"]);
});

test("stop() ends the child, resolves when it is gone, and nothing starts again", async (t) => {
  const fixture = new PartFixture(t, stayScript, {}, 0);
  await fixture.until("up");
  const pid = fixture.part.pid as number;
  await fixture.part.stop();
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
  fixture.part.start();
  assert.equal(fixture.part.pid, undefined);
  assert.deepEqual(fixture.happened, ["start", "up"]); // an end that was asked for is no exit to report
});

test("a child that ignores SIGTERM is killed after the grace", async (t) => {
  const fixture = new PartFixture(t, `process.on('SIGTERM', () => console.log('no')); ${stayScript}`);
  await fixture.until("up");
  const pid = fixture.part.pid as number;
  await fixture.part.stop();
  assert.ok(fixture.happened.includes("no"));
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
});

test("stop() between death and new start leaves it down", async (t) => {
  const fixture = new PartFixture(t, "process.exit(1)", {}, 60_000);
  await fixture.until("exit 1");
  await fixture.part.stop();
  assert.equal(fixture.part.pid, undefined);
});

test("a grandchild that holds the pipes open delays neither the news of the end nor stop()", async (t) => {
  const script = `
    const { spawn } = require('node:child_process');
    const held = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 20000)'], { stdio: ['ignore', 'inherit', 'inherit'], detached: true });
    held.unref();
    console.log('grandchild ' + held.pid);
    process.exitCode = 5;`;
  const fixture = new PartFixture(t, script, {}, 60_000);
  t.after(() => {
    for (const line of fixture.happened) {
      const [, pid] = /^grandchild (\d+)$/.exec(line) ?? [];
      if (pid) process.kill(Number(pid), "SIGKILL");
    }
  });
  const startMs = performance.now();
  await fixture.until("exit 5");
  assert.ok(performance.now() - startMs < 15_000);
});

test("a program that is not there is an exit 127 with its reason, and is tried again", async (t) => {
  const fixture = new PartFixture(t, "", { command: "/nonexistent/program" });
  await fixture.until("exit 127", 2);
  assert.match(fixture.happened[0] ?? "", /^error: part: cannot be started: .*ENOENT/);
});

test("lines come whole, whatever the pieces, and the last one without its end", async (t) => {
  const script = `
    const out = (text) => require('node:fs').writeSync(1, text);
    out('one\\ntw'); out('o\\nthr'); out('ee'); process.stderr.write('bad\\n'); process.exitCode = 1;`;
  const fixture = new PartFixture(t, script, {}, 60_000);
  await fixture.until("exit 1");
  assert.deepEqual(
    fixture.happened.filter((item) => item !== "error: bad"),
    ["start", "one", "two", "three", "exit 1"],
  );
  assert.ok(fixture.happened.includes("error: bad"));
});

test("a line without an end is cut, not kept", async (t) => {
  const script = `require('node:fs').writeSync(1, 'x'.repeat(60000)); for (let i = 0; i < 40; i++) require('node:fs').writeSync(1, 'y'.repeat(60000)); process.exitCode = 1`;
  const fixture = new PartFixture(t, script, {}, 60_000);
  await fixture.until("exit 1");
  const line = fixture.happened.find((item) => item.startsWith("x")) ?? "";
  assert.equal(line.length, 1_048_576);
});
