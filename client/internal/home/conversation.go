package home

// Conversation is a decoded row of conversations. Info is JSON; Group and Pending are as
// written, nil if absent.
type Conversation struct {
	ID                   string
	Phase                int
	NextSeq, CreatedMS   int64
	Info, Group, Pending []byte
}

// Conversations holds the conversations of a home.
type Conversations struct{ t *Tx }

const conversationColumns = `id, phase, next_seq, created_ms, info, mls, pending`

func (r *Conversation) dest() []any {
	return []any{&r.ID, &r.Phase, &r.NextSeq, &r.CreatedMS, &r.Info, &r.Group, &r.Pending}
}

// open opens the sealed columns of a row in place.
func (c Conversations) open(r *Conversation) error {
	for _, part := range []struct {
		column string
		value  *[]byte
	}{{"info", &r.Info}, {"mls", &r.Group}, {"pending", &r.Pending}} {
		if *part.value == nil && part.column != "info" {
			continue
		}
		plain, err := c.t.home.sealer.open("conversations", r.ID, part.column, *part.value)
		if err != nil {
			return err
		}
		*part.value = plain
	}
	return nil
}

// Get returns the conversation id, or nil.
func (c Conversations) Get(id string) (*Conversation, error) {
	var r Conversation
	found, err := c.t.get(r.dest(), `SELECT `+conversationColumns+` FROM conversations WHERE id = $1`, id)
	if err != nil || !found {
		return nil, err
	}
	return &r, c.open(&r)
}

// Each calls fn for every conversation but those that skip reports; fn may not use the
// transaction.
func (c Conversations) Each(skip func(id string) bool, fn func(*Conversation) error) error {
	var r Conversation
	return c.t.each(r.dest(), func() error {
		row := r
		r = Conversation{}
		if skip(row.ID) {
			return nil
		}
		if err := c.open(&row); err != nil {
			return err
		}
		return fn(&row)
	}, `SELECT `+conversationColumns+` FROM conversations`)
}

// Add writes a new conversation, without a group; info is sealed as JSON.
func (c Conversations) Add(id string, phase int, nextSeq, createdMS int64, info any) error {
	sealed, err := c.t.sealJSON("conversations", id, "info", info)
	if err != nil {
		return err
	}
	return c.t.exec(`INSERT INTO conversations (id, phase, next_seq, created_ms, info) VALUES ($1, $2, $3, $4, $5)`,
		id, phase, nextSeq, createdMS, sealed)
}

// SetInfo writes info, sealed as JSON.
func (c Conversations) SetInfo(id string, info any) error {
	sealed, err := c.t.sealJSON("conversations", id, "info", info)
	if err != nil {
		return err
	}
	return c.t.exec(`UPDATE conversations SET info = $1 WHERE id = $2`, sealed, id)
}

// SetPlace writes the phase and the cursor.
func (c Conversations) SetPlace(id string, phase int, nextSeq int64) error {
	return c.t.exec(`UPDATE conversations SET phase = $1, next_seq = $2 WHERE id = $3`, phase, nextSeq, id)
}

// SetGroup writes the state of the group; nil for none.
func (c Conversations) SetGroup(id string, plain []byte) error { return c.setState(id, "mls", plain) }

// SetPending writes the commit under way; nil for none.
func (c Conversations) SetPending(id string, plain []byte) error {
	return c.setState(id, "pending", plain)
}

func (c Conversations) setState(id, column string, plain []byte) error {
	var sealed any
	if plain != nil {
		sealed = c.t.home.sealer.seal("conversations", id, column, plain)
	}
	return c.t.exec(`UPDATE conversations SET `+column+` = $1 WHERE id = $2`, sealed, id)
}
