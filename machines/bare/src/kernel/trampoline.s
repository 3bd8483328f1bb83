# Where another CPU begins: real mode, at the page that the startup IPI names. The code is copied
# there; what it needs is written into its last words. It goes straight to long mode.

.section .rodata
.code16
.balign 16
.global trampoline_start
trampoline_start:
    cli
    cld
    xorl %eax, %eax
    movw %cs, %ax
    movw %ax, %ds
    shll $4, %eax
    movl %eax, %ebp                                     # where this code is
    leal (trampoline_gdt - trampoline_start)(%eax), %ebx
    movl %ebx, trampoline_gdt_pointer - trampoline_start + 2
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl %cr4, %eax
    orl $0x6a0, %eax
    movl %eax, %cr4
    movl trampoline_root - trampoline_start, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    leal (trampoline_long - trampoline_start)(%ebp), %eax
    movl %eax, trampoline_far - trampoline_start
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmpl *trampoline_far - trampoline_start

.code64
trampoline_long:
    xorl %eax, %eax
    movw %ax, %ss
    movw %ax, %ds
    movw %ax, %es
    movq (trampoline_stack - trampoline_start)(%rbp), %rdx
    movq (trampoline_kernel - trampoline_start)(%rbp), %rsi
    movq (trampoline_number - trampoline_start)(%rbp), %rdi
    movabsq $other_entry, %rax
    jmpq *%rax

.balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
trampoline_gdt_pointer:
    .word 15
    .long 0
    .word 0
trampoline_far:
    .long 0
    .word 0x08
    .word 0
.balign 8
.global trampoline_root
trampoline_root:
    .quad 0
.global trampoline_stack
trampoline_stack:
    .quad 0
.global trampoline_kernel
trampoline_kernel:
    .quad 0
.global trampoline_number
trampoline_number:
    .quad 0
.global trampoline_end
trampoline_end:
.section .text

# In the image, which both tables map: the kernel's own tables, then its stack.
other_entry:
    movq %rsi, %cr3
    movq %rdx, %rsp
    xorl %ebp, %ebp
    pushq %rbp
    jmp other_start
