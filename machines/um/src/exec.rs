//! execve: the image comes from the core, the empty address space from the host.
//!
//! ```text
//!   seccomp stop ── image built ──▶ host execve(stub) ──▶ EVENT_EXEC
//!        │ errno                        │ error at exit        │ old space left
//!        ▼                              ▼                      ▼
//!   back to the guest            image dropped       stub maps the mailbox, parks
//!                                                    everything else unmapped, service created
//!                                                    registers set: the program begins
//! ```

use crate::abi;
use crate::engine::Image;
use crate::host::ptrace;
use crate::stub::RESERVED;
use crate::stub::mailbox::HostCall;
use crate::supervisor::{Phase, Resume, Supervisor, kill};
use crate::task::Task;
use std::io;
use std::ops::Range;
use vellum_types::{PAGE_SHIFT, VirtAddr, VirtRange, VmFlags};

/// AT_IGNORE: an entry of the auxiliary vector that says nothing.
const AT_IGNORE: u64 = 1;
/// Interrupts on, as every program starts.
const EFLAGS: u64 = 0x202;

/// A mapping of the host in a fresh space.
struct HostMapping {
    pages: Range<u64>,
    name: String,
}

fn host_mappings(tid: i32) -> io::Result<Vec<HostMapping>> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/maps"))?;
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |s| u64::from_str_radix(s, 16).ok();
        let name = fields.nth(4).unwrap_or("").to_owned();
        Some(HostMapping {
            pages: address(start)? >> PAGE_SHIFT..address(end)? >> PAGE_SHIFT,
            name,
        })
    };
    Ok(text.lines().filter_map(parse).collect())
}

impl HostMapping {
    fn range(&self) -> Option<VirtRange> {
        let at = VirtAddr::from_page_number;
        VirtRange::new(at(self.pages.start), at(self.pages.end))
    }
    fn is_ours(&self) -> bool {
        let first = self.pages.start << PAGE_SHIFT;
        RESERVED.contains(&first) || self.name == "[vsyscall]"
    }
    fn is_special(&self) -> bool {
        self.name == "[vdso]" || self.name.starts_with("[vvar")
    }
}

impl<'m> Supervisor<'m> {
    /// A task asks for a new program.
    pub(crate) fn exec(&mut self, task: &mut Task<'m>) -> Resume {
        match abi::exec_image(&mut self.engine, task) {
            Ok(image) => self.exec_image(task, image),
            Err(errno) => self.act(task, crate::engine::Action::Return(-i64::from(errno))),
        }
    }

    pub(crate) fn exec_image(&mut self, task: &mut Task<'m>, image: Image<'m>) -> Resume {
        let stub = self.engine.machine.stub();
        task.regs.orig_rax = libc::SYS_execve as u64;
        task.set_arg(0, stub.path());
        task.set_arg(1, stub.argv());
        task.set_arg(2, stub.envp());
        task.phase = Phase::Exec(Box::new(image));
        Resume::ToExit
    }

    /// The host could not do it; the program goes on as before.
    pub(crate) fn exec_failed(&mut self, task: &mut Task<'m>, image: Image<'m>) {
        task.restore_args();
        self.engine.sys.mm_put(image.mm);
    }

    /// The host has done it: `tid` is alone in an empty space. Its id may have been another
    /// thread's before.
    pub(crate) fn event_exec(&mut self, tid: i32) {
        let former = ptrace::event_message(tid).map_or(tid, |id| id as i32);
        let Some(mut task) = self.engine.tasks.remove(&former) else {
            return;
        };
        if former != tid {
            if let Some(mut leader) = self.engine.tasks.remove(&tid) {
                self.note_stop(&mut leader);
                self.leave_space(leader);
            }
            task.tid = tid;
        }
        self.note_stop(&mut task);
        let phase = std::mem::replace(&mut task.phase, Phase::Run);
        let Phase::Exec(image) = phase else {
            kill(task.tgid, libc::SIGKILL);
            return self.go_on(task, Resume::Run(0));
        };
        match self.exec_into(&mut task, *image) {
            Ok(()) => self.go_on(task, Resume::Run(0)),
            Err(error) => {
                if error.raw_os_error() != Some(libc::ESRCH) {
                    eprintln!("vellum: exec in task {tid}: {error}");
                }
                kill(task.tgid, libc::SIGKILL);
                let _ = ptrace::cont(tid, 0);
                self.engine.tasks.insert(tid, task);
            }
        }
    }

