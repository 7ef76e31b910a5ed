package pgserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// CreateDatabase makes a fresh, empty database on the server of admin, the URL of another
// database with a role that may create some, and returns its URL. Its name begins with prefix.
func CreateDatabase(ctx context.Context, admin, prefix string) (string, error) {
	u, err := url.Parse(admin)
	if err != nil {
		return "", errors.New("the database's address is not a URL") // err would repeat it, with its password
	}
	suffix := make([]byte, 8)
	rand.Read(suffix)
	name := prefix + hex.EncodeToString(suffix)
	if err := execute(ctx, admin, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"); err != nil {
		return "", fmt.Errorf("create a database: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

// DropDatabase drops what CreateDatabase made, and the connections to it.
func DropDatabase(ctx context.Context, admin, created string) error {
	u, err := url.Parse(created)
	if err != nil {
		return errors.New("the database's address is not a URL")
	}
	name := strings.TrimPrefix(u.Path, "/")
	if err := execute(ctx, admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// execute runs one statement on its own connection.
func execute(ctx context.Context, databaseURL, statement string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// Probe returns the version of the server of admin. Its errors do not repeat the URL, which may
// have a password.
func Probe(ctx context.Context, admin string) (version string, err error) {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		for inner := err; inner != nil; inner = errors.Unwrap(inner) {
			err = inner // those around it repeat the URL
		}
		// The attempts with TLS and without it fail alike.
		lines := slices.Compact(strings.Split(err.Error(), "\n"))
		return "", fmt.Errorf("PostgreSQL does not answer at that URL: %s", strings.Join(lines, "; "))
	}
	defer conn.Close(ctx)
	var may bool
	err = conn.QueryRow(ctx, "SELECT current_setting('server_version'), rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&version, &may)
	switch {
	case err != nil:
		return "", fmt.Errorf("PostgreSQL does not answer: %w", err)
	case !may:
		return "", errors.New("the role of that URL may not create databases (ALTER ROLE … CREATEDB)")
	}
	return version, nil
}
