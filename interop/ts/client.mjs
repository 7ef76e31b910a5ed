// Clients and their groups, as the peer protocol names them, on top of ts-mls.
import { createHash, createHmac, createPrivateKey, createPublicKey, sign, timingSafeEqual, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  createApplicationMessage,
  createCommit,
  createGroup,
  createProposal,
  decodeGroupState,
  decodeMlsMessage,
  defaultAuthenticationService,
  defaultKeyPackageEqualityConfig,
  defaultLifetimeConfig,
  defaultPaddingConfig,
  emptyPskIndex,
  encodeGroupState,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  joinGroupExternal,
  mlsExporter,
  processMessage,
} from "ts-mls";
import { encode } from "ts-mls/codec/tlsEncoder.js";
import { decodeVarLenData, varLenDataEncoder } from "ts-mls/codec/variableLength.js";
import { createGroupInfo } from "ts-mls/createCommit.js";
import { ratchetTreeFromExtension } from "ts-mls/groupInfo.js";
import { makeKeyPackageRef } from "ts-mls/keyPackage.js";
import { signLeafNodeCommit } from "ts-mls/leafNode.js";
import { ratchetTreeEncoder } from "ts-mls/ratchetTree.js";
import { p256 } from "@noble/curves/nist.js";

const suites = {
  1: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
  2: "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
  3: "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
};

const lastResortExtension = 0x000a;

/** Extension types of private use that a leaf of ours says it understands. */
const extensionsUnderstood = [...Array(32).keys()].flatMap((i) => [0xf000 + i, 0xff00 + i]);

// As much as the other side keeps, so that both forget at the same time.
const clientConfig = {
  keyRetentionConfig: { retainKeysForGenerations: 1000, retainKeysForEpochs: 5, maximumForwardRatchetSteps: 1000 },
  lifetimeConfig: defaultLifetimeConfig,
  keyPackageEqualityConfig: defaultKeyPackageEqualityConfig,
  paddingConfig: defaultPaddingConfig,
  authService: defaultAuthenticationService,
};

const toBase64 = (/** @type {Uint8Array} */ bytes) => Buffer.from(bytes).toString("base64");
const fromBase64 = (/** @type {string} */ text) => {
  const bytes = Buffer.from(String(text), "base64");
  if (bytes.toString("base64") !== text) throw new Error("not base64");
  // A copy of its own: ts-mls makes views of the whole underlying buffer.
  return new Uint8Array(bytes);
};
const equal = (a, b) => Buffer.compare(a, b) === 0;

/** Decodes an MLSMessage, to its last byte. */
function decode(text, wireformat) {
  const bytes = fromBase64(text);
  const decoded = decodeMlsMessage(bytes, 0);
  if (decoded === undefined || decoded[1] !== bytes.length) throw new Error("not an MLS message");
  if (wireformat !== undefined && decoded[0].wireformat !== wireformat) throw new Error(`not a message of format ${wireformat}`);
  return decoded[0];
}

const encodeMessage = (body) => toBase64(encodeMlsMessage({ version: "mls10", ...body }));

/** All clients of one process. */
export class Peer {
  /** @param {Set<string>} without patches to leave out */
  constructor(without) {
    this.without = without;
    this.clients = new Map();
  }

  async call(method, params) {
    if (method === "hello") return this.hello();
    if (method === "newClient") {
      this.clients.set(params.client, await Client.make(params.identity, params.ciphersuite, this.without));
      return {};
    }
    const client = this.clients.get(params.client);
    if (client === undefined) throw new Error(`unknown client ${params.client}`);
    if (!methods.has(method)) throw new Error(`unknown method ${method}`);
    return client[method](params);
  }

  hello() {
    const version = JSON.parse(readFileSync(new URL("./node_modules/ts-mls/package.json", import.meta.url), "utf8")).version;
    return { impl: "ts-mls", version, ciphersuites: Object.keys(suites).map(Number), features: {} };
  }
}

const methods = new Set([
  "keyPackage", "createGroup", "commit", "mergePending", "discardPending", "join", "groupInfo", "externalJoin",
  "propose", "process", "send", "export", "state", "save", "load",
]);

