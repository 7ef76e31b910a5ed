package prove_test

import "waxwing.im/waxwing/internal/prove"

var mutantsRR003 = []mutant{
	{
		name: "seq-outside-lock", gone: "the seq of a message is read under the lock of its conversation", file: "internal/logs/known.go",
		old: `	case !r.head.Version().IsEqual(c.Head.Version()):
		k.forget(c.Head.ID)`,
		new: `	case !r.head.Version().IsEqual(c.Head.Version()) && mutant.Is("seq-outside-lock"):
		c.Head.Seq = r.head.Seq
	case !r.head.Version().IsEqual(c.Head.Version()):
		k.forget(c.Head.ID)`,
		rows: []string{"RR-003"}, database: prove.PostgreSQL,
	},
	{
		name: "repeats-get-the-head", gone: "a repeated message id is answered with its own place", file: "internal/logs/load.go",
		old: `		conversations[key.Conversation].answer(key.ID, answer)`,
		new: `		if mutant.Is("repeats-get-the-head") {
			answer.Seq = conversations[key.Conversation].Head.Seq
		}
		conversations[key.Conversation].answer(key.ID, answer)`,
		rows: []string{"RR-003"},
	},
}
