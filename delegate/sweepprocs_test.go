package delegate

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// A thread that ends while it is looked at has ended, whatever the kernel says at that moment.
func TestThreadThatEnds(t *testing.T) {
	for range 1000 {
		cmd := exec.Command("true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		thread := fmt.Sprintf("/proc/%d/task/%[1]d", cmd.Process.Pid)
		found := make(chan error)
		go func() {
			for {
				_, err := networkOf(thread)
				if _, there := os.Lstat(thread); unlessEnded(err) != nil || there != nil {
					found <- err
					return
				}
			}
		}()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if err := <-found; unlessEnded(err) != nil {
			t.Fatalf("found %v, want that it has ended", err)
		}
	}
}
