# Ways into the kernel and out of it. A frame is, from low addresses: 512 bytes of fxsave area, 15
# registers, the number of the call or vector, the error code, and what iretq takes. TrapFrame in
# trap.rs is the same. Interrupts are off from here until the way out.

.macro save
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rax
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $512, %rsp
    fxsave64 (%rsp)
    cld
.endm

.macro restore
    fxrstor64 (%rsp)
    addq $512, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rax
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
.endm

.section .text
.balign 64
.global syscall_entry
syscall_entry:
    swapgs
    movq %rsp, %gs:16
    movq %gs:8, %rsp
    pushq $0x2b
    pushq %gs:16
    pushq %r11
    pushq $0x33
    pushq %rcx
    pushq $0
    pushq %rax
    save
    ldmxcsr kernel_mxcsr(%rip)
    movq %rsp, %rdi
    call syscall_handler
    testl %eax, %eax
    jnz trap_return
    # rcx and r11 are still what the processor put there: rip and rflags.
    restore
    movq 40(%rsp), %rsp
    swapgs
    sysretq

.balign 64
trap_common:
    testb $3, 24(%rsp)
    jz trap_kernel
    swapgs
    save
    ldmxcsr kernel_mxcsr(%rip)
    movq %rsp, %rdi
    call trap_handler
.global trap_return
trap_return:
    restore
    addq $16, %rsp
    swapgs
.global last_iretq
last_iretq:
    iretq

# In kernel mode only the idle loop is interrupted; everything else is a bug, and reported.
trap_kernel:
    save
    movq %rsp, %rdi
    call kernel_trap
    restore
    addq $16, %rsp
    iretq

# The first steps of a task: its frame is at the stack pointer.
.global task_start
task_start:
    call finish_switch
    movq %rsp, %rdi
    call return_to_user
    jmp trap_return

# switch_stacks(where to keep this stack pointer, the other one)
.global switch_stacks
switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret

# 256 entries of 16 bytes. These vectors come with an error code: 8, 10-14, 17, 21, 29, 30.
.balign 16
.global vectors
vectors:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

.section .rodata
.balign 4
kernel_mxcsr:
    .long 0x1f80
.section .text
