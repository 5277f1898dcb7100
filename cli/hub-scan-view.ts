/** What ecp scan shows: one line that is rewritten while it searches, then what was found. */
import { factoryBauds } from "../drivers/lora/modem.ts";
import type { FoundModem, ModemSearchResult } from "../drivers/lora/modem-search.ts";
import type { FoundUnit, SearchProgress } from "../drivers/modbus/meter-search.ts";
import { framingText } from "../drivers/modbus/meter-search-plan.ts";
import { findingsText, placeText, type ScannedLine, type Written } from "./hub-scan-write.ts";
import { shellWord } from "./shell-word.ts";
import { terminalColumns } from "./table.ts";

const redrawMs = 100;

/** One line on a terminal's standard error, rewritten; nothing where it is piped. */
export class ScanProgress {
  readonly #live = process.stderr.isTTY === true;
  readonly #ports = new Map<number, { place: string; progress: SearchProgress }>();
  #drawnAtMs = 0;
  #isDrawn = false;

  show(index: number, place: string, progress: SearchProgress): void {
    if (!this.#live) return;
    this.#ports.set(index, { place, progress });
    if (performance.now() - this.#drawnAtMs < redrawMs) return;
    this.#drawnAtMs = performance.now();
    const ports = [...this.#ports.values()];
    const share = ports.reduce((sum, port) => sum + port.progress.share, 0) / ports.length;
    const found = ports.reduce((sum, port) => sum + port.progress.found, 0);
    const doing = ports.map(({ place: where, progress: { settings, unit, isRecognising } }) => {
      const short = where.split("/").at(-1);
      return `${short}${settings ? ` ${framingText(settings)}` : ""} unit ${unit}${isRecognising ? ": what is it?" : ""}`;
    });
    const text = `${Math.floor(share * 100)} %, ${found} found; ${doing.join(", ")}`;
    process.stderr.write(`\r\x1b[K${text.slice(0, Math.max(20, terminalColumns() - 1))}`);
    this.#isDrawn = true;
  }

  end(index: number): void {
    this.#ports.delete(index);
  }

  close(): void {
    if (this.#isDrawn) process.stderr.write("\r\x1b[K");
  }
}

/** `2 min 5 s`. */
export function durationText(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.ceil(minutes / 60)} h`;
}

export function resultText(lines: readonly ScannedLine[], written: Written | undefined): string {
  const parts = lines.map(lineText);
  const found = lines.filter(({ result }) => result.found.length > 0);
  if (written) parts.push(writtenText(written));
  else if (found.length > 0) parts.push(`For hub.yaml ('ecp scan --write' puts it there):\n\n${findingsText(found)}`);
  const modem = lines.map(modemYaml).find((yaml) => yaml !== "");
  if (modem !== undefined)
    parts.push(
      `For hub.yaml, with the region of your country (keys go into the modem by 'ecp lora provision'; docs/lorawan.md):\n\nuplink:\n${modem}`,
    );
  return parts.join("\n");
}

function lineText({ place, result, modem, isForModems }: ScannedLine): string {
  const where = "path" in place ? place.path : `Modbus TCP ${place.host}:${place.port}`;
  if (modem?.modem !== undefined) return `${where}: ${modemText(modem.modem)}\n`;
  const { settings, found, end } = result;
  const remarks = [...result.remarks, ...(modem?.remarks ?? [])];
  const error = result.error ?? modem?.error;
  if (isForModems)
    return `${where}: no LoRaWAN modem found\n${remarks.map((text) => `  ${text}.\n`).join("")}${error ? `  ${error.message}\n` : ""}`;
  const many = `${found.length === 0 ? "no meter" : found.length === 1 ? "1 device" : `${found.length} devices`} found`;
  const at = settings ? ` at ${framingText(settings)}` : "";
  const early = { ended: "", stopped: " (ended before it was through)", limit: " (its time was over)", failed: "" }[
    end
  ];
  const rows = found.map((unit) => `  unit ${`${unit.unit}`.padStart(3)}  ${unitText(unit)}\n`);
  const failure = error ? [`  ${error.message}\n`] : [];
  const silent = found.length === 0 && end === "ended" && remarks.length === 0 && error === undefined;
  const hint = silent
    ? ["  Nothing answered: check that the meters have power, swap the wires A and B, and see 'ecp doctor'.\n"]
    : [];
  return [
    `${where}: ${many}${at}${early}\n`,
    ...rows,
    ...remarks.map((text) => `  ${text}.\n`),
    ...failure,
    ...hint,
  ].join("");
}

function modemText({ family, baud, firmware, devEui }: FoundModem): string {
  const address = devEui === undefined ? "" : `, DevEUI ${devEui}`;
  return `LoRaWAN modem, ${family} at ${baud} 8N1, ${firmware}${address}`;
}

/** The section to paste; region and slots are the owner's to say. */
function modemYaml({ place, modem }: ScannedLine): string {
  if (modem?.modem === undefined || !("path" in place)) return "";
  const { family, baud } = modem.modem;
  const speed = baud === factoryBauds[family] ? "" : `, baud: ${baud}`;
  return `  lora:\n    modem: { path: ${JSON.stringify(place.path)}, family: ${family}${speed} }\n    region: EU868\n`;
}

function unitText({ certainty, profile, model, serialNumber, alternatives, answer, text }: FoundUnit): string {
  const serial = serialNumber === undefined ? "" : `, serial number ${serialNumber}`;
  const says = text ? ` (${text})` : "";
  if (certainty === "unknown" || !profile)
    return `unknown, answers (${answer})${text ? `; it says: ${text}` : ""}: no profile fits; docs/adding-a-meter.md tells how to make one`;
  const sure =
    certainty === "code"
      ? ""
      : ` by its values, not by a code: compare with its display${alternatives.length > 0 ? `; it could also be ${alternatives.map(({ id }) => id).join(", ")}` : ""}`;
  return `${profile.make} ${model}${serial}${says}, profile ${profile.id}${sure}`;
}

function writtenText({ file, added, left }: Written): string {
  const { lines, meters, corrections } = added;
  const rows = [
    ...lines.map(({ name, place }) => `  line ${name}: ${placeText(place)}\n`),
    ...corrections.map(
      ({ name, before, settings }) => `  line ${name}: now ${framingText(settings)}, before ${before}\n`,
    ),
    ...meters.map(({ name, line, unit, profile }) => `  meter ${name}: unit ${unit} on ${line}, ${profile}\n`),
  ];
  const rest = left.map((text) => `  left alone: ${text}\n`).join("");
  if (rows.length === 0) return `${file}: nothing was added.\n${rest}`;
  const config = `--config ${shellWord(file)}`;
  return `${file}: added\n${rows.join("")}${rest}Next:
  ecp read ${config}
      do they say what their displays say?
  ecp config apply ${config}
      tells the wallet; then restart wallet and agent
`;
}

export function resultJson(lines: readonly ScannedLine[]): object {
  return {
    lines: lines.map(({ place, result: { settings, found, remarks, end, error }, modem }) => ({
      ...("path" in place ? { serial: place.path } : { tcp: `${place.host}:${place.port}` }),
      ...(settings && { baud: settings.baud, parity: settings.parity, stopBits: settings.stopBits }),
      end,
      ...(error && { error: { code: error.code, message: error.message } }),
      ...(remarks.length > 0 && { remarks }),
      ...(modem !== undefined && { modem: modemJson(modem) }),
      devices: found.map(({ unit, certainty, profile, model, serialNumber, alternatives, answer, text }) => ({
        unit,
        certainty,
        ...(profile && { profile: profile.id, make: profile.make, model }),
        ...(serialNumber !== undefined && { serialNumber }),
        ...(alternatives.length > 0 && { alternatives: alternatives.map(({ id }) => id) }),
        answer,
        ...(text && { text }),
      })),
    })),
  };
}

function modemJson({ modem, remarks, error }: ModemSearchResult): object {
  return {
    ...modem,
    ...(remarks.length > 0 && { remarks }),
    ...(error && { error: { code: error.code, message: error.message } }),
  };
}
