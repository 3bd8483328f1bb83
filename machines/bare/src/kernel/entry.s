# Ways into the kernel and out of it. A frame is, from low addresses: 512 bytes of fxsave area, 15
# registers, the number of the call or vector, the error code, and what iretq takes. TrapFrame in
# trap.rs is the same. Interrupts are off from here until the way out.

# What a called function may change is always saved. What it keeps is still in the registers when the
# handler comes back, and is only stored if somebody is to see or change all of the program's state.
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
    subq $560, %rsp
    fxsave64 (%rsp)
.endm

.macro save_rest
    movq %rbx, 552(%rsp)
    movq %rbp, 544(%rsp)
    movq %r12, 536(%rsp)
    movq %r13, 528(%rsp)
    movq %r14, 520(%rsp)
    movq %r15, 512(%rsp)
.endm

.macro restore
    fxrstor64 (%rsp)
    addq $560, %rsp
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

.macro restore_rest
    movq 552(%rsp), %rbx
    movq 544(%rsp), %rbp
    movq 536(%rsp), %r12
    movq 528(%rsp), %r13
    movq 520(%rsp), %r14
    movq 512(%rsp), %r15
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
    movq %rsp, %rdi
    call syscall_handler
    testl %eax, %eax
    jnz 1f
    # rcx and r11 are still what the processor put there: rip and rflags.
    restore
    movq 40(%rsp), %rsp
    swapgs
    sysretq
1:  save_rest
    movq %rsp, %rdi
    movl %eax, %esi
    call syscall_slow
    jmp trap_return

.balign 64
trap_common:
    testb $3, 24(%rsp)
    jz trap_kernel
    swapgs
    save
    cld
    movq %rsp, %rdi
    call trap_handler
    testl %eax, %eax
    jz 1f
    save_rest
    movq %rsp, %rdi
    movl %eax, %esi
    call trap_slow
.global trap_return
trap_return:
    restore_rest
1:  restore
    addq $16, %rsp
    swapgs
    iretq

# In kernel mode only the idle loop is interrupted; everything else is a bug, and reported.
trap_kernel:
    save
    save_rest
    cld
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
