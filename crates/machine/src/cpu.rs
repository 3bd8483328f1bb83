//! Which CPU this is, and values of which each CPU has its own.

use core::cell::{Cell, UnsafeCell};
use vellum_types::{CpuId, NodeId};

/// The most CPUs of one system.
pub const MAX_CPUS: u16 = 64;

/// Tells flows of control apart by the CPU they run on.
///
/// A kernel disables preemption in `pin` and reads its CPU number; a hosted machine names the thread.
///
/// # Safety
/// From `pin` until the matching `unpin`, no other flow of control may be given the same CPU: no
/// preemption, no migration, and no interrupt handler that pins. Pins nest within one flow. Ids are
/// less than the number given to [`Cpus::new`].
pub unsafe trait CpuLocal: Sync {
    /// Stays on this CPU; says which it is.
    fn pin(&self) -> CpuId;

    /// Undoes one `pin`.
    fn unpin(&self, cpu: CpuId);

    /// The node that `cpu` is nearest to.
    fn node_of(&self, cpu: CpuId) -> NodeId {
        let _ = cpu;
        NodeId(0)
    }
}

/// The CPUs of a machine. A handle: copy it.
#[derive(Clone, Copy)]
pub struct Cpus<'m> {
    /// None: one flow of control in all, so that nothing need be asked.
    local: Option<&'m dyn CpuLocal>,
    nr: u16,
}

impl<'m> Cpus<'m> {
    /// `nr` CPUs, told apart by `local`.
    ///
    /// # Panics
    /// If `nr` is 0 or more than [`MAX_CPUS`].
    pub fn new(nr: u16, local: &'m dyn CpuLocal) -> Self {
        assert!((1..=MAX_CPUS).contains(&nr), "1 to {MAX_CPUS} CPUs");
        Self {
            local: Some(local),
            nr,
        }
    }

    /// One CPU, and one flow of control on it.
    ///
    /// # Safety
    /// Whatever uses this handle or a copy of it runs on one flow of control at a time, and a hand-over
    /// from one to the next synchronises them.
    pub const unsafe fn single() -> Self {
        Self { local: None, nr: 1 }
    }

    /// True if there is one flow of control in all, so that nobody need pin.
    pub const fn is_single(&self) -> bool {
        self.local.is_none()
    }

    /// How many there are.
    pub const fn len(&self) -> u16 {
        self.nr
    }

    /// Never: there is always one.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The node that `cpu` is nearest to.
    pub fn node_of(&self, cpu: CpuId) -> NodeId {
        self.local.map_or(NodeId(0), |local| local.node_of(cpu))
    }

    /// The node of the CPU that this runs on; it may be another one right afterwards.
    pub fn local_node(&self) -> NodeId {
        self.local.map_or(NodeId(0), |local| {
            let cpu = local.pin();
            let node = local.node_of(cpu);
            local.unpin(cpu);
            node
        })
    }

    /// Stays on this CPU until the guard is dropped.
    #[inline]
    pub fn pin(&self) -> CpuPin<'m> {
        CpuPin {
            cpu: self.local.map_or(CpuId(0), CpuLocal::pin),
            local: self.local,
            stay: core::marker::PhantomData,
        }
    }
}

impl core::fmt::Debug for Cpus<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Cpus({})", self.nr)
    }
}

/// Proof that this flow of control stays on its CPU.
pub struct CpuPin<'m> {
    cpu: CpuId,
    local: Option<&'m dyn CpuLocal>,
    /// Not Send: it belongs to the flow that pinned.
    stay: core::marker::PhantomData<*const ()>,
}

impl CpuPin<'_> {
    /// Which CPU.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl Drop for CpuPin<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(local) = self.local {
            local.unpin(self.cpu);
        }
    }
}

/// One CPU's value, on cache lines of its own.
#[repr(align(64))]
pub struct PerCpuSlot<T> {
    /// Somebody on this CPU is using the value. Touched only by that CPU.
    busy: Cell<bool>,
    value: UnsafeCell<T>,
}

impl<T> PerCpuSlot<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Self {
            busy: Cell::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Calls `f` with the value; `None` if it is in use further up the same call chain.
    ///
    /// # Safety
    /// No other flow of control is in here until this returns.
    #[inline(always)]
    unsafe fn enter<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.busy.get() {
            return None;
        }
        self.busy.set(true);
        let release = Release(&self.busy);
        // SAFETY: no other flow is here, by this function's contract; `busy` keeps this flow itself
        // from making a second reference.
        let value = unsafe { &mut *self.value.get() };
        let result = f(value);
        drop(release);
        Some(result)
    }
}

/// A value for each CPU. Linux's `DEFINE_PER_CPU`; the memory is the caller's.
pub struct PerCpu<'m, T> {
    cpus: Cpus<'m>,
    slots: &'m [PerCpuSlot<T>],
    /// The first slot, if there is one flow of control in all: then nothing need be asked.
    single: Option<&'m PerCpuSlot<T>>,
}

