package prove_test

var mutantsRR004 = []mutant{
	{name: "applied-before-echo", gone: "a client applies its commit when the log shows it", file: "client/commit.go",
		old:  "conv.setGroup(commit.Base()) // without the key that the commit was sealed with",
		new:  "if conv.setGroup(commit.Base()); mutant.Is(\"applied-before-echo\") && conv.phase == Joined {\n\t\tconv.setGroup(commit.Group())\n\t}",
		rows: []string{"RR-004"}},
	{name: "loser-dropped", gone: "a commit that lost is made again", file: "client/commit.go",
		old:  "		k.observed(\"lost\", conv.id, conv.epoch(), nil)\n",
		new:  "		k.observed(\"lost\", conv.id, conv.epoch(), nil)\n\t\tif mutant.Is(\"loser-dropped\") {\n\t\t\tconv.editInfo().Refresh = false\n\t\t}\n",
		rows: []string{"RR-004"}},
	{name: "epoch-unchecked", gone: "a commit is of the current epoch", file: "internal/core/bundle.go",
		old:  "		if a.seen.epoch != c.Head.Epoch {\n			return verdict{}, refuseEpoch(c.Head.Epoch).Because(ds.LostRace)",
		new:  "		if a.seen.epoch != c.Head.Epoch && !mutant.Is(\"epoch-unchecked\") {\n			return verdict{}, refuseEpoch(c.Head.Epoch).Because(ds.LostRace)",
		rows: []string{"RR-004"}},
	{name: "epoch-outside", gone: "the epoch is compared in the transaction that appends", file: "internal/core/bundle.go",
		old: "// judge checks the commit against the group and its epoch, and returns the refusal that was\n// found before the queue.\nfunc (b Bundle) judge(c *logs.Conversation, a *action) (verdict, error) {\n",
		new: `// headsRead holds the epochs that were current before transactions.
var headsRead = map[*store.Batch]int64{}

func (b Bundle) judge(c *logs.Conversation, a *action) (verdict, error) {
	if mutant.Is("epoch-outside") && c.Head.IsBound() {
		if _, ok := headsRead[c.Out]; !ok {
			headsRead[c.Out] = c.Head.Epoch
		}
		if a.seen.epoch == headsRead[c.Out] {
			return verdict{a.seen, 0}, a.refused
		}
	}
`,
		rows: []string{"RR-004"}},
	{name: "loser-welcomed", gone: "the Welcome of a commit that lost is not delivered", file: "internal/core/bundle.go",
		old: "		if !bytes.Equal(a.seen.group, c.Head.GroupID) {\n",
		new: `		if a.seen.epoch != c.Head.Epoch && b.Welcome != nil && mutant.Is("loser-welcomed") {
			c.Out.Welcomes = append(c.Out.Welcomes, store.Welcome{ID: a.found.welcomeID, Conversation: c.Head.ID, Pos: c.Head.Pos, Body: b.Welcome, ExpiresMS: 1 << 50})
			addWelcome(c, a.found.welcomeID, a.found.to, c.Head.Seq+1)
		}
		if !bytes.Equal(a.seen.group, c.Head.GroupID) {
`,
		rows: []string{"RR-004"}},
}
