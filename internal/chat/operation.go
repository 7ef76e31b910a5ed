package chat

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/client"
)

// operations returns what programs can request, by name; docs/command-line.md describes each.
func operations() map[string]operation {
	return map[string]operation{
		"send": with((*program).send), "list": with((*program).list), "who": with((*program).who),
		"dm": with((*program).dm), "room": with((*program).room),
		"invite": with((*program).invite), "remove": with((*program).remove), "leave": with((*program).leave),
		"admin": with((*program).admin), "title": with((*program).title), "refresh": with((*program).refresh),
		"devices": with((*program).devices), "add_device": with((*program).addDevice), "remove_device": with((*program).removeDevice),
		"people": with((*program).people), "verify": with((*program).verify), "unverify": with((*program).unverify),
		"name": with((*program).name), "alias": with((*program).alias),
		"history": with((*program).history), "search": with((*program).search), "read": with((*program).read),
		"state": with((*program).state), "events": with((*program).events), "run": with((*program).run),
	}
}

// The states of requests in answers.
const (
	stateStored    = "stored"    // in the home, and to be done
	stateDone      = "done"      // in effect
	stateDelivered = "delivered" // the server has the message
	stateRefused   = "refused"
)

// ordered starts do and blocks until it has ended or waits (Terminal.until), so that the requests
// of a program are stored in their order. await returns its error.
func ordered(t *Terminal, do func() error) (await func() error) {
	waits, done := make(chan struct{}), make(chan error, 1)
	t.onWait = sync.OnceFunc(func() { close(waits) })
	go func() {
		done <- do()
		t.onWait()
	}()
	<-waits
	return func() error { return <-done }
}

// whole runs a method that waits until it is done, with its output left out. Without a wait its
// request is only stored.
func (p *program) whole(ctx context.Context, result any, state *string, wait duration, do func(t *Terminal, ctx context.Context, wait time.Duration) error) (any, func(context.Context) error, error) {
	t := p.chat.guest(strings.NewReader(""), io.Discard, io.Discard)
	await := ordered(t, func() error { return do(t, ctx, time.Duration(wait)) })
	settle := func(context.Context) error {
		err := await()
		switch {
		case err == nil:
			*state = stateDone
		case CodeOf(err) == CodeStored:
			*state = stateStored
			if wait == 0 {
				return nil
			}
		case CodeOf(err) == CodeRefused:
			*state = stateRefused
		}
		return err
	}
	if wait > 0 {
		return result, settle, nil
	}
	return result, nil, settle(ctx)
}

// sentResult is the answer of send.
type sentResult struct {
	Conv  string `json:"conv,omitempty"`
	ID    string `json:"id,omitempty"`
	State string `json:"state,omitempty"`
	Seq   int64  `json:"seq,omitempty"`
}

type sendParams struct {
	Conv string    `json:"conv"` // a conversation, as in /open
	To   string    `json:"to"`   // or a person
	Text *string   `json:"text"`
	ID   *string   `json:"id"`
	Wait *duration `json:"wait"`
}

func (p *program) send(ctx context.Context, in sendParams) (any, func(context.Context) error, error) {
	if in.Text == nil || *in.Text == "" {
		return nil, nil, failure{CodeBadRequest, errors.New("text is missing")}
	}
	result := &sentResult{}
	var err error
	switch {
	case in.Conv != "" && in.To == "":
		var c client.Conversation
		c, err = p.chat.find(ctx, in.Conv)
		result.Conv = c.ID
	case in.To != "" && in.Conv == "":
		result.Conv, err = p.chat.people.dmWith(ctx, in.To)
	default:
		err = failure{CodeBadRequest, errors.New("want one of conv and to")}
	}
	if err != nil {
		return nil, nil, err
	}
	var options []client.SendOption
	if in.ID != nil {
		options = append(options, client.WithMessageID(*in.ID))
	}
	p.screen.saying.Lock() // until it is known that the text is this program's
	result.ID, err = p.chat.client.Send(ctx, result.Conv, []byte(*in.Text), options...)
	p.screen.saying.Unlock()
	if err != nil {
		return result, nil, err
	}
	if result.State = stateStored; in.Wait == nil {
		return result, nil, nil
	}
	return result, func(ctx context.Context) error { return p.untilDelivered(ctx, time.Duration(*in.Wait), result) }, nil
}

// none is the parameters of an operation without any.
type none struct{}

func (p *program) list(ctx context.Context, _ none) (any, func(context.Context) error, error) {
	all, err := p.chat.client.Conversations(ctx)
	out := struct {
		Conversations []conversationItem `json:"conversations"`
	}{[]conversationItem{}}
	for _, c := range all {
		out.Conversations = append(out.Conversations, p.chat.people.itemOf(c))
	}
	return out, nil, err
}

