// Reads both sets of lexicons as the AT Protocol's own library does, and holds the
// examples on standard input against them: one {"set", "nsid", "part", "value"} in each
// line, part being input, output, parameters or a name behind '#'. Ends with status 1
// when anything is refused.
import { readFileSync, readdirSync } from "node:fs";
import { Lexicons, jsonToLex } from "@atproto/lexicon";

const here = new URL("..", import.meta.url);

function load(set) {
  const lexicons = new Lexicons();
  for (const folder of ["both", set]) {
    for (const file of readdirSync(new URL(`${folder}/`, here))) {
      lexicons.add(JSON.parse(readFileSync(new URL(`${folder}/${file}`, here), "utf8")));
    }
  }
  return lexicons;
}

function refusal(lexicons, { nsid, part, value }) {
  const lex = jsonToLex(value);
  try {
    switch (part) {
      case "input":
        lexicons.assertValidXrpcInput(nsid, lex);
        break;
      case "output":
        lexicons.assertValidXrpcOutput(nsid, lex);
        break;
      case "parameters":
        lexicons.assertValidXrpcParams(nsid, lex);
        break;
      default: {
        const result = lexicons.validate(`${nsid}#${part}`, lex);
        if (!result.success) throw result.error;
      }
    }
  } catch (err) {
    return err.message;
  }
  return null;
}

const sets = { a: load("a"), b: load("b") };
let read = 0;
let refused = 0;
for (const line of process.stdin.isTTY ? [] : readFileSync(0, "utf8").split("\n")) {
  if (line.trim() === "") continue;
  const example = JSON.parse(line);
  const why = refusal(sets[example.set], example);
  read++;
  if (why !== null) {
    refused++;
    console.error(`${example.set} ${example.nsid} ${example.part}: ${why}`);
  }
}
console.log(`lexicons: a ${[...sets.a].length}, b ${[...sets.b].length}; examples: ${read} read, ${refused} refused`);
process.exit(refused === 0 ? 0 : 1);
