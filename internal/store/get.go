package store

import "context"

// Get returns the result of fn, which it calls within run: a DB's Read, View or Update.
func Get[T any](ctx context.Context, run func(context.Context, func(*Tx) error) error, fn func(*Tx) (T, error)) (result T, err error) {
	err = run(ctx, func(tx *Tx) (err error) {
		result, err = fn(tx)
		return err
	})
	return result, err
}
