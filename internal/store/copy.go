package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// copier is a connection to PostgreSQL that writes rows by COPY, the cheapest way to insert
// for both sides.
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

func (c postgresConn) copyFrom(ctx context.Context, statement string, data []byte) error {
	_, err := c.tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(data), statement)
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

func (c *copyBuffer) text(s string) {
	c.b = append(binary.BigEndian.AppendUint32(c.b, uint32(len(s))), s...)
}

func (c *copyBuffer) int(n int64) {
	c.b = binary.BigEndian.AppendUint64(append(c.b, 0, 0, 0, 8), uint64(n))
}

func (c *copyBuffer) small(n uint8) { c.b = append(c.b, 0, 0, 0, 2, 0, n) }

func (c *copyBuffer) bytes(b []byte) {
	c.b = append(binary.BigEndian.AppendUint32(c.b, uint32(len(b))), b...)
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
		c.row(recordWidth)
		writeRecord(c, &list[i])
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
		if list[i].MessageID != "" {
			c.row(messageIDWidth)
			writeMessageID(c, &list[i])
		}
	}
	if err := to.copyFrom(tx.ctx, `COPY message_ids (`+messageIDColumns+`) FROM STDIN (FORMAT binary)`, c.end()); err != nil {
		return fmt.Errorf("message ids: %w", err)
	}
	return nil
}
