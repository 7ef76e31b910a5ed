package gatewayserver

import (
	"net/url"
	"strconv"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// streamQuery holds the parameters of GET /v1/sse.
type streamQuery struct {
	conversations []ds.ConversationID
	starts        []int64 // none, one for all, or one for each conversation
	all, device   bool
}

// from returns the first seq of the conversation with that index; 0 is the device's cursor.
func (q *streamQuery) from(i int) int64 {
	switch len(q.starts) {
	case 0:
		return 0
	case 1:
		return q.starts[0]
	}
	return q.starts[i]
}

// parseStream reads the query of GET /v1/sse: conv_id (repeated) or all=1 or device=1,
// with from_seq or after_seq once for all conversations or once for each of them in
// their order. from_seq wins.
func parseStream(rawQuery string, who identity.Session) (streamQuery, error) {
	var q streamQuery
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return q, ds.Refuse(ds.InvalidRequest, "malformed query")
	}
	named := map[string]bool{}
	for _, text := range values["conv_id"] {
		id, err := conversationID(text)
		if err != nil {
			return q, err
		}
		if named[text] {
			return q, ds.Refuse(ds.InvalidRequest, "conv_id: named twice")
		}
		named[text] = true
		if q.conversations = append(q.conversations, id); len(q.conversations) > logs.StreamConversationsMax {
			return q, ds.Refuse(ds.InvalidRequest, "conv_id: more than %d", logs.StreamConversationsMax)
		}
	}
	if q.all, err = flagOf(values, "all"); err != nil {
		return q, err
	}
	if q.device, err = flagOf(values, "device"); err != nil {
		return q, err
	}
	switch {
	case q.device && !who.Has(gateway.FeatureDevice):
		return q, errNoDevice
	case len(q.conversations) == 0 && !q.all && !q.device:
		return q, ds.Refuse(ds.InvalidRequest, "conv_id: missing")
	}
	return q, q.readStarts(values)
}

func flagOf(values url.Values, name string) (bool, error) {
	switch text := values.Get(name); text {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, ds.Refuse(ds.InvalidRequest, "%s: neither 0 nor 1", name)
}

func (q *streamQuery) readStarts(values url.Values) error {
	from, err := integersOf(values, "from_seq")
	if err != nil {
		return err
	}
	after, err := integersOf(values, "after_seq")
	if err != nil {
		return err
	}
	name, list := "from_seq", from
	if len(from) == 0 {
		name, list = "after_seq", after
	}
	if len(list) > 1 && (q.all || len(list) != len(q.conversations)) {
		return ds.Refuse(ds.InvalidRequest, "%s: neither one for all nor one for each conv_id", name)
	}
	for i := range list {
		start, err := startOf(&list[i], nil)
		if len(from) == 0 {
			start, err = startOf(nil, &list[i])
		}
		if err != nil {
			return err
		}
		q.starts = append(q.starts, start)
	}
	return nil
}

func integersOf(values url.Values, name string) ([]int64, error) {
	var list []int64
	for _, text := range values[name] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || text[0] == '+' {
			return nil, ds.Refuse(ds.InvalidRequest, "%s: not an integer", name)
		}
		list = append(list, n)
	}
	return list, nil
}