type convParams struct {
	Conv string `json:"conv"`
}

// whoItem is an account of a conversation.
type whoItem struct {
	DID      string          `json:"did"`
	Name     string          `json:"name,omitempty"`
	Role     string          `json:"role,omitempty"`
	Me       bool            `json:"me,omitempty"`
	Verified bool            `json:"verified"` // a person has compared the safety number
	Devices  []whoDeviceItem `json:"devices"`
}

type whoDeviceItem struct {
	Device      string `json:"device"`
	Fingerprint string `json:"fingerprint"`
	Unverified  bool   `json:"unverified,omitempty"` // the account has not confirmed the device
}

func (p *program) who(ctx context.Context, in convParams) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	out := struct {
		conversationItem
		People []whoItem `json:"people"`
	}{p.chat.people.itemOf(c), []whoItem{}}
	for _, account := range accountsOf([]client.Conversation{{Members: c.Members}}) {
		who := whoItem{DID: account, Name: p.chat.people.labelOf(account), Me: account == p.chat.self, Verified: p.chat.people.contact(account).Trusted}
		if who.Role = c.Roles[account]; who.Me {
			who.Role = c.Role
		}
		for _, m := range c.Members {
			if m.Account == account {
				who.Devices = append(who.Devices, whoDeviceItem{m.Device, m.Fingerprint, !m.Verified})
			}
		}
		out.People = append(out.People, who)
	}
	return out, nil, nil
}

// convResult is the answer of an operation on a conversation.
type convResult struct {
	Conv  string   `json:"conv,omitempty"`
	DIDs  []string `json:"dids,omitempty"`
	State string   `json:"state,omitempty"`
}

func (p *program) dm(ctx context.Context, in struct {
	To string `json:"to"`
}) (any, func(context.Context) error, error) {
	conv, err := p.chat.people.dmWith(ctx, in.To)
	return convResult{Conv: conv}, nil, err
}

// dmWith returns the direct conversation with a person, and begins it if there is none.
func (p people) dmWith(ctx context.Context, word string) (string, error) {
	account, err := p.person(ctx, word)
	switch {
	case err != nil:
		return "", err
	case account == p.self:
		return "", mistake("%s is your own account: a direct conversation is with another one", short(account))
	}
	return p.sdk.StartDM(ctx, account)
}

func (p *program) room(ctx context.Context, in struct {
	People []string `json:"people"`
	Title  string   `json:"title"`
	Wait   duration `json:"wait"`
}) (any, func(context.Context) error, error) {
	dids, err := p.persons(ctx, in.People)
	if err != nil {
		return nil, nil, err
	}
	room, err := makeRoom(ctx, p.chat, dids, in.Title)
	if err != nil {
		return nil, nil, err
	}
	result := &convResult{Conv: room, DIDs: dids}
	return p.whole(ctx, result, &result.State, in.Wait, func(t *Terminal, ctx context.Context, wait time.Duration) error {
		return t.until(ctx, wait, t.invited(ctx, room, dids, in.Title))
	})
}

func (p *program) admin(ctx context.Context, in struct {
	memberParams
	Take bool `json:"take"`
}) (any, func(context.Context) error, error) {
	return p.manage(ctx, in.memberParams, func(t *Terminal, ctx context.Context, word string, dids []string, wait time.Duration) error {
		return t.SetAdmin(ctx, word, dids, !in.Take, wait)
	})
}

func (p *program) title(ctx context.Context, in struct {
	Conv  string   `json:"conv"`
	Title string   `json:"title"`
	Wait  duration `json:"wait"`
}) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	result := &convResult{Conv: c.ID}
	return p.whole(ctx, result, &result.State, in.Wait, func(t *Terminal, ctx context.Context, wait time.Duration) error {
		return t.SetTitle(ctx, c.ID, in.Title, wait)
	})
}

// refresh requests fresh keys for this device, which a commit brings.
func (p *program) refresh(ctx context.Context, in struct {
	Conv string `json:"conv"`
}) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	return &convResult{Conv: c.ID, State: stateStored}, nil, p.chat.client.Refresh(ctx, c.ID)
}

// persons returns the DIDs that the texts name, one for each.
func (p *program) persons(ctx context.Context, words []string) ([]string, error) {
	var dids []string
	for _, word := range words {
		did, err := p.chat.people.person(ctx, word)
		if err != nil {
			return nil, err
		}
		dids = append(dids, did)
	}
	return dids, nil
}

type memberParams struct {
	Conv   string   `json:"conv"`
	People []string `json:"people"`
	Wait   duration `json:"wait"`
}

func (p *program) invite(ctx context.Context, in memberParams) (any, func(context.Context) error, error) {
	return p.manage(ctx, in, (*Terminal).Invite)
}