/** One client: an identity with its keys, its packages and its groups. */
class Client {
  static async make(identity, ciphersuite, without) {
    const name = suites[ciphersuite];
    if (name === undefined) throw new Error(`unknown cipher suite ${ciphersuite}`);
    const client = new Client();
    client.without = without;
    client.identity = String(identity);
    client.cs = suiteWithPatches(await getCiphersuiteImpl(getCiphersuiteFromName(name)), without);
    client.keys = await client.cs.signature.keygen();
    client.packages = []; // {ref, public, private, lastResort}
    client.groups = new Map(); // by group id in base64: {state, pending, updates}
    return client;
  }

  group(params) {
    const group = this.groups.get(params.groupId);
    if (group === undefined) throw new Error("unknown group");
    return group;
  }

  async newPackage(lastResort, moreExtensions = []) {
    const now = BigInt(Math.floor(Date.now() / 1000));
    return generateKeyPackageWithKey(
      { credentialType: "basic", identity: new TextEncoder().encode(this.identity) },
      {
        versions: ["mls10"], ciphersuites: Object.values(suites), proposals: [], credentials: ["basic"],
        extensions: [...new Set([lastResortExtension, ...extensionsUnderstood, ...moreExtensions])],
      },
      { notBefore: now - 3600n, notAfter: now + 28n * 24n * 3600n },
      lastResort ? [{ extensionType: lastResortExtension, extensionData: new Uint8Array() }] : [],
      this.keys, this.cs,
    );
  }

  async keyPackage({ lastResort }) {
    const made = await this.newPackage(lastResort === true);
    const ref = await makeKeyPackageRef(made.publicPackage, this.cs.hash);
    this.packages.push({ ref, public: made.publicPackage, private: made.privatePackage, lastResort: lastResort === true });
    return { keyPackage: encodeMessage({ wireformat: "mls_key_package", keyPackage: made.publicPackage }), ref: toBase64(ref) };
  }

  async createGroup({ groupId, extensions }) {
    const list = (extensions ?? []).map((e) => ({ extensionType: extensionName(e.type), extensionData: fromBase64(e.data ?? "") }));
    const made = await this.newPackage(false, list.map((e) => e.extensionType).filter((t) => typeof t === "number"));
    const state = await createGroup(fromBase64(groupId), made.publicPackage, made.privatePackage, list, this.cs, clientConfig);
    this.groups.set(groupId, { state, updates: [] });
    return {};
  }

  async commit(params) {
    const group = this.group(params);
    const added = (params.add ?? []).map((text) => decode(text, "mls_key_package").keyPackage);
    const removed = (params.remove ?? []).flatMap((identity) => leavesOf(group.state, identity));
    const made = await createCommit(
      // ts-mls commits whatever is stored, and fails if two proposals exclude each
      // other or one is the committer's own Update; RFC 9420, 12.2, leaves the choice
      // to the committer.
      { state: { ...group.state, unappliedProposals: compatible(group.state, added, removed) }, cipherSuite: this.cs },
      {
        wireAsPublicMessage: params.wire === "public",
        ratchetTreeExtension: true,
        extraProposals: [
          ...removed.map((leaf) => ({ proposalType: "remove", remove: { removed: leaf } })),
          ...added.map((keyPackage) => ({ proposalType: "add", add: { keyPackage } })),
        ],
      },
    );
    group.pending = { state: made.newState, welcome: made.welcome && encodeMessage({ wireformat: "mls_welcome", welcome: made.welcome }) };
    return { commit: toBase64(encodeMlsMessage(made.commit)), welcome: group.pending.welcome ?? null };
  }

  async mergePending(params) {
    const group = this.group(params);
    if (group.pending === undefined) throw new Error("no pending commit");
    const { state, welcome } = group.pending;
    if (group.joined !== true) {
      // The new state holds the old epoch's keys as they were when the commit was
      // made: with them, messages opened since then would open again.
      const epoch = group.state.groupContext.epoch;
      const past = new Map(state.historicalReceiverData);
      past.set(epoch, { ...past.get(epoch), secretTree: group.state.secretTree });
      group.state = { ...state, historicalReceiverData: past };
    }
    Object.assign(group, { pending: undefined, joined: undefined, former: undefined, updates: [] });
    return welcome ? { welcome } : {};
  }

