# From QEMU's PVH entry (32 bits, flat, no paging) to Rust in the upper half.
# ebx: physical address of hvm_start_info.

.section .note.pvh, "a", @note
.balign 4
.long 4, 8, 18              # name size, descriptor size (QEMU reads 8 bytes), XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.quad pvh_start

.section .boot, "awx", @progbits
.code32
.global pvh_start
pvh_start:
    cli
    cld
    movl $boot_gdt_pointer, %eax
    lgdt (%eax)
    movl %cr4, %eax
    orl $0x6a0, %eax        # PAE, PGE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx  # EFER
    rdmsr
    orl $0x901, %eax        # LME, NXE, SCE
    wrmsr
    movl $0x80010033, %eax  # PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmpl $0x08, $boot_long

.code64
boot_long:
    xorl %eax, %eax
    movw %ax, %ss
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movabsq $boot_stack_top, %rsp
    movl %ebx, %edi
    xorl %ebp, %ebp
    pushq %rbp
    movabsq $kernel_start, %rax
    jmpq *%rax

.balign 16
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code
    .quad 0x00cf93000000ffff    # data
boot_gdt_pointer:
    .word 23
    .quad boot_gdt

# The first GiB, three times: where it is, in the direct map, and below the top for the image.
.balign 4096
.global boot_pml4
boot_pml4:
    .quad boot_pdpt + 3
    .fill 272, 8, 0
    .quad boot_pdpt + 3         # 0xffff888000000000
    .fill 237, 8, 0
    .quad boot_pdpt_image + 3
boot_pdpt:
    .quad boot_pd + 3
    .fill 511, 8, 0
boot_pdpt_image:
    .fill 510, 8, 0
    .quad boot_pd + 3           # 0xffffffff80000000
    .quad 0
boot_pd:
    .set page, 0
    .rept 512
    .quad page + 0x83
    .set page, page + 0x200000
    .endr

.section .bss.stack, "aw", @nobits
.balign 4096
.global boot_stack_hole             # not mapped once the kernel has tables of its own
boot_stack_hole:
    .skip 4096
    .skip 524288
boot_stack_top:
.section .text