// SAFETY: a slot is reached only by a flow that is pinned to its CPU, so by one at a time, and in
// turn by different threads: hence T: Send.
unsafe impl<T: Send> Sync for PerCpu<'_, T> {}
// SAFETY: as above; the handle itself has no state of a thread.
unsafe impl<T: Send> Send for PerCpu<'_, T> {}

impl<'m, T> PerCpu<'m, T> {
    /// Spreads `slots` over `cpus`.
    ///
    /// # Panics
    /// If there are fewer slots than CPUs.
    pub fn new(cpus: Cpus<'m>, slots: &'m mut [PerCpuSlot<T>]) -> Self {
        assert!(slots.len() >= usize::from(cpus.nr), "a slot for each CPU");
        let slots = &*slots;
        let single = slots.first().filter(|_| cpus.local.is_none());
        Self {
            cpus,
            slots,
            single,
        }
    }

    /// The CPUs.
    pub const fn cpus(&self) -> Cpus<'m> {
        self.cpus
    }

    /// Calls `f` with this CPU's value; `None` if it is in use further up the same call chain.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        if let Some(slot) = self.single {
            // SAFETY: there is one flow, by the contract of `Cpus::single`.
            return unsafe { slot.enter(f) };
        }
        self.with_pinned(f)
    }

    /// As `with`, where the CPU must be asked for. Out of line: the two ways share no code.
    #[inline(never)]
    fn with_pinned<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let pin = self.cpus.pin();
        let slot = self.slots.get(usize::from(pin.cpu().0))?;
        // SAFETY: this flow is pinned, so no other reaches the slot of its CPU.
        unsafe { slot.enter(f) }
    }

    /// As [`PerCpu::with`], but does not mark the value as in use: for the shortest of paths.
    ///
    /// # Safety
    /// `f` does not come back to this value, and neither does anything that it calls; it does not
    /// panic.
    #[inline(always)]
    pub unsafe fn with_leaf<R>(&self, f: impl FnOnce(&mut T) -> Option<R>) -> Option<R> {
        let leaf = |slot: &PerCpuSlot<T>| {
            if slot.busy.get() {
                return None;
            }
            // SAFETY: one flow, as in `with`; not in use further up, as `busy` says, nor further
            // down, by this function's contract.
            f(unsafe { &mut *slot.value.get() })
        };
        if let Some(slot) = self.single {
            return leaf(slot);
        }
        // For the layout of the code only: asking costs more than the jump there.
        core::hint::cold_path();
        let local = self.cpus.local?;
        let cpu = local.pin();
        let result = self.slots.get(usize::from(cpu.0)).and_then(leaf);
        local.unpin(cpu);
        result
    }

    /// Calls `f` with the value of a CPU that does not run.
    ///
    /// # Safety
    /// `cpu` is this flow's own, or no flow runs on it until `f` returns and its earlier work is
    /// visible here: it was stopped, or never started.
    pub unsafe fn with_stopped<R>(&self, cpu: CpuId, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let slot = self.slots.get(usize::from(cpu.0))?;
        // SAFETY: nobody runs there, by this function's contract.
        unsafe { slot.enter(f) }
    }
}

/// Clears the mark of use, also when the user panics.
struct Release<'a>(&'a Cell<bool>);

impl Drop for Release<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    std::thread_local! {
        static CPU: Cell<u16> = const { Cell::new(0) };
    }

    struct Threads;

    // SAFETY: each thread of a test sets a number of its own before it pins.
    unsafe impl CpuLocal for Threads {
        fn pin(&self) -> CpuId {
            CpuId(CPU.get())
        }
        fn unpin(&self, _: CpuId) {}
        fn node_of(&self, cpu: CpuId) -> NodeId {
            NodeId((cpu.0 / 2) as u8)
        }
    }

    #[test]
    fn every_cpu_has_its_own_value() {
        let mut slots: Vec<_> = (0..4).map(|_| PerCpuSlot::new(0u64)).collect();
        let values = PerCpu::new(Cpus::new(4, &Threads), &mut slots);
        std::thread::scope(|scope| {
            for cpu in 0..4 {
                let values = &values;
                scope.spawn(move || {
                    CPU.set(cpu);
                    for _ in 0..1000 * u64::from(cpu) {
                        values.with(|v| *v += 1);
                    }
                });
            }
        });
        for cpu in 0..4 {
            // SAFETY: the threads have ended.
            let n = unsafe { values.with_stopped(CpuId(cpu), |v| *v) };
            assert_eq!(n, Some(1000 * u64::from(cpu)));
        }
        CPU.set(3);
        assert_eq!(values.cpus().local_node(), NodeId(1));
    }

    #[test]
    fn a_value_in_use_is_not_lent_twice() {
        let mut slots = [PerCpuSlot::new(5)];
        // SAFETY: one thread.
        let values = PerCpu::new(unsafe { Cpus::single() }, &mut slots);
        let nested = values.with(|_| values.with(|v| *v));
        assert_eq!(nested, Some(None));
        assert_eq!(values.with(|v| *v), Some(5));
    }
}
