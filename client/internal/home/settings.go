package home

// Settings holds sealed values by name.
type Settings struct{ t *Tx }

// Get decodes the value called name into out, from JSON.
func (s Settings) Get(name string, out any) (found bool, err error) {
	return s.t.getJSON("settings", name, "body", out, `SELECT body FROM settings WHERE name = $1`, name)
}

// Set writes the value called name.
func (s Settings) Set(name string, value any) error {
	return s.t.exec(`INSERT INTO settings (name, body) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET body = excluded.body`, name, s.t.sealJSON("settings", name, "body", value))
}

// Counters holds numbers by name, which are not sealed.
type Counters struct{ t *Tx }

// Get returns the number called name; 0 if it was never set.
func (c Counters) Get(name string) (value int64, err error) {
	_, err = c.t.get([]any{&value}, `SELECT value FROM counters WHERE name = $1`, name)
	return value, err
}

// Set writes the number called name.
func (c Counters) Set(name string, value int64) error {
	return c.t.exec(`INSERT INTO counters (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
}

// Next returns a number never returned before under that name: 1, 2, 3 …
func (c Counters) Next(name string) (value int64, err error) {
	_, err = c.t.get([]any{&value}, `INSERT INTO counters (name, value) VALUES ($1, 1)
		ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value`, name)
	return value, err
}

// People holds the records of accounts, by keyed hashes of their names. Values are sealed as
// JSON.
type People struct{ t *Tx }

// Get decodes the record of an account into out.
func (p People) Get(account string, out any) (found bool, err error) {
	name := p.t.home.sealer.name("devices", account)
	return p.t.getJSON("devices", string(name), "body", out, `SELECT body FROM devices WHERE name = $1`, name)
}

// Set writes the record of an account.
func (p People) Set(account string, value any) error {
	name := p.t.home.sealer.name("devices", account)
	return p.t.exec(`INSERT INTO devices (name, body) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET body = excluded.body`, name, p.t.sealJSON("devices", string(name), "body", value))
}

// Each calls fn for every account, with a function that decodes its value into out. fn may not
// use the transaction.
func (p People) Each(fn func(read func(out any) error) error) error {
	var name, body []byte
	return p.t.each([]any{&name, &body}, func() error {
		err := fn(func(out any) error { return p.t.openJSON("devices", string(name), "body", body, out) })
		name, body = nil, nil
		return err
	}, `SELECT name, body FROM devices`)
}
