package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/peercred"
	"waxwing.im/waxwing/internal/store"
)

// AdminSocket is the name, in the data directory, of the socket on which a running server accepts
// the operator's requests. Any user that may open the socket, which is the server's own user, may
// send requests; the user at the other end is the operator that acts.
const AdminSocket = "admin.sock"

const (
	adminBytesMax     = 64 << 10
	adminSocketMode   = 0o600
	socketPathMax     = 100 // short enough for all systems; Linux takes 107 bytes
	adminReadTimeout  = 5 * time.Second
	adminWriteTimeout = time.Minute
)

// The operations of an AdminRequest.
const (
	AdminInviteCreate = "invite.create" // Uses, Life, Note; answers identity.Invite
	AdminInviteList   = "invite.list"   // answers []identity.Invite
	AdminInviteRevoke = "invite.revoke" // Name: an id or a code
	AdminAllowAdd     = "allow.add"     // Name: a DID
	AdminAllowList    = "allow.list"    // answers []identity.AllowedAccount
	AdminAllowRemove  = "allow.remove"  // Name: a DID

	AdminAccountsList  = "accounts.list"  // Name: a prefix of DIDs, After, Limit; answers []Account
	AdminAccountsShow  = "accounts.show"  // Name: a DID; answers identity.AccountDetails
	AdminAccountsExpel = "accounts.expel" // Name: a DID; answers Expulsion

	AdminStats = "stats" // answers Stats
)

// AdminRequest is a request of the operator.
type AdminRequest struct {
	Operation string        `json:"operation"`
	Name      string        `json:"name,omitempty"`
	Note      string        `json:"note,omitempty"`
	Uses      int64         `json:"uses,omitempty"`
	Life      time.Duration `json:"life,omitempty"`  // 0: unlimited
	After     string        `json:"after,omitempty"` // the last account of the page before
	Limit     int           `json:"limit,omitempty"` // accounts of a page; 0: identity.AccountsMax
}

// Stats is the answer to AdminStats.
type Stats = store.Stats

// AdminAnswer is a result or an error.
type AdminAnswer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Administer carries out a request on the database itself, if no server runs or several share
// it: an embedded database that a server uses is refused. The operator is the user of this process.
func Administer(ctx context.Context, c Config, request AdminRequest) (AdminAnswer, error) {
	if c.Database == "" {
		if info, err := os.Stat(c.Data); err != nil || !info.IsDir() {
			return AdminAnswer{}, fmt.Errorf("%s is not the data directory of a server", c.Data)
		}
		_, noKey := os.Stat(c.serviceKeyFile())
		if noKey == nil && !store.IsSQLite(c.Data) {
			return AdminAnswer{}, fmt.Errorf("no server runs in %s, and it has no database: name that of the server by --database", c.Data)
		}
	}
	db, err := store.Open(ctx, store.Options{URL: c.storeURL(), Local: c.Now})
	if err != nil {
		return AdminAnswer{}, c.openError(err)
	}
	a := administrator{store: db, admissions: identity.Admissions{Store: db, Now: db.Now, By: localUser(int64(os.Getuid()))},
		remove: func(ctx context.Context, account string) error { return removeAlone(ctx, db, account) }}
	answer, err := a.do(ctx, request)
	return answer, errors.Join(err, db.Close())
}

// localUser names an operator by the user on this machine; a negative uid means that the system
// does not tell.
func localUser(uid int64) string {
	if uid < 0 {
		return "local"
	}
	return fmt.Sprintf("local:%d", uid)
}

// administrator carries out requests of one operator.
type administrator struct {
	store      *store.DB
	admissions identity.Admissions
	remove     func(ctx context.Context, account string) error // an expelled account, from all conversations
}

// do carries out a request. A refusal is an answer; an error is a fault.
func (a administrator) do(ctx context.Context, request AdminRequest) (AdminAnswer, error) {
	admissions := a.admissions
	var result any
	var err error
	switch request.Operation {
	case AdminInviteCreate:
		result, err = admissions.CreateInvite(ctx, request.Uses, request.Life, request.Note)
	case AdminInviteList:
		result, err = admissions.Invites(ctx)
	case AdminInviteRevoke:
		err = admissions.RevokeInvite(ctx, request.Name)
	case AdminAllowAdd:
		err = admissions.Allow(ctx, request.Name)
	case AdminAllowList:
		result, err = admissions.Allowed(ctx)
	case AdminAllowRemove:
		err = admissions.Disallow(ctx, request.Name)
	case AdminAccountsList:
		result, err = admissions.Accounts(ctx, request.Name, request.After, request.Limit)
	case AdminAccountsShow:
		result, err = admissions.Account(ctx, request.Name)
	case AdminAccountsExpel:
		result, err = a.expel(ctx, request.Name)
	case AdminStats:
		result, err = a.store.Stats(ctx)
	default:
		return AdminAnswer{Error: "unknown operation"}, nil
	}
	if message, ok := identity.RefusalMessage(err); ok {
		return AdminAnswer{Error: message}, nil
	}
	if err != nil {
		return AdminAnswer{}, err
	}
	text, err := json.Marshal(result)
	return AdminAnswer{Result: text}, err
}

