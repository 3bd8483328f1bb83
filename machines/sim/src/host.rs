//! A small operating system around the core: processes without programs.

use crate::failure::Failure;
use crate::machine::{PageFault, SimMachine};
use crate::rng::Rng;
use crate::store::SimStore;
use std::mem::ManuallyDrop;
use vellum_mm::{FaultInfo, FaultOutcome, FileRef, MmError, MmRef, MmapRequest};
use vellum_system::{System, SystemConfig};
use vellum_types::{Access, CpuId, FileId, PAGE_SIZE, SpaceId, VirtAddr};

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A signal for the program.
    Signal {
        /// SIGSEGV or SIGBUS.
        number: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        addr: u64,
    },
    /// There is no memory, and the process has to die for it.
    OutOfMemory,
}

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
const BUS_ADRERR: i32 = 2;

/// The same access is tried so often; a correct core needs two, or three if the TLB forgets.
const MAX_TRIES: u32 = 8;

/// Where each process has a buffer of its own for system calls, and its size in bytes.
pub(crate) const BUFFER: u64 = 0x7ffe_0000_0000;
pub(crate) const BUFFER_LEN: u64 = 64 * 1024;

const PROT_READ_WRITE: u32 = 3;
const MAP_PRIVATE_ANON_FIXED: u32 = 0x32;

/// A process: an address space, for threads are just accesses on other CPUs.
struct Process<'m> {
    mm: MmRef<'m>,
}

/// The core on a [`SimMachine`], with processes that are told what to do.
///
/// Every operation runs on a CPU that the seed chooses, so that each process leaves translations on
/// all of them; now and then a TLB is emptied.
pub struct SimHost<'m> {
    machine: &'m SimMachine,
    pub(crate) store: &'m SimStore,
    pub(crate) system: System<'m, SimMachine>,
    /// Never dropped but by `exit`: where a test fails half-way, taking broken spaces apart would
    /// only hide the first panic behind a second.
    processes: ManuallyDrop<Vec<Option<Process<'m>>>>,
    rng: Rng,
}

impl<'m> SimHost<'m> {
    /// Boots the core.
    ///
    /// # Errors
    /// The machine has too little memory.
    pub fn boot(machine: &'m SimMachine, store: &'m SimStore, seed: u64) -> Result<Self, String> {
        let config = SystemConfig {
            trace: machine.trace(),
            zones: machine.config().zones,
            ..SystemConfig::default()
        };
        let system = System::boot(machine, store, config).map_err(|error| error.to_string())?;
        Ok(Self {
            machine,
            store,
            system,
            processes: ManuallyDrop::new(Vec::new()),
            rng: Rng::new(seed),
        })
    }

