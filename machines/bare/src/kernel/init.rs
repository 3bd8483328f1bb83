//! The first process: what the command asked for.

use crate::exec::{self, LoadError, Request};
use crate::fs::{Device, File, Inode, Kind, Place, lookup};
use crate::machine::system;
use crate::serial::{self, kprintln};
use crate::sync::Once;
use crate::task::{self, Process, Task};
use crate::{power, sched};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Files of the initramfs in which the starter says what to run: strings, each with a NUL.
const ARGUMENTS: &str = "/boot/arguments";
const ENVIRONMENT: &str = "/boot/environment";

static FIRST: Once<Arc<Process>> = Once::new();
static COMMAND_LINE: Once<String> = Once::new();

/// Keeps the kernel's command line.
pub(crate) fn set_command_line(line: String) {
    COMMAND_LINE.set(line);
}

pub(crate) fn command_line() -> &'static str {
    COMMAND_LINE.try_get().map_or("", |line| line)
}

/// The value of `key=value` on the command line; the empty text for a mere `key`.
pub(crate) fn option(key: &str) -> Option<&'static str> {
    command_line().split_ascii_whitespace().find_map(|word| {
        let rest = word.strip_prefix(key)?;
        if rest.is_empty() {
            Some("")
        } else {
            rest.strip_prefix('=')
        }
    })
}

pub(crate) fn verbose() -> bool {
    option("verbose").is_some()
}

/// The first process.
pub(crate) fn process() -> Arc<Process> {
    FIRST.get().clone()
}

fn strings(path: &str) -> Option<Vec<Vec<u8>>> {
    let inode = lookup(crate::fs::root(), path, true).ok()?;
    let mapping = inode.mapping()?;
    let mut bytes = vec![0; mapping.size() as usize];
    system().kernel_read(mapping, 0, &mut bytes).ok()?;
    let mut list: Vec<Vec<u8>> = bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    // Behind the last NUL.
    list.pop();
    Some(list)
}

/// Ends with a line that says why nothing runs.
pub(crate) fn refuse(why: &str) -> ! {
    kprintln!("vellum: {why}");
    serial::report("exit 127\n");
    power::off(power::DONE);
}

/// Loads the program and makes it the first process.
pub(crate) fn start() {
    let arguments = strings(ARGUMENTS)
        .filter(|list| !list.is_empty())
        .or_else(|| option("init").map(|path| vec![path.as_bytes().to_vec()]));
    let Some(arguments) = arguments else {
        refuse("no program: the initramfs has no boot/arguments, and init= is not given");
    };
    let environment = strings(ENVIRONMENT)
        .unwrap_or_else(|| vec![b"PATH=/bin:/sbin:/usr/bin".to_vec(), b"HOME=/".to_vec()]);
    let path = String::from_utf8_lossy(&arguments[0]).into_owned();
    let process = Process::new(task::next_pid(), None);
    let request = Request {
        place: &Place::root(),
        path: &path,
        arguments,
        environment: &environment,
        limits: Default::default(),
    };
    let image = match exec::load(request) {
        Ok(image) => image,
        Err(LoadError::File(error)) => refuse(&alloc::format!("{path}: {error}")),
        Err(LoadError::Errno(errno)) => {
            let why = match errno {
                2 => "no such file in the initramfs".to_string(),
                12 => "does not fit into memory".to_string(),
                13 => "not an executable file".to_string(),
                _ => alloc::format!("cannot be loaded (errno {errno})"),
            };
            refuse(&alloc::format!("{path}: {why}"))
        }
    };
    {
        let files = process.files.lock().clone();
        let mut table = files.lock();
        let console: Option<Arc<Inode>> = lookup(crate::fs::root(), "/dev/console", true).ok();
        let file = File::new(
            Kind::Device(Device::Console),
            console,
            "/dev/console".to_string(),
            2,
        );
        for _ in 0..3 {
            if table.add(file.clone(), false, 0).is_err() {
                refuse("no memory for descriptors");
            }
        }
    }
    *process.mm.lock() = Some(image.mm.clone());
    let frame = exec::first_frame(image.entry, image.stack);
    let Some(task) = Task::new(process.pid, process.clone(), Some(image.mm), &frame) else {
        refuse("no memory for the first task");
    };
    exec::name(&task, &image.path);
    process.threads.lock().push(task.clone());
    task::register(&process);
    FIRST.set(process);
    sched::start(task);
}

/// Checks everything. The other CPUs go on meanwhile, and one of them may be in the middle of giving
/// a frame back; what is really wrong stays wrong.
fn check() -> Result<(), &'static str> {
    const TRIES: u32 = 100;
    const PAUSE: u32 = 100_000;
    let mut result = system().validate_all();
    for _ in 0..TRIES {
        if result.is_ok() {
            break;
        }
        for _ in 0..PAUSE {
            core::hint::spin_loop();
        }
        result = system().validate_all();
    }
    result
}

/// The first process ended: so does the machine, with its status.
pub(crate) fn ended(status: i32) {
    if verbose() {
        crate::sys::for_each_unknown(|number, times| {
            kprintln!("vellum: system call {number} is not there; asked for {times} times");
        });
    }
    if option("check").is_some()
        && let Err(what) = check()
    {
        panic!("the memory management is broken: {what}");
    }
    if option("report").is_some() {
        // The console cannot fail.
        let _ = vellum_system::proc::meminfo(system(), &mut serial::Console);
        let _ = vellum_system::proc::vmstat(system(), &mut serial::Console);
    }
    let code = if status & 0x7f == 0 {
        status >> 8 & 0xff
    } else {
        128 + (status & 0x7f)
    };
    serial::report(&alloc::format!("exit {code}\n"));
    power::off(power::DONE);
}