  async discardPending(params) {
    const group = this.group(params);
    if (group.pending === undefined) throw new Error("no pending commit");
    if (group.joined !== true) group.pending = undefined;
    else if (group.former !== undefined) this.groups.set(params.groupId, group.former);
    else this.groups.delete(params.groupId);
    return {};
  }

  async join({ welcome }) {
    const message = decode(welcome, "mls_welcome").welcome;
    const mine = this.packages.find((p) => message.secrets.some((s) => equal(s.newMember, p.ref)));
    if (mine === undefined) throw new Error("welcome for another key package");
    const state = await joinGroup(message, mine.public, mine.private, emptyPskIndex, this.cs, undefined, undefined, clientConfig);
    if (!mine.lastResort) this.packages = this.packages.filter((p) => p !== mine);
    const groupId = toBase64(state.groupContext.groupId);
    this.groups.set(groupId, { state, updates: [] });
    return { groupId };
  }

  async groupInfo(params) {
    const { state } = this.group(params);
    const pair = await this.cs.hpke.deriveKeyPair(state.keySchedule.externalSecret);
    const key = await this.cs.hpke.exportPublicKey(pair.publicKey);
    const info = await createGroupInfo(state.groupContext, state.confirmationTag, state, [
      // RFC 9420, 12.4.3.2: the extension is a structure, so the key has a length in
      // front. ts-mls's own function writes the bare key.
      { extensionType: "external_pub", extensionData: this.without.has("external-pub-write") ? key : encode(varLenDataEncoder)(key) },
      { extensionType: "ratchet_tree", extensionData: encode(ratchetTreeEncoder)(state.ratchetTree) },
    ], this.cs);
    return { groupInfo: encodeMessage({ wireformat: "mls_group_info", groupInfo: info }) };
  }

  async externalJoin({ groupInfo }) {
    const info = decode(groupInfo, "mls_group_info").groupInfo;
    const groupId = toBase64(info.groupContext.groupId);
    const made = await this.newPackage(false, info.groupContext.extensions.map((e) => e.extensionType).filter((t) => typeof t === "number"));
    const former = this.groups.get(groupId);
    // To be asked only if there is a leaf to replace: without one ts-mls never returns.
    const isMember = (ratchetTreeFromExtension(info) ?? []).some((node) => node?.leaf && equal(node.leaf.signaturePublicKey, this.keys.publicKey));
    const joined = await joinGroupExternal(info, made.publicPackage, made.privatePackage, isMember, this.cs, undefined, clientConfig);
    // In effect at once; mergePending confirms it and discardPending takes it back.
    this.groups.set(groupId, { state: joined.newState, updates: [], pending: { state: joined.newState }, joined: true, former });
    return { groupId, commit: encodeMessage({ wireformat: "mls_public_message", publicMessage: joined.publicMessage }) };
  }

  async propose(params) {
    const group = this.group(params);
    const [proposal, key] = await this.proposal(group.state, params);
    const made = await createProposal(group.state, true, proposal, this.cs);
    group.state = made.newState;
    if (key !== undefined) group.updates.push({ public: proposal.update.leafNode.hpkePublicKey, private: key });
    return { message: toBase64(encodeMlsMessage(made.message)) };
  }

  /** The proposal that params describe, and the leaf key that it needs if it is an Update. */
  async proposal(state, params) {
    switch (params.type) {
      case "add":
        return [{ proposalType: "add", add: { keyPackage: decode(params.keyPackage, "mls_key_package").keyPackage } }];
      case "remove":
        return [{ proposalType: "remove", remove: { removed: leavesOf(state, params.identity)[0] } }];
      case "update": {
        const pair = await this.cs.hpke.generateKeyPair();
        const leafIndex = state.privatePath.leafIndex;
        const { leafNodeSource: _source, lifetime: _lifetime, parentHash: _hash, signature: _signature, ...same } = state.ratchetTree[leafIndex * 2].leaf;
        // There is no function for an Update's leaf; this one signs any source.
        const leafNode = await signLeafNodeCommit({
          ...same, leafNodeSource: "update", hpkePublicKey: await this.cs.hpke.exportPublicKey(pair.publicKey),
          groupId: state.groupContext.groupId, leafIndex,
        }, state.signaturePrivateKey, this.cs.signature);
        return [{ proposalType: "update", update: { leafNode } }, await this.cs.hpke.exportPrivateKey(pair.privateKey)];
      }
    }
    throw new Error(`unknown proposal type ${params.type}`);
  }