    /// The core.
    pub fn system(&self) -> &System<'m, SimMachine> {
        &self.system
    }

    /// The machine.
    pub fn machine(&self) -> &'m SimMachine {
        self.machine
    }

    /// The files.
    pub fn store(&self) -> &'m SimStore {
        self.store
    }

    /// Moves to some CPU; sometimes its TLB is empty.
    pub(crate) fn migrate(&mut self) -> CpuId {
        let cpu = CpuId(self.rng.below(u64::from(self.machine.config().nr_cpus)) as u16);
        self.machine.run_on(cpu);
        if self.rng.one_in(64) {
            self.machine.forget(cpu);
        }
        cpu
    }

    /// A process with an empty address space, but for its buffer.
    ///
    /// # Errors
    /// NoMem.
    pub fn spawn(&mut self) -> Result<usize, MmError> {
        self.migrate();
        let mm = self.system.mm_create()?;
        self.machine.set_root(mm.space(), mm.root());
        let pid = self.adopt(mm, self.processes.len());
        let request = MmapRequest {
            addr: BUFFER,
            len: BUFFER_LEN,
            prot: PROT_READ_WRITE,
            flags: MAP_PRIVATE_ANON_FIXED,
            file: None,
            offset: 0,
        };
        match self.mmap(pid, request) {
            Ok(_) => Ok(pid),
            Err(error) => {
                self.exit(pid);
                Err(error)
            }
        }
    }

    fn adopt(&mut self, mm: MmRef<'m>, pid: usize) -> usize {
        if self.processes.len() <= pid {
            self.processes.resize_with(pid + 1, || None);
        }
        self.processes[pid] = Some(Process { mm });
        pid
    }

    /// Is there such a process?
    pub fn is_alive(&self, pid: usize) -> bool {
        self.processes.get(pid).is_some_and(Option::is_some)
    }

    /// The address space of a process.
    ///
    /// # Panics
    /// If there is no such process.
    pub fn mm(&self, pid: usize) -> MmRef<'m> {
        let process = self
            .processes
            .get(pid)
            .and_then(Option::as_ref)
            .expect("a live process");
        process.mm.clone()
    }

    /// fork(2), into a process of the caller's choice of number.
    ///
    /// # Errors
    /// NoMem.
    pub fn fork(&mut self, pid: usize, child: usize) -> Result<(), MmError> {
        self.migrate();
        let mm = self.system.mm_fork(&self.mm(pid))?;
        self.machine.set_root(mm.space(), mm.root());
        self.adopt(mm, child);
        Ok(())
    }

    /// exit(2).
    pub fn exit(&mut self, pid: usize) {
        self.migrate();
        if let Some(process) = self.processes[pid].take() {
            self.machine.clear_root(process.mm.space());
            self.system.mm_put(process.mm);
        }
    }

    /// mmap(2), with a file already resolved.
    ///
    /// # Errors
    /// Those of mmap.
    pub fn mmap(&mut self, pid: usize, request: MmapRequest<'m>) -> Result<u64, MmError> {
        self.migrate();
        self.system.mmap(&self.mm(pid), request)
    }

    /// A file as mmap wants it.
    ///
    /// # Errors
    /// NoMem.
    pub fn open(&self, file: FileId, writable: bool) -> Result<FileRef<'m>, MmError> {
        let mapping = self.system.mapping(file)?;
        Ok(FileRef {
            mapping,
            readable: true,
            writable,
            exec_ok: true,
        })
    }

    /// Any other system call, on some CPU.
    pub fn syscall<R>(
        &mut self,
        pid: usize,
        call: impl FnOnce(&System<'m, SimMachine>, &MmRef<'m>) -> R,
    ) -> R {
        self.migrate();
        call(&self.system, &self.mm(pid))
    }

    /// Loads bytes as the program would.
    ///
    /// # Errors
    /// The signal, or the end of memory. Bytes before it are loaded.
    pub fn read(&mut self, pid: usize, va: u64, out: &mut [u8]) -> Result<(), Trouble> {
        let len = out.len() as u64;
        self.each_piece(
            pid,
            va,
            len,
            Access::Read,
            |machine, cpu, space, at, from, to| {
                machine.cpu(cpu).read(space, at, &mut out[from..to])
            },
        )
    }

    /// Stores bytes as the program would.
    ///
    /// # Errors
    /// The signal, or the end of memory. Bytes before it are stored.
    pub fn write(&mut self, pid: usize, va: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let len = bytes.len() as u64;
        self.each_piece(
            pid,
            va,
            len,
            Access::Write,
            |machine, cpu, space, at, from, to| machine.cpu(cpu).write(space, at, &bytes[from..to]),
        )
    }

    /// Fetches an instruction as the program would.
    ///
    /// # Errors
    /// The signal, or the end of memory.
    pub fn exec(&mut self, pid: usize, va: u64) -> Result<(), Trouble> {
        self.each_piece(pid, va, 1, Access::Exec, |machine, cpu, space, at, _, _| {
            machine.cpu(cpu).exec(space, at)
        })
    }

    fn each_piece(
        &mut self,
        pid: usize,
        va: u64,
        len: u64,
        access: Access,
        mut attempt: impl FnMut(
            &SimMachine,
            CpuId,
            SpaceId,
            VirtAddr,
            usize,
            usize,
        ) -> Result<(), PageFault>,
    ) -> Result<(), Trouble> {
        let mm = self.mm(pid);
        let mut done = 0;
        while done < len {
            let at = VirtAddr::new(va.wrapping_add(done));
            let piece = (PAGE_SIZE - at.page_offset()).min(len - done);
            let mut tries = 0;
            loop {
                let cpu = self.migrate();
                let (from, to) = (done as usize, (done + piece) as usize);
                let Err(fault) = attempt(self.machine, cpu, mm.space(), at, from, to) else {
                    break;
                };
                tries += 1;
                if tries > MAX_TRIES {
                    let space = mm.space();
                    self.machine.report(Failure::NoProgress {
                        space,
                        addr: at,
                        access,
                    });
                    return Err(Trouble::OutOfMemory);
                }
                let info = FaultInfo {
                    addr: fault.addr,
                    access: fault.access,
                    sp: None,
                };
                let addr = at.as_u64();
                match self.system.fault(&mm, info) {
                    FaultOutcome::Minor | FaultOutcome::Major => {}
                    FaultOutcome::Segv(code) => {
                        return Err(Trouble::Signal {
                            number: SIGSEGV,
                            code: code as i32,
                            addr,
                        });
                    }
                    FaultOutcome::Bus => {
                        return Err(Trouble::Signal {
                            number: SIGBUS,
                            code: BUS_ADRERR,
                            addr,
                        });
                    }
                    FaultOutcome::Oom => return Err(Trouble::OutOfMemory),
                }
            }
            done += piece;
        }
        Ok(())
    }

    /// Checks the core against itself, and the machine's TLBs against the core's tables.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if let Some(failure) = self.machine.failures().first() {
            return Err(failure.to_string());
        }
        self.machine
            .check_tlbs()
            .map_err(|failure| failure.to_string())?;
        self.system.validate_all().map_err(str::to_string)
    }

    /// Ends all processes and the core.
    ///
    /// # Errors
    /// A failure, or frames that did not come back.
    pub fn shutdown(mut self) -> Result<(), String> {
        for pid in 0..self.processes.len() {
            if self.is_alive(pid) {
                self.exit(pid);
            }
        }
        self.check()?;
        let machine = self.machine;
        let leaks = self.system.shutdown();
        if let Some(failure) = machine.failures().first() {
            return Err(failure.to_string());
        }
        if leaks.frames != 0 || leaks.objects != 0 {
            Err(format!("leaked {leaks:?}"))
        } else {
            Ok(())
        }
    }
}
