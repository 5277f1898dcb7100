// What one would write without the project: modbus-serial reads the same registers of the same meters each full second, mqtt.js
// publishes them as JSON. Nothing is signed, nothing is stored. `agent-plain.mjs '{"modbusPort": …, "mqttPort": …, "meters": 1, …}'`
import modbusSerial from "modbus-serial";
import mqtt from "mqtt";

const options = JSON.parse(process.argv[2]);
const names = ["voltage", "current", "power"].flatMap((name) => [1, 2, 3].map((phase) => `${name}_l${phase}`));
const client = await mqtt.connectAsync({
  ...{ host: "127.0.0.1", port: options.mqttPort, username: options.username, password: options.password },
  protocolVersion: 5,
});
const modbus = new modbusSerial.default();
await modbus.connectTCP("127.0.0.1", { port: options.modbusPort });
modbus.setTimeout(500);

async function readAll() {
  for (let unit = 1; unit <= options.meters; unit++) {
    modbus.setID(unit);
    const values = {};
    for (const [address, count] of options.blocks) {
      const { buffer } = await modbus.readInputRegisters(address, count);
      for (let i = 0; i < buffer.length / 4; i++) values[names[i] ?? `r${address + 2 * i}`] = buffer.readFloatBE(4 * i);
    }
    client.publish(`plain/${unit}`, JSON.stringify({ time: Date.now(), ...values }), { qos: 1 });
  }
}

function atNextSecond() {
  setTimeout(() => void readAll().finally(atNextSecond), 1_000 - (Date.now() % 1_000));
}
atNextSecond();
process.stdout.write('{"ready":true}\n');
