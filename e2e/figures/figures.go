// Package figures notes how much a test did: calls killed, faults injected, ADDs stormed. docs/reliability.md is written from it.
package figures

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Folder is the environment variable that names the folder in which figures are noted. Without it nothing is noted.
const Folder = "BRAID_FIGURES"

// A Figure is one count of a test that passed.
type Figure struct {
	Tier  string `json:"tier"`  // the make target without "make", such as "test-crash"
	What  string `json:"what"`  // what was counted, such as "system calls at which an ADD was killed"
	Count int    `json:"count"` // how many there were
}

// Note notes a count when the test has ended and has not failed. The last one of the same tier and what holds.
func Note(t testing.TB, tier, what string, count int) {
	t.Helper()
	folder := os.Getenv(Folder)
	if folder == "" {
		return
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		text, err := json.Marshal(Figure{Tier: tier, What: what, Count: count})
		if err == nil {
			err = os.MkdirAll(folder, 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, tier+" "+filepath.Base(what)+".json"), text, 0o644)
		}
		if err != nil {
			t.Errorf("note how much was done: %v", err)
		}
	})
}
