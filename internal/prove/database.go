package prove

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing.im/waxwing/internal/pgserver"
)

// databaseTimeout bounds each statement that makes, drops or looks at a database.
const databaseTimeout = 20 * time.Second

// Database is what the servers of a row keep their data in.
type Database struct {
	Kind    string // SQLite or PostgreSQL
	Version string
	// Server is the PostgreSQL that rows may kill and restart; nil for SQLite and for one that
	// others run.
	Server *pgserver.Server

	admin string // URL of a database in which others can be created
}

// The kinds of databases.
const (
	SQLite     = "sqlite"
	PostgreSQL = "postgres"
)

// String returns kind and version.
func (d Database) String() string { return strings.TrimSpace(d.Kind + " " + d.Version) }

// OpenDatabase makes databases of a kind available to rows: sqlite, postgres for a private server
// that is started for the purpose, or a postgres:// URL of a role that may create databases; the
// database that the URL names is not touched. close ends what was started. The error is
// ErrMissing where there is no such database.
func OpenDatabase(ctx context.Context, name string) (d Database, end func() error, err error) {
	end = func() error { return nil }
	switch {
	case name == SQLite:
		return Database{Kind: SQLite}, end, nil
	case name == PostgreSQL:
		// As in production: what is committed is on the disk.
		server, err := pgserver.New(pgserver.Options{Fsync: true})
		if err != nil {
			return d, end, fmt.Errorf("%w: a private PostgreSQL cannot be started: %w", ErrMissing, err)
		}
		d, end = Database{Kind: PostgreSQL, Server: server, admin: server.URL()}, server.Close
	case strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://"):
		d = Database{Kind: PostgreSQL, admin: name}
	default:
		return d, end, fmt.Errorf("%q is no database: want sqlite, postgres or a postgres:// URL", name)
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	if d.Version, err = pgserver.Probe(ctx, d.admin); err != nil {
		return d, end, errors.Join(fmt.Errorf("%w: %w", ErrMissing, err), end())
	}
	return d, end, nil
}

// NewDatabase makes an empty database for servers of the run and returns the options of serve
// that name it, with a fresh directory. Several servers can share those of PostgreSQL.
func (r *Run) NewDatabase(ctx context.Context) (options []string, err error) {
	folder, err := r.Folder()
	if err != nil {
		return nil, err
	}
	options = []string{"--data", folder}
	if r.Database.Kind == SQLite {
		return options, nil
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	url, err := pgserver.CreateDatabase(ctx, r.Database.admin, "waxwing_prove_")
	if err != nil {
		return nil, err
	}
	r.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), databaseTimeout)
		defer cancel()
		_ = pgserver.DropDatabase(ctx, r.Database.admin, url) // a private server ends anyway
	})
	return append(options, "--database", url), nil
}
