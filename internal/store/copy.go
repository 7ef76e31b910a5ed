package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// copier writes rows by COPY, PostgreSQL's cheapest way to insert for both sides. Only the
// pipeline of a batch implements it.
type copier interface {
	copyFrom(ctx context.Context, statement string, data []byte) error
}

func (p *pipeline) copyFrom(ctx context.Context, statement string, data []byte) error {
	if err := p.flush(ctx); err != nil {
		return err
	}
	_, err := p.conn.PgConn().CopyFrom(ctx, bytes.NewReader(data), statement)
	return err
}

var copyBuffers = sync.Pool{New: func() any { return new(copyBuffer) }}

// copyRowsMin is the number of rows from which the two round trips of COPY pay.
const copyRowsMin = 8

// copyBufferBytesMax bounds the buffer that is kept for the next batch.
const copyBufferBytesMax = 4 << 20

// copyBuffer is the binary form of COPY: a header, rows of counted fields, an end.
type copyBuffer struct{ b []byte }

func (c *copyBuffer) begin() {
	c.b = append(c.b[:0], "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
}

func (c *copyBuffer) row(fields int16) { c.b = binary.BigEndian.AppendUint16(c.b, uint16(fields)) }

func (c *copyBuffer) end() []byte {
	c.b = append(c.b, 0xff, 0xff)
	return c.b
}

func (c *copyBuffer) null() { c.b = append(c.b, 0xff, 0xff, 0xff, 0xff) }

func (c *copyBuffer) int(n int64) {
	c.b = binary.BigEndian.AppendUint64(append(c.b, 0, 0, 0, 8), uint64(n))
}

func (c *copyBuffer) small(n int16) {
	c.b = binary.BigEndian.AppendUint16(append(c.b, 0, 0, 0, 2), uint16(n))
}

func (c *copyBuffer) bytes(b []byte) {
	c.b = append(binary.BigEndian.AppendUint32(c.b, uint32(len(b))), b...)
}

func copyText[S ~string](c *copyBuffer, s S) {
	c.b = append(binary.BigEndian.AppendUint32(c.b, uint32(len(s))), s...)
}

// copyOptional writes the empty string as NULL.
func copyOptional[S ~string](c *copyBuffer, s S) {
	if s == "" {
		c.null()
		return
	}
	copyText(c, s)
}

// copyRecords does the work of insertRecords by COPY.
func (tx *Tx) copyRecords(to copier, list []ds.Record) error {
	c := copyBuffers.Get().(*copyBuffer)
	defer func() {
		if cap(c.b) <= copyBufferBytesMax {
			copyBuffers.Put(c)
		}
	}()
	c.begin()
	messages := 0
	for i := range list {
		c.record(&list[i])
		if list[i].MessageID != "" {
			messages++
		}
	}
	if err := to.copyFrom(tx.ctx, `COPY records (`+recordColumns+`) FROM STDIN (FORMAT binary)`, c.end()); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if messages == 0 {
		return nil
	}
	c.begin()
	for i := range list {
		if r := &list[i]; r.MessageID != "" {
			c.row(7)
			copyText(c, r.Log)
			copyText(c, r.MessageID)
			c.int(r.Pos)
			c.int(r.Seq)
			c.small(int16(r.Kind))
			c.int(r.Epoch)
			c.int(r.CreatedMS)
		}
	}
	if err := to.copyFrom(tx.ctx, `COPY message_ids (log_id, message_id, pos, seq, kind, epoch, created_ms) FROM STDIN (FORMAT binary)`, c.end()); err != nil {
		return fmt.Errorf("message ids: %w", err)
	}
	return nil
}

// record writes one row in the order of recordColumns.
func (c *copyBuffer) record(r *ds.Record) {
	c.row(15)
	copyText(c, r.Log)
	c.int(r.Pos)
	if r.Seq == 0 {
		c.null()
	} else {
		c.int(r.Seq)
	}
	c.small(int16(r.Kind))
	c.int(r.Generation)
	c.int(r.Epoch)
	c.int(r.Term)
	copyOptional(c, r.MessageID)
	c.int(r.CreatedMS)
	if r.Hash == nil {
		c.null()
	} else {
		c.bytes(r.Hash)
	}
	copyOptional(c, r.Sender.Account)
	copyOptional(c, r.Sender.ID)
	copyOptional(c, r.Recipient)
	c.small(int16(r.Encoding))
	c.bytes(r.Body)
}
