// The other side of `waxwing dev mls-peer`: the same protocol on stdin and stdout
// (docs/command-line.md), spoken by ts-mls. One JSON object per line, answered in
// order; an error is an answer too.
//
//   node peer.mjs [--without NAME]...   leaves a patch out (patches.mjs, client.mjs)
import { register } from "node:module";
import { createInterface } from "node:readline";

const without = process.argv.slice(2).filter((word) => word !== "--without");

register("./patches.mjs", import.meta.url, { data: { without } });
const { Peer } = await import("./client.mjs");

const lineCharactersMax = 64 << 20;
const peer = new Peer(new Set(without));

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (line.trim() === "") continue;
  process.stdout.write(JSON.stringify(await answer(line)) + "\n");
}

/** @param {string} line */
async function answer(line) {
  let id = null;
  try {
    if (line.length > lineCharactersMax) throw new Error("line too long");
    const request = JSON.parse(line);
    id = request.id ?? null;
    return { id, result: await peer.call(String(request.method), request.params ?? {}) };
  } catch (e) {
    return { id, error: e instanceof Error ? e.message : String(e) };
  }
}
