// Where ts-mls 1.6.4 departs from RFC 9420 without standing in the way of the
// stories of this folder: one scenario each, run against ts-mls as it is. What
// patches.mjs and client.mjs mend is shown by TestPatchesAreNeeded instead.
//
//   node faults.mjs    prints a line per fault; one that is gone fails
import assert from "node:assert/strict";
import {
  createApplicationMessage, createCommit, createGroup, decodeMlsMessage, defaultLifetime, emptyPskIndex, encodeExternalSender,
  encodeMlsMessage, generateKeyPackage, getCiphersuiteFromName, getCiphersuiteImpl, joinGroup, processMessage, processPublicMessage,
} from "ts-mls";
import { encode } from "ts-mls/codec/tlsEncoder.js";
import { decodeOptional } from "ts-mls/codec/optional.js";
import { decodeUint8 } from "ts-mls/codec/number.js";
import { varLenDataEncoder } from "ts-mls/codec/variableLength.js";
import { signKeyPackage } from "ts-mls/keyPackage.js";
import { initializeEpoch } from "ts-mls/keySchedule.js";
import { signLeafNodeCommit, signLeafNodeKeyPackage } from "ts-mls/leafNode.js";
import { protectExternalProposalPublic } from "ts-mls/messageProtectionPublic.js";

const cs = await getCiphersuiteImpl(getCiphersuiteFromName("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"));
const capabilities = { versions: ["mls10"], ciphersuites: [cs.name], extensions: [], proposals: [], credentials: ["basic"] };
const credential = (name) => ({ credentialType: "basic", identity: new TextEncoder().encode(name) });
const client = (name) => generateKeyPackage(credential(name), capabilities, defaultLifetime, [], cs);
const group = (owner, extensions = []) => createGroup(new Uint8Array([1, 2, 3]), owner.publicPackage, owner.privatePackage, extensions, cs);
const commit = (state, options) => createCommit({ state, cipherSuite: cs }, { ratchetTreeExtension: true, wireAsPublicMessage: true, ...options });
const add = (kp) => ({ proposalType: "add", add: { keyPackage: kp } });

/** A group of ann and bob. */
async function pair() {
  const ann = await client("ann"), bob = await client("bob");
  const done = await commit(await group(ann), { extraProposals: [add(bob.publicPackage)] });
  return { ann, bob, a: done.newState, b: await joinGroup(done.welcome, bob.publicPackage, bob.privatePackage, emptyPskIndex, cs) };
}