// serveAdmin listens on the socket in the data directory. One that a killed server left there is
// replaced. On PostgreSQL another server may use the directory, and keeps its socket.
func (s *Server) serveAdmin() error {
	if s.config.Database != "" {
		if err := os.MkdirAll(s.config.Data, 0o700); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		if other, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(s.config.Data, AdminSocket), Net: "unix"}); err == nil {
			other.Close()
			s.logger.Warn("no admin socket: another server has that of the data directory; waxwing admin, invite and allow ask that one")
			return nil
		}
	}
	listener, err := listenPrivately(s.config.Data)
	if errors.Is(err, errPathTooLong) {
		s.logger.Warn("no admin socket: the path of the data directory is too long; waxwing admin, invite and allow work only with --database or while the server is stopped")
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", s.admin)
	if s.adminSocket, err = os.Stat(filepath.Join(s.config.Data, AdminSocket)); err != nil {
		return errors.Join(fmt.Errorf("admin socket: %w", err), listener.Close())
	}
	s.adminServer = s.httpServer(mux)
	s.adminServer.ConnContext = func(ctx context.Context, network net.Conn) context.Context {
		return context.WithValue(ctx, adminPeer{}, network)
	}
	s.adminServer.ReadTimeout, s.adminServer.WriteTimeout = adminReadTimeout, adminWriteTimeout
	s.serve(s.adminServer, listener)
	return nil
}

// adminPeer is the key of the connection in the context of a request to the admin socket, the one
// way by which net/http hands it on.
type adminPeer struct{}

var errPathTooLong = errors.New("path is too long for a socket")

// listenPrivately makes the admin socket of a data directory. It is made in a private folder
// and moved to its place when its mode excludes other users.
func listenPrivately(data string) (net.Listener, error) {
	private, err := os.MkdirTemp(data, ".admin-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	draft := filepath.Join(private, "s")
	if len(draft) > socketPathMax {
		return nil, errPathTooLong
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: draft, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // its name will be another one
	err = os.Chmod(draft, adminSocketMode)
	if err == nil {
		err = os.Rename(draft, filepath.Join(data, AdminSocket))
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// closeAdmin ends the admin listener and removes its socket, unless another server has replaced it.
func (s *Server) closeAdmin() {
	if s.adminServer == nil {
		return
	}
	s.adminServer.Close()
	name := filepath.Join(s.config.Data, AdminSocket)
	if now, err := os.Stat(name); err == nil && !os.SameFile(now, s.adminSocket) {
		return
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("admin socket", "err", err)
	}
}

// Administer carries out a request of the operator named by.
func (s *Server) Administer(ctx context.Context, by string, request AdminRequest) (AdminAnswer, error) {
	admissions := identity.Admissions{Store: s.store, Now: s.store.Now, Running: s.identity, By: by}
	return administrator{store: s.store, admissions: admissions, remove: s.core.FinishExpulsion}.do(ctx, request)
}

// admin answers an AdminRequest with an AdminAnswer.
func (s *Server) admin(w http.ResponseWriter, r *http.Request) {
	var request AdminRequest
	var answer AdminAnswer
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, adminBytesMax)).Decode(&request); err != nil {
		answer.Error = "malformed request"
	} else if uid, err := peercred.UID(r.Context().Value(adminPeer{}).(*net.UnixConn)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		answer.Error = "the system does not tell which user asks"
	} else {
		by := localUser(-1)
		if err == nil {
			by = localUser(int64(uid))
		}
		if answer, err = s.Administer(r.Context(), by, request); err != nil {
			s.logger.Error("admin", "operation", request.Operation, "by", by, "err", err)
			answer.Error = "internal error; see the server's log"
		} else if answer.Error == "" {
			s.logger.Info("admin", "operation", request.Operation, "by", by)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // if this fails, the client has disconnected
}
