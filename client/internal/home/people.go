package home

// People holds the records of accounts, by keyed hashes of their names. Values are sealed as
// JSON.
type People struct{ t *Tx }

// Get decodes the record of an account into out.
func (p People) Get(account string, out any) (found bool, err error) {
	name := p.t.home.sealer.name("devices", account)
	var body []byte
	found, err = p.t.get([]any{&body}, `SELECT body FROM devices WHERE name = $1`, name)
	if err != nil || !found {
		return false, err
	}
	return true, p.t.openJSON("devices", string(name), "body", body, out)
}

// Set writes the record of an account.
func (p People) Set(account string, value any) error {
	name := p.t.home.sealer.name("devices", account)
	body, err := p.t.sealJSON("devices", string(name), "body", value)
	if err != nil {
		return err
	}
	return p.t.exec(`INSERT INTO devices (name, body) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET body = excluded.body`, name, body)
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