const faults = {
  "7.5, 12.4.1: whoever removes everybody else commits with a secret of zeros, so that the removed member knows the next epoch": async () => {
    const { a, b } = await pair();
    const { newState } = await commit(a, { extraProposals: [{ proposalType: "remove", remove: { removed: 1 } }] });
    const zeros = new Uint8Array(cs.kdf.size);
    // What bob has: his init secret, and the next GroupContext, which the commit tells.
    const known = await initializeEpoch(b.keySchedule.initSecret, zeros, newState.groupContext, zeros, cs.kdf);
    assert.deepEqual(known.keySchedule.epochAuthenticator, newState.keySchedule.epochAuthenticator);
  },
  "12.4: a GroupContextExtensions proposal needs a path; its commit has none": async () => {
    const { a, b } = await pair();
    const done = await commit(a, { extraProposals: [{ proposalType: "group_context_extensions", groupContextExtensions: { extensions: [] } }] });
    assert.equal(done.commit.publicMessage.content.commit.path, undefined);
    await processMessage(done.commit, b, emptyPskIndex, () => "accept", cs);
  },
  "12.1.8.1: external_senders is a list; one bare ExternalSender is written and expected": async () => {
    const ann = await client("ann");
    const sender = encodeExternalSender({ credential: credential("server"), signaturePublicKey: ann.publicPackage.leafNode.signaturePublicKey });
    await group(ann, [{ extensionType: "external_senders", extensionData: sender }]);
    await assert.rejects(group(ann, [{ extensionType: "external_senders", extensionData: encode(varLenDataEncoder)(sender) }]));
  },
  "6, 12.1.8: an external proposal for another group or a later epoch is taken": async () => {
    const ann = await client("ann"), server = await cs.signature.keygen();
    const sender = encodeExternalSender({ credential: credential("server"), signaturePublicKey: server.publicKey });
    const state = await group(ann, [{ extensionType: "external_senders", extensionData: sender }]);
    const other = { ...state.groupContext, groupId: new Uint8Array([9]), epoch: 77n };
    const proposal = add((await client("bob")).publicPackage);
    const { publicMessage } = await protectExternalProposalPublic(server.signKey, other, new Uint8Array(), proposal, { senderType: "external", senderIndex: 0 }, cs);
    const { newState } = await processPublicMessage(state, publicMessage, emptyPskIndex, cs);
    assert.equal(Object.keys(newState.unappliedProposals).length, 1);
  },
  "7.3: a new leaf with the encryption key of another member is taken": async () => {
    const { ann, a } = await pair();
    const keys = await cs.signature.keygen(), init = await cs.hpke.generateKeyPair();
    const leafNode = await signLeafNodeKeyPackage({
      leafNodeSource: "key_package", hpkePublicKey: ann.publicPackage.leafNode.hpkePublicKey, signaturePublicKey: keys.publicKey,
      extensions: [], credential: credential("eve"), capabilities, lifetime: defaultLifetime,
    }, keys.signKey, cs.signature);
    const kp = await signKeyPackage({ version: "mls10", cipherSuite: cs.name, initKey: await cs.hpke.exportPublicKey(init.publicKey), leafNode, extensions: [] }, keys.signKey, cs.signature);
    await commit(a, { extraProposals: [add(kp)] });
  },
  "7.3: an Update that keeps the encryption key is taken": async () => {
    const { bob, a } = await pair();
    const { lifetime: _lifetime, ...same } = bob.publicPackage.leafNode;
    const leafNode = await signLeafNodeCommit({ ...same, leafNodeSource: "update", groupId: a.groupContext.groupId, leafIndex: 1 }, bob.privatePackage.signaturePrivateKey, cs.signature);
    await commit({ ...a, unappliedProposals: { AAAA: { proposal: { proposalType: "update", update: { leafNode } }, senderLeafIndex: 1 } } });
  },
  "2.1.2: a length that is not in its shortest form is taken": async () => {
    const { a } = await pair();
    const { privateMessage } = await createApplicationMessage(a, new Uint8Array([1]), cs);
    const bytes = encodeMlsMessage({ version: "mls10", wireformat: "mls_private_message", privateMessage });
    assert.equal(bytes[4], 3); // the length of the group id
    const longer = new Uint8Array([...bytes.subarray(0, 4), 0x40, ...bytes.subarray(4)]);
    assert.deepEqual(decodeMlsMessage(longer, 0)[0].privateMessage.groupId, a.groupContext.groupId);
  },
  "2.1.1: an optional value is present for 1 and absent for 0; every other octet is taken for absent": async () => {
    assert.deepEqual(decodeOptional(decodeUint8)(new Uint8Array([2, 5]), 0), [undefined, 1]);
  },
  "9.2: the state after an own commit has the old epoch's keys as they were; what was opened since then opens again": async () => {
    const { a, b } = await pair();
    const sent = await createApplicationMessage(b, new Uint8Array([1]), cs);
    const message = { version: "mls10", wireformat: "mls_private_message", privateMessage: sent.privateMessage };
    const { newState } = await commit(a);
    for (const state of [a, newState]) {
      assert.equal((await processMessage(message, state, emptyPskIndex, () => "accept", cs)).kind, "applicationMessage");
    }
  },
};

let gone = 0;
for (const [name, show] of Object.entries(faults)) {
  try {
    await show();
    console.log(`RFC 9420, ${name}`);
  } catch (e) {
    gone++;
    console.log(`GONE: ${name}: ${e.message}`);
  }
}
process.exit(gone === 0 ? 0 : 1);
