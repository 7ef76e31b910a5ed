package home

import "strconv"

// Welcomes holds Welcomes that cannot be used yet, at most one for each conversation.
type Welcomes struct{ t *Tx }

// Keep stores a Welcome, in place of an earlier one of its conversation. pos is its own. value
// is sealed as JSON.
func (w Welcomes) Keep(pos int64, conversation string, value any) error {
	body, err := w.t.sealJSON("welcomes", strconv.FormatInt(pos, 10), "body", value)
	if err != nil {
		return err
	}
	if err := w.t.exec(`DELETE FROM welcomes WHERE conversation = $1`, conversation); err != nil {
		return err
	}
	return w.t.exec(`INSERT INTO welcomes (pos, conversation, body) VALUES ($1, $2, $3)`, pos, conversation, body)
}

// Take decodes the Welcome of a conversation into out and erases it.
func (w Welcomes) Take(conversation string, out any) (found bool, err error) {
	var pos int64
	var body []byte
	found, err = w.t.get([]any{&pos, &body}, `SELECT pos, body FROM welcomes WHERE conversation = $1`, conversation)
	if err != nil || !found {
		return false, err
	}
	if err := w.t.openJSON("welcomes", strconv.FormatInt(pos, 10), "body", body, out); err != nil {
		return false, err
	}
	return true, w.t.exec(`DELETE FROM welcomes WHERE pos = $1`, pos)
}
