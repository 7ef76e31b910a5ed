// The faults of ts-mls 1.6.4 that stand in the way of any RFC 9420 group, mended
// while its modules are loaded. Nothing on disk changes. A patch whose text is no
// longer there is an error: then ts-mls moved, and the fault has to be judged anew.
//
// `node peer.mjs --without NAME` leaves one patch out; the Go tests use that to
// show that every one of them is still needed.

/** @type {{name: string, file: string, find: string, put: string}[]} */
export const patches = [
  {
    // RFC 9420, 7.9.2 and 12.4.3.1: a leaf that is listed in a parent's
    // unmerged_leaves must be listed by the non-blank nodes between the two. ts-mls
    // asks all nodes above the leaf, up to the root, to have lists that are equal,
    // and so refuses valid trees as soon as some members committed after an add.
    name: "unmerged-leaves",
    file: "clientState.js",
    find: "if (!arraysEqual(dpNode.parent.unmergedLeaves, n.parent.unmergedLeaves))",
    put: "if (dp.indexOf(parentIdx) < dp.indexOf(nodeIndexOfParent) && !dpNode.parent.unmergedLeaves.includes(unmergedLeaf))",
  },
  {
    // The same rule: the inner nodeIndex shadows the parent's.
    name: "unmerged-leaves",
    file: "clientState.js",
    find: "for (const unmergedLeaf of n.parent.unmergedLeaves) {",
    put: "const nodeIndexOfParent = nodeIndex;\n            for (const unmergedLeaf of n.parent.unmergedLeaves) {",
  },
  {
    // RFC 9420, 7.5 and 12.4.1: the commit secret is derived from the last path
    // secret of the *filtered* direct path. ts-mls derives once more for a root that
    // the filter left out (everybody in its other half was removed).
    name: "filtered-root",
    file: "pathSecrets.js",
    find: `const nextSecret = await deriveSecret(pathSecrets[currentIndex], "path", kdf);`,
    put: `const nextSecret = tree[nextIndex] === undefined ? pathSecrets[currentIndex] : await deriveSecret(pathSecrets[currentIndex], "path", kdf);`,
  },
  {
    // RFC 9420, 12.4.2: who is named by a Remove is out. ts-mls looks whether its leaf
    // is blank afterwards, which it is not if the same commit adds somebody there.
    name: "removed-and-replaced",
    file: "clientState.js",
    find: "const selfRemoved = mutatedTree[leafToNodeIndex(toLeafIndex(state.privatePath.leafIndex))] === undefined;",
    put: "const selfRemoved = grouped.remove.some(({ proposal }) => proposal.remove.removed === state.privatePath.leafIndex);",
  },
  {
    // The same for an external commit, whose sender took this member's place.
    name: "removed-and-replaced",
    file: "clientState.js",
    find: `(treeAfterRemove)),
            },
            selfRemoved: false,`,
    put: `(treeAfterRemove)),
            },
            selfRemoved: grouped.remove.some(({ proposal }) => proposal.remove.removed === state.privatePath.leafIndex),`,
  },
  {
    // Saved state: an optional number 0 is written as absent, so that a stored
    // proposal of the member at leaf 0 comes back without its sender.
    name: "optional-zero",
    file: "codec/optional.js",
    find: "if (t) {",
    put: "if (t !== undefined) {",
  },
];

let left = patches;

/** @param {{without: string[]}} data */
export function initialize({ without }) {
  left = patches.filter((p) => !without.includes(p.name));
}

/** The hook of node's module loader: sources of ts-mls pass through here. */
export async function load(url, context, nextLoad) {
  const loaded = await nextLoad(url, context);
  const place = url.indexOf("/node_modules/ts-mls/dist/src/");
  if (place < 0) return loaded;
  const file = url.slice(place + "/node_modules/ts-mls/dist/src/".length);
  let source = new TextDecoder().decode(loaded.source);
  for (const p of left.filter((p) => p.file === file)) {
    if (source.split(p.find).length !== 2) throw new Error(`patch ${p.name}: ${file} is not the ts-mls that it was written for`);
    source = source.replace(p.find, () => p.put);
  }
  return { ...loaded, source };
}
