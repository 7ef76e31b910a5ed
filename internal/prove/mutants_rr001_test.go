package prove_test

var mutantsRR001 = []mutant{
	{
		name: "replay-cut-1000", gone: "a reader gets all that it missed, not just the last 1 000 records", file: "internal/logs/follower.go",
		old: `	if pos := one.pos.Load(); pos < max(wanted, one.goal) {`,
		new: `	if mutant.Is("replay-cut-1000") {
		one.pos.Store(max(one.pos.Load(), one.goal-1000))
	}
	if pos := one.pos.Load(); pos < max(wanted, one.goal) {`,
		rows: []string{"RR-001", "RR-003"},
	},
	{
		name: "event-id-ignored", gone: "a stream goes on behind the event that the client had last", file: "internal/gatewayserver/stream.go",
		old:  `	if text == "" {`,
		new:  `	if text == "" || mutant.Is("event-id-ignored") {`,
		rows: []string{"RR-001"},
	},
	{
		name: "stream-positions-in-memory", gone: "positions of streams are stored", file: "internal/logs/streams.go",
		old: `	kept, err := store.Get(ctx, s.store.Update, `,
		new: `	if mutant.Is("stream-positions-in-memory") {
		return slices.Repeat([]bool{true}, len(list)), nil
	}
	kept, err := store.Get(ctx, s.store.Update, `,
		rows: []string{"RR-001"},
	},
	{
		name: "resume-token-used-up", gone: "a resume token works until its successor is presented", file: "internal/identity/resume.go",
		old:  `previous[j.resume.hash]; !isPrevious {`,
		new:  `previous[j.resume.hash]; !isPrevious || mutant.Is("resume-token-used-up") {`,
		rows: []string{"RR-001"},
	},
	{
		name: "delivered-before-commit", gone: "readers get a message after it is stored", file: "internal/logs/flusher.go",
		old: `	return out, tx.Logs.Write(write)`,
		new: `	if mutant.Is("delivered-before-commit") {
		f.engine.tails.addBatch(out.records, f.engine.wakes.isFollowed)
		for log, pos := range out.heads {
			f.engine.wakes.wake(log, pos)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return out, tx.Logs.Write(write)`,
		rows: []string{"RR-001"},
	},
	{
		name: "acked-before-commit", gone: "a message is acked after it is stored", file: "internal/logs/flusher.go",
		old: `	for i, r := range batch {
		if loaded.locked[r.Conversation] {
			out.locked[i] = true
			continue
		}
		out.verdicts[i] = r.Rule.Decide(loaded.conversations[r.Conversation], now)
	}`,
		new: `	for i, r := range batch {
		if loaded.locked[r.Conversation] {
			out.locked[i] = true
			continue
		}
		out.verdicts[i] = r.Rule.Decide(loaded.conversations[r.Conversation], now)
		if mutant.Is("acked-before-commit") && out.verdicts[i] == nil {
			f.finish(r, nil)
		}
	}
	if mutant.Is("acked-before-commit") {
		time.Sleep(100 * time.Millisecond)
	}`,
		rows: []string{"RR-001", "RR-003"},
	},
	{
		name: "ids-not-stored", gone: "the ids of messages are kept, so that a repeat is answered with the earlier place", file: "internal/store/batch.go",
		old:  `			if chunk[i].MessageID != "" {`,
		new:  `			if chunk[i].MessageID != "" && !mutant.Is("ids-not-stored") {`,
		rows: []string{"RR-001", "RR-003"},
	},
	{
		name: "xrpc-cursor-skips", gone: "a subscription to many conversations goes on with the record right behind its cursor", file: "internal/xrpcserver/cursorplaces.go",
		old: `	at := earlierSpot{pos: next - 1}`,
		new: `	at := earlierSpot{pos: next - 1}
	if mutant.Is("xrpc-cursor-skips") {
		at.pos = next
	}`,
		rows: []string{"RR-001"},
	},
	{
		name: "xrpc-cursor-repeats", gone: "a subscription to one conversation does not bring its last record again", file: "internal/xrpcserver/stream.go",
		old: `		if pos, sub, ok := parseCursor(ids[0], cursor); ok {`,
		new: `		if pos, sub, ok := parseCursor(ids[0], cursor); ok {
			if mutant.Is("xrpc-cursor-repeats") && pos > 0 {
				pos--
			}`,
		rows: []string{"RR-001"},
	},
	{
		name: "xrpc-cursor-ignored", gone: "a subscription goes on from its cursor", file: "internal/xrpcserver/subscription.go",
		old: `	c, err := s.openStream(r.Context(), pass, in.Cursor)`,
		new: `	if mutant.Is("xrpc-cursor-ignored") {
		in.Cursor = ""
	}
	c, err := s.openStream(r.Context(), pass, in.Cursor)`,
		rows: []string{"RR-001"},
	},
	{
		name: "xrpc-event-id-ignored", gone: "a subscription by event stream goes on behind the event that the client had last", file: "internal/xrpcserver/subscription.go",
		old:  `last != "" && !isSocket {`,
		new:  `last != "" && !isSocket && !mutant.Is("xrpc-event-id-ignored") {`,
		rows: []string{"RR-001"},
	},
	{
		name: "xrpc-ids-not-stored", gone: "the ids of messages that come by sendMessage are kept, too", file: "internal/store/batch.go",
		old: `				writeMessageID(&rows.ids, &chunk[i])`,
		new: `				if !mutant.Is("xrpc-ids-not-stored") || chunk[i].Encoding != ds.Binary {
					writeMessageID(&rows.ids, &chunk[i])
				}`,
		rows: []string{"RR-001"},
	},
	{
		name: "xrpc-repeat-refused", gone: "a repeated sendMessage is answered with the place that the message has", file: "internal/xrpcserver/message.go",
		old: `	return &xrpc.SendMessageOutput{MessageID: in.MsgID, ReceivedAt: coarse(done.Record.CreatedMS), Seq: done.Record.Seq, Epoch: done.Record.Epoch}, nil`,
		new: `	if mutant.Is("xrpc-repeat-refused") && len(done.Record.Body) == 0 {
		return nil, badInput("msgId", "is known")
	}
	return &xrpc.SendMessageOutput{MessageID: in.MsgID, ReceivedAt: coarse(done.Record.CreatedMS), Seq: done.Record.Seq, Epoch: done.Record.Epoch}, nil`,
		rows: []string{"RR-001"},
	},
}
