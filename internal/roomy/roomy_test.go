package roomy

import "testing"

//go:noinline
func deep(n int) byte {
	var frame [1 << 10]byte
	if n == 0 {
		return frame[n]
	}
	return deep(n-1) + frame[n]
}

// A goroutine whose calls need ten kilobytes.
func BenchmarkGoroutine(b *testing.B) {
	for name, begin := range map[string]func(){"as it is": func() {}, "roomy": Stack, "large": Large} {
		b.Run(name, func(b *testing.B) {
			done := make(chan byte)
			for b.Loop() {
				go func() {
					begin()
					done <- deep(8)
				}()
				<-done
			}
		})
	}
}
