package client

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"waxwing.im/waxwing/api/gateway"
)

// TestListIsReadByPages: the list of conversations is read page by page to its end, or no
// further than is wanted; one that does not end is read as far as the bound, and a page
// that is too long is an error.
func TestListIsReadByPages(t *testing.T) {
	page := func(cursor string, ids ...string) string {
		list := gateway.ConversationList{Items: []gateway.Conversation{}, NextCursor: cursor}
		for _, id := range ids {
			list.Items = append(list.Items, gateway.Conversation{ConvID: id, Role: "owner"})
		}
		text, err := gateway.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	calls := 0
	answer := func(cursor string) string { return "" }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		_, _ = w.Write([]byte(answer(r.URL.Query().Get("cursor"))))
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{base: base, http: server.Client()}
	c.errands = errands{c}
	by := c.gateway("token")
	all := func(most int) (ids []string, err error) {
		calls = 0
		for page, err := range c.errands.pages(context.Background(), by) {
			if err != nil {
				return ids, err
			}
			for _, one := range page {
				ids = append(ids, one.id)
			}
			if len(ids) >= most {
				break
			}
		}
		return ids, nil
	}
	answer = func(cursor string) string {
		return map[string]string{"": page("a b+", "c1", ""), "a b+": page("last", "c2", "c3"), "last": page("", "c4")}[cursor]
	}
	if ids, err := all(1 << 30); err != nil || fmt.Sprint(ids) != "[c1 c2 c3 c4]" || calls != 3 {
		t.Errorf("%v, %v by %d calls", ids, err, calls)
	}
	if ids, err := all(2); err != nil || len(ids) != 3 || calls != 2 {
		t.Errorf("%v, %v by %d calls", ids, err, calls)
	}
	if role, err := c.errands.roleIn(context.Background(), by, "c3"); role != "owner" || err != nil {
		t.Errorf("role %q, %v", role, err)
	}
	answer = func(cursor string) string { return page(cursor+"x", "c1") }
	if ids, err := all(1 << 30); err != nil || len(ids) != listPagesMax {
		t.Errorf("%d items of an endless list, %v", len(ids), err)
	}
	answer = func(cursor string) string { return page("more") }
	if _, err := all(1 << 30); err != nil || calls != 1 {
		t.Errorf("%d calls for pages without items, %v", calls, err)
	}
	answer = func(cursor string) string { return page("", strings.Repeat("x", answerBytesMax)) }
	if _, err := all(1 << 30); err == nil {
		t.Error("a page of more than 16 MiB is read")
	}
}