func (p *program) remove(ctx context.Context, in memberParams) (any, func(context.Context) error, error) {
	return p.manage(ctx, in, (*Terminal).Remove)
}

func (p *program) manage(ctx context.Context, in memberParams, do func(t *Terminal, ctx context.Context, word string, dids []string, wait time.Duration) error) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	dids, err := p.persons(ctx, in.People)
	if err == nil && len(dids) == 0 {
		err = failure{CodeBadRequest, errors.New("people are missing")}
	}
	if err != nil {
		return nil, nil, err
	}
	result := &convResult{Conv: c.ID, DIDs: dids}
	return p.whole(ctx, result, &result.State, in.Wait, func(t *Terminal, ctx context.Context, wait time.Duration) error { return do(t, ctx, c.ID, dids, wait) })
}

func (p *program) leave(ctx context.Context, in struct {
	Conv     string   `json:"conv"`
	NewOwner string   `json:"new_owner"`
	Wait     duration `json:"wait"`
}) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	result := &convResult{Conv: c.ID}
	return p.whole(ctx, result, &result.State, in.Wait, func(t *Terminal, ctx context.Context, wait time.Duration) error {
		return t.Leave(ctx, c.ID, in.NewOwner, wait)
	})
}

func (p *program) devices(ctx context.Context, _ none) (any, func(context.Context) error, error) {
	devices, err := p.chat.client.OwnDevices(ctx)
	out := struct {
		Devices []deviceItem `json:"devices"`
	}{[]deviceItem{}}
	for _, d := range devices {
		out.Devices = append(out.Devices, itemOfDevice(d))
	}
	return out, nil, err
}

type deviceParams struct {
	Device string   `json:"device"`
	Wait   duration `json:"wait"`
}

type deviceResult struct {
	Device string `json:"device,omitempty"`
	State  string `json:"state,omitempty"`
}

func (p *program) addDevice(ctx context.Context, in deviceParams) (any, func(context.Context) error, error) {
	result := &deviceResult{Device: in.Device}
	return p.whole(ctx, result, &result.State, in.Wait, func(t *Terminal, ctx context.Context, wait time.Duration) error {
		return t.AddDevice(ctx, in.Device, wait)
	})
}

func (p *program) removeDevice(ctx context.Context, in deviceParams) (any, func(context.Context) error, error) {
	result := &deviceResult{Device: in.Device}
	return p.whole(ctx, result, &result.State, in.Wait, func(t *Terminal, ctx context.Context, wait time.Duration) error {
		return t.RemoveDevice(ctx, in.Device, wait)
	})
}

func (p *program) people(ctx context.Context, _ none) (any, func(context.Context) error, error) {
	list, err := p.chat.people.contacts(ctx)
	out := struct {
		People []contactItem `json:"people"`
	}{[]contactItem{}}
	for _, c := range list {
		out.People = append(out.People, itemOfContact(c))
	}
	return out, nil, err
}

// trustResult is the answer about the verification of an account.
type trustResult struct {
	DID      string `json:"did"`
	Name     string `json:"name,omitempty"`
	Number   string `json:"number,omitempty"` // the safety number that both people should read
	Verified bool   `json:"verified"`
}

func (p *program) verify(ctx context.Context, in struct {
	Person string `json:"person"`
	Number string `json:"number"`
}) (any, func(context.Context) error, error) {
	account, err := p.chat.people.person(ctx, in.Person)
	if err != nil {
		return nil, nil, err
	}
	number, _, err := p.chat.safetyLines(ctx, account)
	if err != nil {
		return nil, nil, err
	}
	if in.Number != "" {
		if err = compare(number, in.Number); err == nil {
			err = p.chat.client.Verify(ctx, number)
		}
	}
	c := p.chat.people.contact(account)
	return trustResult{account, c.Label(), number.String(), c.Trusted}, nil, err
}

func (p *program) unverify(ctx context.Context, in struct {
	Person string `json:"person"`
}) (any, func(context.Context) error, error) {
	account, err := p.chat.people.person(ctx, in.Person)
	if err == nil {
		err = p.chat.client.Unverify(ctx, account)
	}
	if err != nil {
		return nil, nil, err
	}
	return trustResult{DID: account, Name: p.chat.people.labelOf(account)}, nil, nil
}

func (p *program) name(ctx context.Context, in struct {
	Name *string `json:"name"`
}) (any, func(context.Context) error, error) {
	var err error
	if in.Name != nil {
		err = nameError(p.chat.client.Contacts().SetName(ctx, *in.Name))
	}
	return itemOfContact(p.chat.people.contact(p.chat.self)), nil, err
}