  async process(params) {
    const group = this.group(params);
    const message = decode(params.message);
    if (message.wireformat !== "mls_public_message" && message.wireformat !== "mls_private_message") throw new Error("not a message of a group");
    const content = message.publicMessage?.content ?? message.privateMessage;
    // Neither is checked by ts-mls for every kind of message (RFC 9420, 6).
    if (toBase64(content.groupId) !== params.groupId) throw new Error("message of another group");
    if (content.epoch > group.state.groupContext.epoch) throw new Error("message of a later epoch");
    const epoch = group.state.groupContext.epoch;
    const path = group.state.privatePath;
    const state = { ...group.state, privatePath: { ...path, privateKeys: { ...path.privateKeys } } };
    const done = await processMessage(message, state, emptyPskIndex, (incoming) => {
      this.adoptUpdate(group, state.privatePath, incoming);
      return "accept";
    }, this.cs);
    group.state = done.newState;
    if (group.state.groupContext.epoch !== epoch) Object.assign(group, { pending: undefined, joined: undefined, former: undefined, updates: [] });
    if (done.kind === "applicationMessage") return { kind: "application", plaintext: toBase64(done.message) };
    return { kind: "handshake" };
  }

  /**
   * ts-mls does not keep the private key of an Update, so that a member cannot follow
   * a commit that carries out its own: put the key where the path is about to be opened.
   */
  adoptUpdate(group, privatePath, incoming) {
    if (incoming.kind !== "commit" || this.without.has("own-update")) return;
    for (const { proposal, senderLeafIndex } of incoming.proposals) {
      if (proposal.proposalType !== "update" || senderLeafIndex !== privatePath.leafIndex) continue;
      const mine = group.updates.find((u) => equal(u.public, proposal.update.leafNode.hpkePublicKey));
      if (mine !== undefined) privatePath.privateKeys[privatePath.leafIndex * 2] = mine.private;
    }
  }

  async send(params) {
    const group = this.group(params);
    const made = await createApplicationMessage(group.state, fromBase64(params.plaintext), this.cs, fromBase64(params.aad ?? ""));
    group.state = made.newState;
    return { message: encodeMessage({ wireformat: "mls_private_message", privateMessage: made.privateMessage }) };
  }

  async export(params) {
    const { state } = this.group(params);
    const secret = await mlsExporter(state.keySchedule.exporterSecret, params.label, fromBase64(params.context ?? ""), params.length, this.cs);
    return { secret: toBase64(secret) };
  }

  async state(params) {
    const { state } = this.group(params);
    const members = leaves(state).map(({ leaf }) => Buffer.from(leaf.credential.identity).toString());
    return {
      epoch: Number(state.groupContext.epoch),
      epochAuthenticator: toBase64(state.keySchedule.epochAuthenticator),
      members: members.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    };
  }

  async save(params) {
    const group = this.group(params);
    const saved = (state) => state && toBase64(encodeGroupState(state));
    const text = JSON.stringify({
      state: saved(group.state), pending: saved(group.pending?.state), welcome: group.pending?.welcome, joined: group.joined,
      updates: group.updates.map((u) => ({ public: toBase64(u.public), private: toBase64(u.private) })),
    });
    return { state: toBase64(new TextEncoder().encode(text)) };
  }

  async load(params) {
    const saved = JSON.parse(new TextDecoder().decode(fromBase64(params.state)));
    const loaded = (text) => ({ ...decodeGroupState(fromBase64(text), 0)[0], clientConfig });
    const state = loaded(saved.state);
    if (toBase64(state.groupContext.groupId) !== params.groupId) throw new Error("state of another group");
    this.groups.set(params.groupId, {
      state,
      pending: saved.pending && { state: loaded(saved.pending), welcome: saved.welcome },
      joined: saved.joined,
      updates: saved.updates.map((u) => ({ public: fromBase64(u.public), private: fromBase64(u.private) })),
    });
    return {};
  }
}

