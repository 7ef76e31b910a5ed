package home

import "database/sql"

// openDatabase returns ErrNoDatabase: SQLite does not run in a browser. A home for browsers
// goes here.
func openDatabase(string) (*sql.DB, error) { return nil, ErrNoDatabase }

func isBusy(error) bool { return false }
