package prove_test

var mutantsTM005 = []mutant{
	{
		name: "nonces-per-node", gone: "used tokens are shared by servers and outlive them", file: "internal/store/nonce.go",
		old: "		delete(inserted, n.Hash) // a second one in the same list is a replay\n	}\n	return fresh, nil\n}\n",
		new: `		delete(inserted, n.Hash)
		if mutant.Is("nonces-per-node") {
			fresh[i] = !nodeNonces[n.Hash]
			nodeNonces[n.Hash] = true
		}
	}
	return fresh, nil
}

var nodeNonces = map[[32]byte]bool{}
`,
		rows: []string{"TM-005"}, database: "postgres",
	},
	{
		name: "nonces-120s", gone: "used tokens are remembered for as long as they live, and not for 120 seconds", file: "internal/identity/identity.go",
		old:  "	before := now.Add(-forgetAfter).UnixMilli()\n",
		new:  "	before := now.Add(-forgetAfter).UnixMilli()\n	if mutant.Is(\"nonces-120s\") {\n		before = now.Add(tokenLifetimeMax + clockSkew - 2*time.Minute).UnixMilli()\n	}\n",
		rows: []string{"TM-005"},
	},
	{
		name: "nonces-swept-at-exp", gone: "used tokens are remembered while clocks that differ take them for good", file: "internal/identity/identity.go",
		old:  "	before := now.Add(-forgetAfter).UnixMilli()\n",
		new:  "	before := now.Add(-forgetAfter).UnixMilli()\n	if mutant.Is(\"nonces-swept-at-exp\") {\n		before = now.Add(clockSkew).UnixMilli()\n	}\n",
		rows: []string{"TM-005"},
	},
	{
		name: "exp-unchecked", gone: "a token ends", file: "internal/identity/token.go",
		old:  "case !now.Before(expires.Add(clockSkew)):",
		new:  "case !now.Before(expires.Add(clockSkew)) && !mutant.Is(\"exp-unchecked\"):",
		rows: []string{"TM-005"},
	},
	{
		name: "token-life-unchecked", gone: "a token that lives for long is refused", file: "internal/identity/token.go",
		old:  "case expires.After(latest), hasIssued && expires.Sub(issued) > lifetimeMax:",
		new:  "case (expires.After(latest) || hasIssued && expires.Sub(issued) > lifetimeMax) && !mutant.Is(\"token-life-unchecked\"):",
		rows: []string{"TM-005"},
	},
	{
		name: "lxm-unchecked", gone: "a token is for one method", file: "internal/identity/token.go",
		old:  "method != want.method {",
		new:  "method != want.method && !mutant.Is(\"lxm-unchecked\") {",
		rows: []string{"TM-005"},
	},
	{
		name: "jti-without-issuer", gone: "ids of tokens belong to their issuer", file: "internal/identity/token.go",
		old:  "		Hash:      sha256.Sum256([]byte(string(v.issuer) + \"\\x00\" + id)),\n		ExpiresMS: expires.Add(clockSkew).UnixMilli(),\n	}\n	return v, nil",
		new:  "		Hash:      sha256.Sum256([]byte(string(v.issuer) + \"\\x00\" + id)),\n		ExpiresMS: expires.Add(clockSkew).UnixMilli(),\n	}\n	if mutant.Is(\"jti-without-issuer\") {\n		v.nonce.Hash = sha256.Sum256([]byte(id))\n	}\n	return v, nil",
		rows: []string{"TM-005"},
	},
}
