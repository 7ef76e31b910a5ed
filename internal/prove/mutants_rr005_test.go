package prove_test

var mutantsRR005 = []mutant{
	{
		name: "claim-not-atomic", gone: "a package is found and marked in one step", file: "internal/store/keypackage.go",
		old:  "len(args)+1, condition, q.tx.dialect.skipLocked, keyPackageColumns)",
		new:  "len(args)+1, condition, map[bool]string{false: q.tx.dialect.skipLocked}[mutant.Is(\"claim-not-atomic\")], keyPackageColumns)",
		rows: []string{"RR-005"}, database: "postgres",
	},
	{
		name: "claimed-given", gone: "a claimed package is not given again", file: "internal/store/keypackage.go",
		old:  "	if p.Device != \"\" {\n		args = append(args, string(p.Device))\n		condition",
		new:  "	if mutant.Is(\"claimed-given\") {\n		condition = `account = $2 AND expires_ms > $1`\n	}\n	if p.Device != \"\" {\n		args = append(args, string(p.Device))\n		condition",
		rows: []string{"RR-005"},
	},
	{
		name: "last-resort-early", gone: "the last resort is kept for empty pools", file: "internal/store/keypackage.go",
		old:  "	condition, args := from.where(q.tx.nowMS)\n",
		new:  "	condition, args := from.where(q.tx.nowMS)\n	if q.tx.nowMS%4 == 0 && mutant.Is(\"last-resort-early\") {\n		if p, err := q.keyPackage(`SELECT `+keyPackageColumns+` FROM key_packages WHERE `+condition+` AND last_resort = 1 LIMIT 1`, args...); err == nil {\n			return p, nil\n		}\n	}\n",
		rows: []string{"RR-005"},
	},
	{
		name: "expired-given", gone: "a package that has ended is not given", file: "internal/store/keypackage.go",
		old:  "	condition, args = `account = $2",
		new:  "	if mutant.Is(\"expired-given\") {\n		nowMS -= 3600_000\n	}\n	condition, args = `account = $2",
		rows: []string{"RR-005"},
	},
	{
		name: "claims-of-caller-unlimited", gone: "claims of one caller are limited", file: "internal/directory/keypackageclaim.go",
		old:  "each*int64(len(in.Owners)), now); r != nil {",
		new:  "each*int64(len(in.Owners)), now); r != nil && !mutant.Is(\"claims-of-caller-unlimited\") {",
		rows: []string{"RR-005"},
	},
	{
		name: "claims-of-target-unlimited", gone: "claims from one account are limited", file: "internal/directory/keypackageclaim.go",
		old:  "limits.KeyPackageTargets, string(owner), \"\", each, now); r != nil {",
		new:  "limits.KeyPackageTargets, string(owner), \"\", each, now); r != nil && !mutant.Is(\"claims-of-target-unlimited\") {",
		rows: []string{"RR-005"},
	},
	{
		name: "strangers-answered", gone: "callers without a token get nothing", file: "internal/xrpcserver/endpoint.go",
		old:  "	proof, err := s.identity.Prove(r.Context(), bearer(r), nsid, s.proxies.AddressOf(r))\n	if err != nil {\n",
		new:  "	proof, err := s.identity.Prove(r.Context(), bearer(r), nsid, s.proxies.AddressOf(r))\n	if err != nil && mutant.Is(\"strangers-answered\") {\n		return ds.Caller{Account: \"did:ex:stranger\"}, nil\n	}\n	if err != nil {\n",
		rows: []string{"RR-005"},
	},
	{
		name: "package-unsigned", gone: "a package is signed by its owner", file: "mls/keypackage/keypackage.go",
		old:  "	if err := CheckSignatures(s, k); err != nil {\n",
		new:  "	if err := CheckSignatures(s, k); err != nil && !mutant.Is(\"package-unsigned\") {\n",
		rows: []string{"RR-005"},
	},
	{
		name: "owner-not-told", gone: "an owner is told that its pool is low", file: "internal/directory/keypackageclaim.go",
		old:  "		return tx.Logs.AppendEvents(events)\n",
		new:  "		if mutant.Is(\"owner-not-told\") {\n			return nil\n		}\n		return tx.Logs.AppendEvents(events)\n",
		rows: []string{"RR-005"},
	},
	{
		name: "pools-claimed-at-once", gone: "claims from one account run one after the other", file: "internal/directory/keypackageclaim.go",
		old:  "		if err := tx.Packages.LockPools(in.Owners); err != nil {\n",
		new:  "		if mutant.Is(\"pools-claimed-at-once\") || mutant.Is(\"claim-not-atomic\") {\n			in.Owners = nil\n		}\n		if err := tx.Packages.LockPools(in.Owners); err != nil {\n",
		rows: []string{"RR-005"}, database: "postgres",
	},
}
