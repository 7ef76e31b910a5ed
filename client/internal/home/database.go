//go:build !js

package home

import (
	"database/sql"
	"errors"
	"net/url"

	"modernc.org/sqlite" // also the driver "sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// openDatabase opens the SQLite file at path, for one connection.
func openDatabase(path string) (*sql.DB, error) {
	query := url.Values{}
	for _, pragma := range []string{"busy_timeout(200)", "locking_mode(EXCLUSIVE)", "journal_mode(WAL)",
		// An encrypted message must not be sent again with the same ratchet after a
		// power cut, so a transaction is on disk before its bytes leave.
		"synchronous(FULL)", "secure_delete(ON)", "temp_store(MEMORY)"} {
		query.Add("_pragma", pragma)
	}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	return sql.Open("sqlite", dsn.String())
}

// isBusy reports whether err means that another process has locked the file.
func isBusy(err error) bool {
	var locked *sqlite.Error
	return errors.As(err, &locked) && locked.Code()&0xff == sqlitelib.SQLITE_BUSY
}
