/** Profiles that users write: YAML files of the form that the built-in ones have, with errors at file, line and column. */
import { resolve } from "node:path";
import type { MeterProfile } from "../drivers/modbus/profile.ts";
import { findMeterProfile, meterProfiles } from "../drivers/modbus/profile-catalogue.ts";
import { meterProfileOf, type ProfileFile, ProfileFileError } from "../drivers/modbus/profile-file.ts";
import { type CommandError, usageError } from "./command.ts";
import schema from "./profile.schema.json" with { type: "json" };
import { compileSchema, parseYaml, readYamlText } from "./yaml-source.ts";

const validate = compileSchema<ProfileFile>(schema);

/** Reads a profile's file. Throws {@link CommandError} with file:line:column. */
export function readProfileFile(path: string): MeterProfile {
  return profileOfText(
    path,
    readYamlText(path, "a profile of a meter", "'ecp profile show ID' prints one to begin with"),
  );
}

/** The same from a text; `path` is for messages. */
export function profileOfText(path: string, text: string): MeterProfile {
  const { data, source } = parseYaml(path, text, validate, `mend that line, then: ecp profile check ${path}`);
  try {
    return meterProfileOf(data);
  } catch (error) {
    if (error instanceof ProfileFileError) throw source.error(error.path, error.expected, error.got);
    throw error;
  }
}

/**
 * The built-in profiles and those of the files. `misplaced` makes the error for a file whose id is taken: two tables under
 * one name would make what was signed ambiguous.
 */
export function profileLibrary(
  files: readonly string[],
  misplaced: (index: number, expected: string, got: string) => CommandError,
): readonly MeterProfile[] {
  const profiles = [...meterProfiles];
  for (const [index, file] of files.entries()) {
    const profile = readProfileFile(file);
    if (profiles.some(({ id }) => id === profile.id))
      throw misplaced(index, "a file whose profile has an id of its own", `${profile.id}, which is there already`);
    profiles.push(profile);
  }
  return profiles;
}

/** Whether what an option names is the path of a file rather than the id of a profile. */
export function isProfilePath(named: string): boolean {
  return /[/\\]|\.(ya?ml|json)$/i.test(named);
}

/** What an option such as `--profile` names: the id of a built-in profile, or the path of a file. */
export function profileNamed(command: string, named: string | undefined, flag = "profile"): MeterProfile {
  if (named !== undefined && isProfilePath(named)) return readProfileFile(resolve(named));
  const profile = named === undefined ? undefined : findMeterProfile(named);
  if (profile !== undefined) return profile;
  const known = meterProfiles.map(({ id }) => id).join(", ");
  throw usageError(command, `--${flag} ${named ?? "is missing"}; the profiles are ${known}, or the path of a file`);
}
