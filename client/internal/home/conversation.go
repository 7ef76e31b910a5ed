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

// Each calls fn for every conversation; fn may not use the transaction.
func (c Conversations) Each(fn func(*Conversation) error) error {
	var r Conversation
	return c.t.each([]any{&r.ID, &r.Phase, &r.NextSeq, &r.CreatedMS, &r.Info, &r.Group, &r.Pending}, func() error {
		row := r
		r = Conversation{}
		if err := c.open(&row); err != nil {
			return err
		}
		return fn(&row)
	}, `SELECT id, phase, next_seq, created_ms, info, mls, pending FROM conversations`)
}

// Columns is a set of parts of a conversation.
type Columns uint8

// The parts of a conversation.
const (
	ColumnPlace   Columns = 1 << iota // the phase and the cursor
	ColumnInfo                        // JSON
	ColumnGroup                       // the state of the group, nil for none
	ColumnPending                     // the commit under way, nil for none
)

// Save writes the changed parts of a conversation; of a new one the place and the info, too.
func (c Conversations) Save(r *Conversation, changed Columns, isNew bool) error {
	if isNew {
		if err := c.t.exec(`INSERT INTO conversations (id, phase, next_seq, created_ms, info) VALUES ($1, $2, $3, $4, $5)`,
			r.ID, r.Phase, r.NextSeq, r.CreatedMS, c.t.home.sealer.seal("conversations", r.ID, "info", r.Info)); err != nil {
			return err
		}
		changed &^= ColumnPlace | ColumnInfo
	}
	if changed&ColumnPlace != 0 {
		if err := c.t.exec(`UPDATE conversations SET phase = $1, next_seq = $2 WHERE id = $3`, r.Phase, r.NextSeq, r.ID); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		column Columns
		name   string
		plain  []byte
	}{{ColumnInfo, "info", r.Info}, {ColumnGroup, "mls", r.Group}, {ColumnPending, "pending", r.Pending}} {
		if changed&part.column == 0 {
			continue
		}
		var sealed any
		if part.plain != nil {
			sealed = c.t.home.sealer.seal("conversations", r.ID, part.name, part.plain)
		}
		if err := c.t.exec(`UPDATE conversations SET `+part.name+` = $1 WHERE id = $2`, sealed, r.ID); err != nil {
			return err
		}
	}
	return nil
}
