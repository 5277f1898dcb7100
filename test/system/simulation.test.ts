/** The simulation of hub, network and full node: that it repeats itself, that it holds, and that it would find what is wrong. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { plantedBugs } from "../../bench/simulation/fault-plan.ts";
import { SimulationGround, simulate } from "../../bench/simulation/simulation.ts";
import { randomOfRun } from "../protocol/seeded-random.ts";

const ground = new SimulationGround();
after(() => ground.remove());
const { seed: first } = randomOfRun();
const bugSeedsMax = 200;

test("the same seed gives the same run, another seed another one", async () => {
  const one = await simulate(ground, { seed: first });
  const again = await simulate(ground, { seed: first });
  const other = await simulate(ground, { seed: (first + 1) >>> 0 });
  assert.equal(again.digest, one.digest, `seed ${first}`);
  assert.deepEqual(again.figures, one.figures);
  assert.notEqual(other.digest, one.digest);
});

test("whatever fails, all that was sealed is stored once, as it was read, and every receipt is kept", async () => {
  let faults = 0;
  for (let i = 0; i < 10; i++) {
    const seed = (first + i) >>> 0;
    const { violations, figures } = await simulate(ground, { seed });
    assert.deepEqual(violations, [], `seed ${seed}: node bench/campaign-seeds.ts --seed ${seed} --short repeats it`);
    faults += figures.faults;
  }
  assert.ok(faults > 0, "nothing failed: the simulation has tested nothing");
});

for (const bug of plantedBugs)
  test(`the bug ${bug} is found`, async () => {
    for (let i = 0; i < bugSeedsMax; i++) {
      const { violations } = await simulate(ground, { seed: (first + i) >>> 0, bug });
      if (violations.length > 0) return;
    }
    assert.fail(`${bugSeedsMax} seeds from ${first} on did not find it`);
  });
