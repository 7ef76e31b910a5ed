package prove_test

var mutantsRR009 = []mutant{
	{
		name: "used-key-kept", gone: "the key of a late message is deleted with its use", file: "mls/schedule/ratchet.go",
		old:  "		r.skipped = slices.Concat(r.skipped[:i], r.skipped[i+1:])\n",
		new:  "		if mutant.Is(\"used-key-kept\") { // the wrong nonce: it opens nothing a second time\n			r.skipped = slices.Clone(r.skipped)\n			r.skipped[i].Nonce = make([]byte, suite.NonceBytes)\n			return k, r, nil\n		}\n		r.skipped = slices.Concat(r.skipped[:i], r.skipped[i+1:])\n",
		rows: []string{"RR-009"},
	},
	{
		name: "tree-secret-kept", gone: "a secret is deleted once keys are derived from it", file: "mls/schedule/secrettree.go",
		old:  "	split := secretNode{left: n.left, right: n.right}\n",
		new:  "	split := secretNode{left: n.left, right: n.right}\n	if mutant.Is(\"tree-secret-kept\") {\n		split.secret = n.secret\n	}\n",
		rows: []string{"RR-009"},
	},
	{
		name: "pending-keeps-keys", gone: "a saved commit holds no keys of messages that come before it", file: "mls/staged.go",
		old:  "	next.past = p.base.origin()\n",
		new:  "	next.past = p.base.origin()\n	if mutant.Is(\"pending-keeps-keys\") {\n		next.past = p.base.remember()\n	}\n",
		rows: []string{"RR-009"},
	},
	{
		name: "generation-not-advanced", gone: "the state after a message cannot open it again", file: "mls/process.go",
		old:  "	*v.secrets = secrets\n",
		new:  "	if !mutant.Is(\"generation-not-advanced\") {\n		*v.secrets = secrets\n	}\n",
		rows: []string{"RR-009"},
	},
	{
		name: "skipped-keys-not-saved", gone: "keys of messages that are late are saved", file: "mls/schedule/ratchet.go",
		old:  "	wire.Vector(c, &r.skipped, func(c *wire.Coder, k *Key) {\n",
		new:  "	if mutant.Is(\"skipped-keys-not-saved\") && !c.Decoding() {\n		r.skipped = nil\n	}\n	wire.Vector(c, &r.skipped, func(c *wire.Coder, k *Key) {\n",
		rows: []string{"RR-009"},
	},
	{
		name: "pending-lost-at-load", gone: "a commit under way is loaded with the group", file: "client/conversation.go",
		old:  "	if r.Pending != nil {\n",
		new:  "	if r.Pending != nil && !mutant.Is(\"pending-lost-at-load\") {\n",
		rows: []string{"RR-009"},
	},
	{
		name: "state-saved-late", gone: "a client saves its state before a message is sent, and not with the next one that it receives", file: "client/conversation.go",
		old:  "		if err := t.Conversations.Save(&row, c.changed, c.isNew); err != nil {\n",
		new:  "		if mutant.Is(\"state-saved-late\") && c.changed&home.ColumnPlace == 0 {\n			c.changed &^= home.ColumnGroup\n		}\n		if err := t.Conversations.Save(&row, c.changed, c.isNew); err != nil {\n",
		rows: []string{"RR-009"},
	},
}