func (p *program) alias(ctx context.Context, in struct {
	Person string  `json:"person"`
	Alias  *string `json:"alias"`
}) (any, func(context.Context) error, error) {
	account, err := p.chat.people.person(ctx, in.Person)
	if err == nil && in.Alias != nil {
		_, err = p.chat.people.setAlias(ctx, account, *in.Alias)
	}
	if err != nil {
		return nil, nil, err
	}
	return itemOfContact(p.chat.people.contact(account)), nil, nil
}

// messagesResult is the answer of history and search.
type messagesResult struct {
	Messages []item `json:"messages"`
}

func (p *program) messages(events []client.Event, err error) (any, func(context.Context) error, error) {
	out := messagesResult{[]item{}}
	for _, e := range events {
		out.Messages = append(out.Messages, p.screen.items(e)...)
	}
	return out, nil, err
}

func (p *program) history(ctx context.Context, in struct {
	Conv   string `json:"conv"`
	Before int64  `json:"before"`
	Limit  int    `json:"limit"`
}) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	return p.messages(p.chat.client.History(ctx, c.ID, in.Before, cmp.Or(in.Limit, historyLines)))
}

func (p *program) search(ctx context.Context, in struct {
	Text   string    `json:"text"`
	Conv   string    `json:"conv"`
	From   string    `json:"from"`
	After  time.Time `json:"after"`
	Before time.Time `json:"before"`
	Limit  int       `json:"limit"`
}) (any, func(context.Context) error, error) {
	q, err := p.chat.query(ctx, client.Query{Text: in.Text, After: in.After, Before: in.Before, Limit: in.Limit}, in.From, in.Conv)
	if err != nil {
		return nil, nil, err
	}
	return p.messages(p.chat.client.Search(ctx, q))
}

func (p *program) read(ctx context.Context, in struct {
	Conv string `json:"conv"`
	Seq  int64  `json:"seq"`
}) (any, func(context.Context) error, error) {
	c, err := p.chat.find(ctx, in.Conv)
	if err == nil {
		err = p.chat.client.MarkRead(ctx, c.ID, in.Seq)
	}
	return convResult{Conv: c.ID}, nil, err
}

func (p *program) state(ctx context.Context, _ none) (any, func(context.Context) error, error) {
	state, _ := p.chat.client.State()
	pending, err := p.chat.client.Pending(ctx)
	return struct {
		DID       string           `json:"did"`
		Device    string           `json:"device"`
		State     string           `json:"state"`
		Transport client.Transport `json:"transport,omitempty"`
		Reason    client.Reason    `json:"reason,omitempty"`
		Problem   string           `json:"problem,omitempty"`
		Pending   int              `json:"pending"`
	}{p.chat.self, p.chat.client.DeviceID(), state.Link.String(), state.Transport, state.Reason(), state.Problem(), pending}, nil, err
}

// events has the events and states of the chat printed from now on.
func (p *program) events(ctx context.Context, _ none) (any, func(context.Context) error, error) {
	if p.showsEvents {
		return nil, nil, nil
	}
	p.showsEvents = true
	p.chat.audience.add(p.screen)
	p.watches.Go(func() { (&lines{chat: p.chat, screen: p.screen}).showStates(ctx) })
	return nil, nil, nil
}

type reqKey struct{} // of the req of a request in its context

// Command executes a command line with an open home and streams.
type Command func(ctx context.Context, args []string, t *Terminal, in io.Reader, out, err io.Writer) int

// run executes a command line of waxwing chat. Its output comes before the answer, as lines of type
// output.
func (p *program) run(ctx context.Context, in struct {
	Args []string `json:"args"`
}) (any, func(context.Context) error, error) {
	if p.chat.command == nil || slices.Index(in.Args, "chat") != 0 {
		return nil, nil, failure{CodeBadRequest, errors.New(`args: want a command line that begins with "chat"`)}
	}
	req, _ := ctx.Value(reqKey{}).(json.RawMessage)
	result := &struct {
		Exit int `json:"exit"`
	}{}
	out, failed := &outputWriter{p.screen, req, "out"}, &outputWriter{p.screen, req, "err"}
	none := strings.NewReader("")
	t := p.chat.guest(none, out, failed)
	await := ordered(t, func() error {
		result.Exit = p.chat.command(ctx, in.Args, t, none, out, failed)
		return nil
	})
	return result, func(context.Context) error { return await() }, nil
}

// outputWriter writes the output of a command as JSON lines.
type outputWriter struct {
	screen *screen
	req    json.RawMessage
	stream string
}

// Write prints the text.
func (w *outputWriter) Write(text []byte) (int, error) {
	line, err := json.Marshal(struct {
		Type   string          `json:"type"`
		Req    json.RawMessage `json:"req,omitempty"`
		Stream string          `json:"stream"`
		Text   string          `json:"text"`
	}{"output", w.req, w.stream, string(text)})
	if err == nil {
		w.screen.raw(line)
	}
	return len(text), err
}
