// What servers and clients of the AT Protocol make of us, with their own libraries. Each
// line on standard input is a request {"id", "method", "params"}, each line on standard
// output its answer {"id", "result"}, or {"id", "error"} when the library refuses.
import { createInterface } from "node:readline";
import { DidResolver, MemoryCache, getKey } from "@atproto/identity";
import { P256Keypair, Secp256k1Keypair, formatMultikey, parseDidKey } from "@atproto/crypto";
import { createServiceJwt, verifyJwt } from "@atproto/xrpc-server";

// A directory is asked for did:plc; did:web is asked where it says, over plain HTTP for
// localhost.
const resolver = (directory) => new DidResolver({ plcUrl: directory, didCache: new MemoryCache() });

// keyOf is the key that an issuer signs with: did:key is one itself, others publish it.
async function keyOf(issuer, directory) {
  const [did] = issuer.split("#");
  if (did.startsWith("did:key:")) return did;
  const document = await resolver(directory).resolve(did);
  if (document === null) throw new Error("no such DID");
  const key = getKey(document);
  if (!key) throw new Error("the document has no signing key");
  return key;
}

const answers = {
  // document resolves a DID and gives what the library's reader makes of it.
  async document({ did, directory }) {
    const document = await resolver(directory).resolve(did);
    if (document === null) throw new Error("no such DID");
    const service = (document.service ?? []).find((s) => s.id.endsWith("#atproto_mls"));
    return { id: document.id, key: getKey(document), endpoint: service?.serviceEndpoint, type: service?.type };
  },
  // verify holds a token against its audience, method and issuer's key.
  async verify({ token, audience, method, directory }) {
    const payload = await verifyJwt(token, audience, method, (issuer) => keyOf(issuer, directory));
    return { iss: payload.iss, aud: payload.aud, lxm: payload.lxm };
  },
  // account makes a key pair and says how a DID document publishes it.
  async account({ curve }) {
    const pair = await (curve === "p256" ? P256Keypair : Secp256k1Keypair).create({ exportable: true });
    const { jwtAlg, keyBytes } = parseDidKey(pair.did());
    const id = pairs.push(pair) - 1;
    return { pair: id, didKey: pair.did(), multibase: formatMultikey(jwtAlg, keyBytes) };
  },
  // token makes a service token, as a PDS does.
  async token({ pair, iss, aud, lxm, exp, iat }) {
    return { token: await createServiceJwt({ iss, aud, lxm, exp, iat, keypair: pairs[pair] }) };
  },
};

const pairs = [];
for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  let answer;
  try {
    answer = { id, result: await answers[method](params) };
  } catch (err) {
    answer = { id, error: String(err?.message ?? err) || "refused" };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
