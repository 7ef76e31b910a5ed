package home

// Settings holds sealed values by name.
type Settings struct{ t *Tx }

// Get decodes the value called name into out, from JSON.
func (s Settings) Get(name string, out any) (found bool, err error) {
	var body []byte
	found, err = s.t.get([]any{&body}, `SELECT body FROM settings WHERE name = $1`, name)
	if err != nil || !found {
		return false, err
	}
	return true, s.t.openJSON("settings", name, "body", body, out)
}

// Set writes the value called name.
func (s Settings) Set(name string, value any) error {
	body, err := s.t.sealJSON("settings", name, "body", value)
	if err != nil {
		return err
	}
	return s.t.exec(`INSERT INTO settings (name, body) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET body = excluded.body`, name, body)
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
