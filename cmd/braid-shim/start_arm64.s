//go:build go1.26 && !go1.27 && !race && !msan && !asan

#include "textflag.h"

// As in start_amd64.s. Here the goroutine is in a register alone.
TEXT _rt0_arm64_linux(SB), NOSPLIT|NOFRAME|DUPOK, $0
	MOVD $nobody<>(SB), g
	MOVD RSP, R0
	SUB $32, RSP
	MOVD R0, 24(RSP)
	MOVD R0, 8(RSP) // argc, argv and the environment
	CALL ·early(SB)
	ADD $32, RSP
	JMP _rt0_arm64(SB)

GLOBL nobody<>(SB), NOPTR, $1024
