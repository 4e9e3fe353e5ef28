//go:build go1.26 && !go1.27 && !race && !msan && !asan

#include "textflag.h"

// The kernel begins here: the linker takes this for the entry, in the place of that of package runtime, which has the same name, since
// the one of package main comes first and says that it may be there twice. Were it otherwise one day, braid-shim would do without
// early.
//
// What Go that runs without its runtime may do, nobody promises: so each release is let in by itself, above, when it has been seen to
// work: let it in, and have the tests pass on both architectures, TestWithoutRuntime above all, which reads what the compiler has made of
// early. With any other, and in builds that watch memory, main does it all.
//
// Code of Go finds its goroutine in a register, and in the thread's own memory, where it looks for nothing but where the stack ends.
// That of nobody is zeros: the stack, which is the kernel's, has no end.
TEXT _rt0_amd64_linux(SB), NOSPLIT|NOFRAME|DUPOK, $0
	MOVQ SP, BX
	MOVQ $158, AX // arch_prctl
	MOVQ $0x1002, DI // ARCH_SET_FS
	LEAQ thread<>+8(SB), SI
	SYSCALL
	LEAQ nobody<>(SB), AX
	MOVQ AX, thread<>(SB)
	ANDQ $~15, SP
	SUBQ $16, SP
	MOVQ BX, 8(SP)
	MOVQ BX, 0(SP) // argc, argv and the environment
	CALL ·early(SB)
	MOVQ 8(SP), SP
	JMP _rt0_amd64(SB)

GLOBL nobody<>(SB), NOPTR, $1024
GLOBL thread<>(SB), NOPTR, $16