// SHA-256, HMAC, HKDF and Ed25519 straight from node: WebCrypto's cost per call is
// many times that of the work, and the tests make a million calls.
const hmac = (key, ...parts) => {
  const h = createHmac("sha256", key);
  parts.forEach((part) => h.update(part));
  return new Uint8Array(h.digest());
};
const hash = {
  digest: async (data) => new Uint8Array(createHash("sha256").update(data).digest()),
  mac: async (key, data) => hmac(key, data),
  verifyMac: async (key, mac, data) => mac.length === 32 && timingSafeEqual(hmac(key, data), mac),
};
const kdf = {
  size: 32,
  extract: async (salt, ikm) => hmac(salt, ikm),
  async expand(prk, info, length) {
    const out = new Uint8Array(Math.ceil(length / 32) * 32);
    let block = new Uint8Array();
    for (let i = 0; i * 32 < length; i++) {
      block = hmac(prk, block, info, new Uint8Array([i + 1]));
      out.set(block, i * 32);
    }
    return out.subarray(0, length);
  },
};

const ed25519 = {
  // Keys are PKCS #8 and raw points, as ts-mls makes them.
  sign: async (key, message) => new Uint8Array(sign(null, message, createPrivateKey({ key: Buffer.from(key), format: "der", type: "pkcs8" }))),
  verify: async (key, message, signature) =>
    verify(null, message, createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(key).toString("base64url") }, format: "jwk" }), signature),
};

/** A cipher suite with what has to be different at its edges. */
function suiteWithPatches(cs, without) {
  const hpke = { ...cs.hpke };
  // RFC 9420, 12.4.3.2: external_pub has a length in front of the key. ts-mls takes
  // the extension's bytes for the key, and the signature over them forbids changing
  // them, so take the length off where the key is imported.
  if (!without.has("external-pub-read")) {
    const bareBytes = cs.name === suites[2] ? 65 : 32;
    hpke.importPublicKey = (key) => cs.hpke.importPublicKey(key.length > bareBytes ? decodeVarLenData(key, 0)[0] : key);
  }
  const signature = { ...cs.signature, ...(cs.name === suites[2] ? {} : ed25519) };
  // RFC 9420, 5.1.2: keys of the NIST curves are uncompressed points. ts-mls makes
  // compressed ones.
  if (cs.name === suites[2] && !without.has("p256-compressed")) {
    signature.keygen = async () => {
      const signKey = p256.utils.randomSecretKey();
      return { signKey, publicKey: p256.getPublicKey(signKey, false) };
    };
  }
  return { ...cs, hash, kdf, hpke, signature };
}

/** ts-mls calls the extensions of the RFC by name, all others by number. */
function extensionName(type) {
  return { 1: "application_id", 2: "ratchet_tree", 3: "required_capabilities", 4: "external_pub", 5: "external_senders" }[type] ?? type;
}

function leaves(state) {
  return state.ratchetTree.flatMap((node, i) => (node?.nodeType === "leaf" ? [{ index: i / 2, leaf: node.leaf }] : []));
}

/** The leaves of the member with this identity. */
function leavesOf(state, identity) {
  const wanted = new TextEncoder().encode(identity);
  const found = leaves(state).filter(({ leaf }) => equal(leaf.credential.identity, wanted));
  if (found.length === 0) throw new Error("no such member");
  return found.map(({ index }) => index);
}

/** The stored proposals that can go into one commit with what the committer adds and removes itself. */
function compatible(state, added, removed) {
  const touched = new Set([state.privatePath.leafIndex, ...removed]);
  const clients = new Set(added.map((k) => toBase64(k.leafNode.signaturePublicKey)));
  const chosen = {};
  const take = (set, key, ref, entry) => {
    if (!set.has(key)) chosen[ref] = entry;
    set.add(key);
  };
  const all = Object.entries(state.unappliedProposals);
  // Removes before Updates, as RFC 9420, 12.2, prefers.
  for (const [ref, entry] of all) if (entry.proposal.proposalType === "remove") take(touched, entry.proposal.remove.removed, ref, entry);
  for (const [ref, entry] of all) {
    if (entry.proposal.proposalType === "update") take(touched, entry.senderLeafIndex, ref, entry);
    if (entry.proposal.proposalType === "add") take(clients, toBase64(entry.proposal.add.keyPackage.leafNode.signaturePublicKey), ref, entry);
  }
  return chosen;
}
