package store

import (
	"context"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
)

// TestAdmissionOfEarlierAccounts: who used the service before there was admission is
// admitted by the upgrade, who was only talked of is not.
func TestAdmissionOfEarlierAccounts(t *testing.T) {
	check := func(t *testing.T, name string, open func() (engine, error)) {
		ctx := context.Background()
		e, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		list, err := migrationsOf(name)
		if err != nil {
			t.Fatal(err)
		}
		err = e.update(ctx, 1, func(tx *Tx) error {
			if err := tx.migrate(list[:2]); err != nil {
				return err
			}
			err := tx.Sessions.Insert([]Session{
				{Hash: []byte("1"), ID: "s1", Device: ds.Device{Account: "did:ex:ann", ID: "phone"}, ResumeHash: []byte("r1"), ResumeSealed: []byte("x")},
				{Hash: []byte("2"), ID: "s2", Device: ds.Device{Account: "did:ex:ann", ID: "tablet"}, ResumeHash: []byte("r2"), ResumeSealed: []byte("x")},
			})
			if err != nil {
				return err
			}
			for _, statement := range []string{
				`INSERT INTO cursors (account, device, log_id, next, updated_ms) VALUES ('did:ex:bob', 'phone', 'c/1', 1, 1)`,
				`INSERT INTO intervals (log_id, account, from_pos, role) VALUES ('c/1', 'did:ex:eve', 1, 'member')`,
			} {
				if _, err := tx.exec(statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.migrate(ctx); err != nil {
			t.Fatal(err)
		}
		err = e.view(ctx, 1, func(tx *Tx) error {
			for account, want := range map[ds.AccountID]bool{"did:ex:ann": true, "did:ex:bob": true, "did:ex:eve": false} {
				if got, err := tx.Admission.Has(account); err != nil || got != want {
					t.Errorf("%s: %v, %v", account, got, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		check(t, "sqlite", func() (engine, error) { return openSQLite(context.Background(), dir) })
	})
	t.Run("postgres", func(t *testing.T) {
		url := pgtest.URL(t)
		check(t, "postgres", func() (engine, error) { return openPostgres(context.Background(), url, 2) })
	})
}
