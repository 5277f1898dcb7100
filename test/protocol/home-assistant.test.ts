// What Home Assistant documents: keys of https://www.home-assistant.io/integrations/sensor.mqtt/, device
// classes with their units of https://www.home-assistant.io/integrations/sensor/, state classes of its developers' documentation.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type HomeMeter, homeDiscovery, homeValue } from "../../protocol/home-assistant.ts";
import { quantities } from "../../protocol/quantity.ts";

const sensorKeys = new Set(
  `availability availability_mode availability_template availability_topic default_entity_id device device_class enabled_by_default
  encoding entity_category entity_picture expire_after force_update icon json_attributes_template json_attributes_topic
  last_reset_value_template name object_id options origin payload_available payload_not_available platform qos state_class state_topic
  suggested_display_precision unique_id unit_of_measurement value_template`.split(/\s+/),
);
const deviceKeys = new Set(
  `configuration_url connections hw_version identifiers manufacturer model model_id name serial_number suggested_area sw_version
  via_device`.split(/\s+/),
);
const originKeys = new Set(["name", "sw_version", "support_url"]);
/** Device class → units, state classes. */
const classes: Readonly<Record<string, readonly [units: readonly (string | undefined)[], states: readonly string[]]>> =
  {
    power: [["mW", "W", "kW", "MW", "GW", "TW"], ["measurement"]],
    energy: [
      ["J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh"],
      ["total", "total_increasing"],
    ],
    energy_storage: [["J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh"], ["measurement"]],
    reactive_power: [["mvar", "var", "kvar"], ["measurement"]],
    reactive_energy: [
      ["varh", "kvarh"],
      ["total", "total_increasing"],
    ],
    apparent_power: [["mVA", "VA", "kVA"], ["measurement"]],
    voltage: [["μV", "mV", "V", "kV", "MV"], ["measurement"]],
    current: [["mA", "A"], ["measurement"]],
    frequency: [["mHz", "Hz", "kHz", "MHz", "GHz"], ["measurement"]],
    power_factor: [["%", undefined], ["measurement"]],
    battery: [["%"], ["measurement"]],
  };

const meter: HomeMeter = { source: "hub", device: "z6Mkx", meter: 3, name: "house", expireAfterS: 60 };
const discovered = quantities.flatMap(({ code, name }) => {
  const message = homeDiscovery(meter, code, "z6Mkx", "0.1.0");
  return message
    ? [{ code, name, topic: message.topic, payload: JSON.parse(message.payload) as Record<string, unknown> }]
    : [];
});

test("what is described is what Home Assistant documents: keys, units of a device class, state classes", () => {
  assert.ok(discovered.length >= 28, `${discovered.length}`);
  for (const { name, topic, payload } of discovered) {
    for (const key of Object.keys(payload)) assert.ok(sensorKeys.has(key), `${name}: ${key}`);
    for (const key of Object.keys(payload.device as object)) assert.ok(deviceKeys.has(key), `${name}: device ${key}`);
    for (const key of Object.keys(payload.origin as object)) assert.ok(originKeys.has(key), `${name}: origin ${key}`);
    assert.match(topic, /^homeassistant\/sensor\/[a-zA-Z0-9_-]+\/config$/);
    assert.equal(topic, `homeassistant/sensor/${payload.unique_id}/config`);
    if (payload.device_class === undefined) continue;
    const [units, states] = classes[payload.device_class as string] ?? assert.fail(`${name}: ${payload.device_class}`);
    assert.ok(
      units.includes(payload.unit_of_measurement as string | undefined),
      `${name}: ${payload.unit_of_measurement}`,
    );
    assert.ok(states.includes(payload.state_class as string), `${name}: ${payload.state_class}`);
  }
});

test("registers are what rises and powers what is measured, and each has its own topic and id", () => {
  const of = (name: string) => discovered.find((item) => item.name === name)?.payload;
  assert.deepEqual(
    [
      of("active-energy-import")?.device_class,
      of("active-energy-import")?.state_class,
      of("active-energy-import")?.unit_of_measurement,
    ],
    ["energy", "total_increasing", "kWh"],
  );
  assert.deepEqual(
    [of("active-power-import")?.device_class, of("active-power-import")?.state_class],
    ["power", "measurement"],
  );
  assert.equal(new Set(discovered.map(({ payload }) => payload.unique_id)).size, discovered.length);
  assert.equal(new Set(discovered.map(({ payload }) => payload.state_topic)).size, discovered.length);
  assert.equal(of("storage-state"), undefined);
});

test("values are exact decimals in the unit of their description", () => {
  assert.deepEqual(homeValue(meter, 2, 53_727), {
    topic: "ecp-home/hub/z6Mkx/3/active-energy-import",
    payload: "53.727",
  });
  assert.equal(homeValue(meter, 29, -5)?.payload, "-0.005");
  assert.equal(homeValue(meter, 18, 1_000)?.payload, "100.0");
  assert.equal(homeValue(meter, 5, -12)?.payload, "-12");
  assert.equal(homeValue(meter, 37, 1), undefined);
  assert.equal(homeValue(meter, 9_999, 1), undefined);
  for (const { code, payload } of discovered) {
    const text = homeValue(meter, code, 1_234_567)?.payload ?? "";
    assert.equal(text.split(".")[1]?.length ?? 0, payload.suggested_display_precision);
    assert.ok(Number.isFinite(Number(text)));
  }
});