    /// Empties the host space, gives it a service and sets the registers.
    fn exec_into(&mut self, task: &mut Task<'m>, image: Image<'m>) -> io::Result<()> {
        let Image {
            mm,
            entry,
            sp,
            vdso_slot,
            comm,
            abi: abi_state,
        } = image;
        let space = mm.space();
        let old = std::mem::replace(&mut task.mm, mm);
        let old_space = std::mem::replace(&mut task.space, space);
        self.engine.machine.with(space, |s| s.users += 1);
        self.leave(task.tid, old, old_space);
        let sighand = task.sighand.borrow().after_exec();
        task.sighand = sighand;
        task.altstack = None;
        task.clear_child_tid = None;
        task.pins.clear();
        abi::execed(&mut self.engine, task, abi_state);

        self.enter_stub(task.tid)?;
        let machine = self.engine.machine;
        let slot = machine
            .take_slot()
            .ok_or_else(|| io::Error::other("too many processes"))?;
        let (special, unmaps) = self.sort_mappings(task)?;
        let mut words = [0; 2];
        for (word, bytes) in words.iter_mut().zip(comm.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let name = machine.mailbox().scratch(slot, task.tid, &words);
        let mut calls = unmaps;
        calls.push(HostCall::new(
            libc::SYS_prctl,
            [libc::PR_SET_NAME as u64, name],
        ));
        let tgid = task.tgid;
        self.zombies.retain(|(parent, child)| {
            let mine = *parent == tgid;
            if mine {
                let how = (libc::__WALL | libc::WNOHANG) as u64;
                calls.push(HostCall::new(libc::SYS_wait4, [*child as u64, 0, how, 0]));
            }
            !mine
        });
        calls.push(crate::inject::service_clone());
        let (_, service) = self.inject(task.tid, slot, &calls, Some(tgid))?;
        let service = service.ok_or_else(|| io::Error::other("the host made no process"))?;
        self.set_vdso(task, vdso_slot, &special);
        let special = special.into_iter().map(|mapping| mapping.pages).collect();
        self.engine.machine.attach(space, service, special);

        let now = ptrace::regs(task.tid)?;
        task.regs = ptrace::zero_regs();
        task.regs.cs = now.cs;
        task.regs.ss = now.ss;
        task.regs.orig_rax = u64::MAX;
        task.regs.eflags = EFLAGS;
        task.regs.rip = entry;
        task.regs.rsp = sp;
        task.regs_dirty = true;
        Ok(())
    }

    /// What of the host's mappings stays, and the calls that remove the rest.
    fn sort_mappings(&mut self, task: &Task<'m>) -> io::Result<(Vec<HostMapping>, Vec<HostCall>)> {
        let mut special = Vec::new();
        let mut unmaps = Vec::new();
        for mapping in host_mappings(task.tid)?
            .into_iter()
            .filter(|m| !m.is_ours())
        {
            let kept = mapping.is_special()
                && mapping.range().is_some_and(|range| {
                    let (name, flags) = match mapping.name.as_str() {
                        "[vdso]" => ("[vdso]", VmFlags::READ | VmFlags::EXEC),
                        _ => ("[vvar]", VmFlags::READ),
                    };
                    let flags = flags | VmFlags::PFNMAP | VmFlags::DONTEXPAND;
                    self.engine
                        .sys
                        .install_special(&task.mm, range, flags, name)
                        .is_ok()
                });
            if kept {
                special.push(mapping);
            } else {
                let Range { start, end } = mapping.pages;
                let args = [start << PAGE_SHIFT, (end - start) << PAGE_SHIFT];
                unmaps.push(HostCall::new(libc::SYS_munmap, args));
            }
        }
        // The vdso reads its data: one without the other is of no use, but does no harm either.
        Ok((special, unmaps))
    }

    fn set_vdso(&mut self, task: &Task<'m>, slot: Option<VirtAddr>, special: &[HostMapping]) {
        let Some(slot) = slot else { return };
        let whole = special.iter().any(|m| m.name.starts_with("[vvar"));
        let vdso = special.iter().find(|m| whole && m.name == "[vdso]");
        // A failure means that the program unmapped its stack already, which it had no time to do.
        let _ = match vdso {
            Some(vdso) => {
                let at = (vdso.pages.start << PAGE_SHIFT).to_le_bytes();
                self.engine.write_user(task, slot.as_u64(), &at)
            }
            None => self
                .engine
                .write_user(task, slot.as_u64() - 8, &AT_IGNORE.to_le_bytes()),
        };
    }
}
