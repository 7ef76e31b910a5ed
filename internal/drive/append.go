package drive

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"waxwing.im/waxwing/api/gateway"
)

// Append sends a message by the client's connection, again on each new one until it is acked.
func (c *Client) Append(ctx context.Context, conversation, id string) (seq int64, err error) {
	c.Send(conversation, id, "text of "+id)
	return c.AwaitAcked(ctx, conversation, id)
}

// Inbox appends by requests over HTTP. It is safe for concurrent use.
type Inbox struct {
	Caller  *Caller
	Repeats *atomic.Int64 // counts requests after one with an unknown outcome
}

// Append posts a message, until it is acked.
func (p Inbox) Append(ctx context.Context, conversation, id string) (seq int64, err error) {
	frame, err := gateway.EncodeFrame(gateway.TypeSend, gateway.StringID(id), &gateway.Send{ConvID: conversation, MsgID: id, Env: "text of " + id})
	if err != nil {
		return 0, err
	}
	var answer gateway.InboxAnswer
	err = untilAnswered(ctx, p.Repeats, func() error { return p.Caller.Post(ctx, "/v1/inbox", json.RawMessage(frame), &answer) })
	return answer.Seq, err
}

// untilAnswered repeats a request until the server answers it: with success, or a refusal.
func untilAnswered(ctx context.Context, repeats *atomic.Int64, do func() error) error {
	for {
		err := do()
		var refusal *gateway.Error
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case errors.As(err, &refusal) && refusal.Code != gateway.CodeUnavailable:
			return err
		}
		repeats.Add(1)
		pause(ctx, reconnectMin)
	}
}

// LogReader reads conversations in whole, by streams of a session with FeatureMarker.
type LogReader struct {
	Caller  *Caller
	Repeats *atomic.Int64 // counts reads that were cut off
}

// errCutOff reports that a stream ended before it had caught up.
var errCutOff = errors.New("the stream ended early")

// Read returns the ids of the messages of a conversation, in the order of the log, with all that
// were in it when the server took the request. hasGap reports that their seqs were not 1, 2, 3
// and so on.
func (r *LogReader) Read(ctx context.Context, conversation string) (ids []string, hasGap bool, err error) {
	err = untilAnswered(ctx, r.Repeats, func() error {
		ids, hasGap, err = r.read(ctx, conversation)
		return err
	})
	return ids, hasGap, err
}

func (r *LogReader) read(ctx context.Context, conversation string) (ids []string, hasGap bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Caller.base+"/v1/sse?from_seq=1&conv_id="+conversation, nil)
	if err != nil {
		return nil, false, err
	}
	request.Header.Set("Authorization", "Bearer "+r.Caller.token)
	response, err := r.Caller.http.Do(request)
	if err != nil {
		return nil, false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		refusal, err := refusalOf(response)
		if err != nil {
			return nil, false, err
		}
		return nil, false, refusal
	}
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", errCutOff, err)
		}
		data, isData := bytes.CutPrefix(line, []byte("data: "))
		if !isData {
			continue
		}
		frame, err := gateway.DecodeFrame(bytes.TrimSuffix(data, []byte("\n")))
		if err != nil {
			return nil, false, err
		}
		switch frame.Type {
		case gateway.TypeCaughtUp:
			return ids, hasGap, nil
		case gateway.TypeEvent:
			var event gateway.Event
			if err := frame.Decode(&event); err != nil {
				return nil, false, err
			}
			ids = append(ids, event.MsgID)
			hasGap = hasGap || event.Seq != int64(len(ids))
		}
	}
}
