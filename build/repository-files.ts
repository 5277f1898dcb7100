// Which files belong to the project: what git tracks, and what it would track.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";

const ignoredFolders = new Set(["node_modules", "dist", ".git"]);

/**
 * The project's files as git knows them (tracked, and untracked ones that are not ignored), relative to `root`, with slashes; null where
 * there is no git or no repository (a source archive).
 */
export function filesKnownToGit(root: string): string[] | null {
  try {
    // A checkout that belongs to another user is refused unless told otherwise (containers of CI services); reading names is safe.
    const args = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    const listed = execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    const files = [...new Set(listed.split("\0").filter((file) => file !== ""))];
    return files.filter((file) => existsSync(path.join(root, file))).sort();
  } catch {
    return null;
  }
}

/** The files found by walking the folders, without what is installed or built. */
export function filesOnDisk(root: string, under = ""): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(path.join(root, under), { withFileTypes: true })) {
    const file = under === "" ? entry.name : `${under}/${entry.name}`;
    if (entry.isDirectory()) {
      if (!ignoredFolders.has(entry.name)) found.push(...filesOnDisk(root, file));
    } else if (entry.isFile()) found.push(file);
  }
  return found.sort();
}
