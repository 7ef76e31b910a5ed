package doors

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// bodyTimeout bounds how long a whole body may be waited for.
const bodyTimeout = 2 * time.Minute

// Count makes the request's body count as it is read, and cuts one that arrives too slowly.
// The caller calls release once the request is answered.
func (in *Intake) Count(w http.ResponseWriter, r *http.Request, address string) (release func()) {
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}
	}
	body := &countedBody{ReadCloser: r.Body, message: in.Begin(Owner{Address: address}), control: http.NewResponseController(w)}
	r.Body = body
	return body.message.Release
}

// Own charges an account for the body of a request, which has not been read yet.
func Own(r *http.Request, account ds.AccountID) {
	if body, ok := r.Body.(*countedBody); ok {
		body.message.owner.Account = account
	}
}

// countedBody is a request's body that counts against the intake.
type countedBody struct {
	io.ReadCloser
	message Message
	control *http.ResponseController
	pace    Pace
	waited  time.Duration // for all of it
}

func (b *countedBody) Read(p []byte) (int, error) {
	began := time.Now()
	left := min(b.message.intake.Left(&b.pace), bodyTimeout-b.waited)
	_ = b.control.SetReadDeadline(began.Add(left)) // fails without a connection, in tests
	n, err := b.ReadCloser.Read(p)
	waited := time.Since(began)
	b.waited += waited
	b.message.intake.Took(&b.pace, n, waited)
	if refused := b.message.Arrived(n); refused != nil {
		return 0, refused
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrSlow // the deadline stays, so that the rest is not waited for either
	case err != nil:
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
