//! What did the faulting instruction do? ptrace does not say, so it is decoded.

use crate::task::Regs;
use iced_x86::{Code, Decoder as X86, DecoderOptions, InstructionInfoFactory, OpAccess, Register};
use vellum_types::{Access, PAGE_SHIFT};

/// Decodes instructions. The answer is a hint: it may be wrong about instructions that touch
/// memory in ways that are not written in their operands.
pub(crate) struct Decoder {
    factory: InstructionInfoFactory,
}

impl Decoder {
    /// A decoder.
    pub(crate) fn new() -> Self {
        Self {
            factory: InstructionInfoFactory::new(),
        }
    }

    /// What the instruction `code` at `regs.rip` does at `addr`, if it can be told.
    pub(crate) fn access(&mut self, code: &[u8], regs: &Regs, addr: u64) -> Option<Access> {
        let mut decoder = X86::with_ip(64, code, regs.rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.code() == Code::INVALID {
            return None;
        }
        let page = addr >> PAGE_SHIFT;
        let mut reads = false;
        let mut writes = false;
        let info = self.factory.info(&instruction);
        let used = info.used_memory();
        for memory in used {
            let write = matches!(
                memory.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            );
            let at = memory.virtual_address(0, |register, _, _| Some(value(regs, register)));
            // Wide operands may lie across a page boundary. Repeated string instructions are
            // restarted at the element that faulted, so their registers are right.
            let size = memory.memory_size().size().max(1) as u64;
            let hit = used.len() == 1
                || at.is_none_or(|at| {
                    at >> PAGE_SHIFT <= page && page <= at.wrapping_add(size - 1) >> PAGE_SHIFT
                });
            if hit {
                writes |= write;
                reads |= !write;
            }
        }
        match (reads, writes) {
            (_, true) => Some(Access::Write),
            (true, false) => Some(Access::Read),
            (false, false) => None,
        }
    }
}

fn value(regs: &Regs, register: Register) -> u64 {
    let full = register.full_register();
    let value = match full {
        Register::RAX => regs.rax,
        Register::RBX => regs.rbx,
        Register::RCX => regs.rcx,
        Register::RDX => regs.rdx,
        Register::RSI => regs.rsi,
        Register::RDI => regs.rdi,
        Register::RSP => regs.rsp,
        Register::RBP => regs.rbp,
        Register::R8 => regs.r8,
        Register::R9 => regs.r9,
        Register::R10 => regs.r10,
        Register::R11 => regs.r11,
        Register::R12 => regs.r12,
        Register::R13 => regs.r13,
        Register::R14 => regs.r14,
        Register::R15 => regs.r15,
        Register::FS => regs.fs_base,
        Register::GS => regs.gs_base,
        _ => 0,
    };
    if register.is_gpr32() {
        value & 0xffff_ffff
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ptrace::zero_regs;

    fn access(code: &[u8], addr: u64) -> Option<Access> {
        let mut regs = zero_regs();
        regs.rip = 0x1000;
        regs.rdi = 0x7000;
        regs.rsi = 0x9000;
        regs.rsp = 0xb000;
        regs.fs_base = 0x2_0000;
        Decoder::new().access(code, &regs, addr)
    }

    #[test]
    fn loads_and_stores_are_told_apart() {
        assert_eq!(access(&[0x48, 0x89, 0x07], 0x7000), Some(Access::Write)); // mov [rdi], rax
        assert_eq!(access(&[0x48, 0x8b, 0x07], 0x7000), Some(Access::Read)); // mov rax, [rdi]
        assert_eq!(
            access(&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], 0x7000),
            Some(Access::Write)
        ); // lock cmpxchg
        assert_eq!(access(&[0xf3, 0xa4], 0x7000), Some(Access::Write)); // rep movsb
        assert_eq!(access(&[0xf3, 0xa4], 0x9000), Some(Access::Read));
        assert_eq!(access(&[0x50], 0xaff8), Some(Access::Write)); // push rax
        assert_eq!(
            access(&[0x64, 0x48, 0x89, 0x04, 0x25, 0x10, 0, 0, 0], 0x2_0010),
            Some(Access::Write)
        );
        assert_eq!(access(&[0xff, 0xff, 0xff], 0), None);
    }
}
