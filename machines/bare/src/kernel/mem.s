# What compilers call for copies and fills. In assembly, so that no compiler turns a loop in them
# into a call of themselves. Iterations of string instructions are counted in rep_iterations, which
# the benchmarks subtract: a page is zeroed by one instruction, or by 512, as one sees it.

.section .text
.global memcpy
memcpy:
    movq %rdi, %rax
    movq %rdx, %rcx
    cmpq $64, %rdx
    jae 1f
    addq %rcx, rep_iterations(%rip)
    rep movsb
    ret
1:  shrq $3, %rcx
    addq %rcx, rep_iterations(%rip)
    rep movsq
    movl %edx, %ecx
    andl $7, %ecx
    jz 2f
    addq %rcx, rep_iterations(%rip)
    rep movsb
2:  ret

.global memmove
memmove:
    movq %rdi, %rax
    subq %rsi, %rax
    cmpq %rdx, %rax         # below the source, or not overlapping: forwards
    jae memcpy
    movq %rdi, %rax
    movq %rdx, %rcx
    addq %rcx, rep_iterations(%rip)
    leaq -1(%rdi,%rdx), %rdi
    leaq -1(%rsi,%rdx), %rsi
    std
    rep movsb
    cld
    ret

.global memset
memset:
    movq %rdi, %r8
    movzbl %sil, %eax
    movq %rdx, %rcx
    cmpq $64, %rdx
    jae 1f
    addq %rcx, rep_iterations(%rip)
    rep stosb
    movq %r8, %rax
    ret
1:  movabsq $0x0101010101010101, %r9
    imulq %r9, %rax
    shrq $3, %rcx
    addq %rcx, rep_iterations(%rip)
    rep stosq
    movl %edx, %ecx
    andl $7, %ecx
    jz 2f
    addq %rcx, rep_iterations(%rip)
    rep stosb
2:  movq %r8, %rax
    ret

.global memcmp
.global bcmp
memcmp:
bcmp:
    xorl %eax, %eax
    xorl %ecx, %ecx
1:  cmpq %rdx, %rcx
    je 2f
    movzbl (%rdi,%rcx), %eax
    movzbl (%rsi,%rcx), %r8d
    incq %rcx
    subl %r8d, %eax
    je 1b
2:  ret

.global strlen
strlen:
    xorl %eax, %eax
1:  cmpb $0, (%rdi,%rax)
    je 2f
    incq %rax
    jmp 1b
2:  ret

.section .bss
.balign 64
.global rep_iterations
rep_iterations:
    .quad 0
.section .text
