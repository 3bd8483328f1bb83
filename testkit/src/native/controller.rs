//! The executor that sends each operation to its process.

use super::probe;
use super::worker::{self, Channel, Worker};
use crate::call::{Call, Executor, MAX_FILES, MAX_PROCS, Op, Reply, pattern_byte};
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Runs operations by real system calls in forked processes.
#[derive(Debug)]
pub struct Native {
    directory: PathBuf,
    paths: [CString; MAX_FILES],
    /// Our ends: replies come in, commands go out.
    ends: [(i32, i32); MAX_PROCS],
    /// Process ids; 0 is not started. Only process 0 is our own child.
    first: libc::pid_t,
}

fn pipe() -> io::Result<[i32; 2]> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    match unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } {
        0 => Ok(fds),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Native {
    /// Starts process 0, in a fresh directory for files.
    ///
    /// # Errors
    /// What the host refused.
    pub fn start() -> io::Result<Self> {
        // SAFETY: no arguments, cannot fail.
        let pid = unsafe { libc::getpid() };
        let mut directory = std::env::temp_dir();
        let mut attempt = 0;
        directory.push(format!("vellum-scenario-{pid}-{attempt}"));
        while let Err(error) = fs::create_dir(&directory) {
            if error.kind() != io::ErrorKind::AlreadyExists || attempt == 1000 {
                return Err(error);
            }
            attempt += 1;
            directory.pop();
            directory.push(format!("vellum-scenario-{pid}-{attempt}"));
        }
        let path = |i| CString::new(directory.join(format!("file{i}")).as_os_str().as_bytes());
        let mut paths: [CString; MAX_FILES] = Default::default();
        for (i, slot) in paths.iter_mut().enumerate() {
            *slot = path(i).map_err(io::Error::other)?;
        }
        let mut channels = [Channel {
            commands: -1,
            replies: -1,
        }; MAX_PROCS];
        let mut ends = [(-1, -1); MAX_PROCS];
        for (channel, end) in channels.iter_mut().zip(&mut ends) {
            let [command_out, command_in] = pipe()?;
            let [reply_out, reply_in] = pipe()?;
            *channel = Channel {
                commands: command_out,
                replies: reply_in,
            };
            *end = (reply_out, command_in);
        }
        // SAFETY: this process has one thread; the child runs the worker only and never returns.
        let first = unsafe { libc::fork() };
        match first {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                for (reply_out, command_in) in ends {
                    close(reply_out);
                    close(command_in);
                }
                probe::install();
                // Children of workers need no wait.
                // SAFETY: SIG_IGN is a valid disposition.
                unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
                let open = [[-1; 2]; MAX_FILES];
                Worker {
                    channels: &channels,
                    paths: &paths,
                    open,
                    number: 0,
                }
                .serve()
            }
            _ => {
                // Workers keep both ends of later workers' pipes, so that an unexpected death is
                // noticed by a time limit, not by the end of a pipe.
                for channel in channels {
                    close(channel.commands);
                    close(channel.replies);
                }
                Ok(Self {
                    directory,
                    paths,
                    ends,
                    first,
                })
            }
        }
    }

    fn global(&self, call: &Call) -> io::Result<Reply> {
        let path = &self.paths[call.args[0] as usize];
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        match call.op {
            Op::FileCreate => {
                let bytes: Vec<u8> = (0..call.args[1])
                    .map(|at| pattern_byte(call.args[2], at))
                    .collect();
                fs::write(path, bytes)?;
                Ok(Reply::Done(0))
            }
            Op::FileTruncate => {
                OpenOptions::new()
                    .write(true)
                    .open(path)?
                    .set_len(call.args[1])?;
                Ok(Reply::Done(0))
            }
            _ => Ok(Reply::Done(fs::metadata(path)?.len())),
        }
    }
}

impl Executor for Native {
    fn call(&mut self, proc: usize, call: &Call) -> Result<Reply, String> {
        if call.op.is_global() {
            return self.global(call).map_err(|error| error.to_string());
        }
        let (replies, commands) = self.ends[proc];
        let mut command = [0; worker::COMMAND];
        command[0] = call.op as u64;
        command[1..].copy_from_slice(&call.args);
        if !worker::write_words(commands, &command) {
            return Err("the process is gone".to_string());
        }
        let mut words = [0; worker::REPLY];
        wait_readable(replies)?;
        if !worker::read_words(replies, &mut words) {
            return Err("the process died".to_string());
        }
        Ok(match words[0] {
            worker::DONE => Reply::Done(words[1]),
            worker::ERRNO => Reply::Errno(words[1] as i32),
            worker::SIGNAL => Reply::Signal {
                number: words[1] as i32,
                code: words[2] as i32,
                addr: words[3],
            },
            worker::DIFFERS => Reply::Differs {
                at: words[3],
                found: Some(words[1] as u8),
            },
            _ => Reply::Differs {
                at: words[3],
                found: None,
            },
        })
    }
}

/// Waits for a reply, at most half a minute: operations are small.
fn wait_readable(fd: i32) -> Result<(), String> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: one pollfd.
        match unsafe { libc::poll(&mut poll, 1, 30_000) } {
            1 => return Ok(()),
            0 => return Err("no answer: the process died or hangs".to_string()),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error.to_string());
                }
            }
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // Without commands to come, every worker that still lives ends.
        for (replies, commands) in self.ends {
            close(commands);
            close(replies);
        }
        // SAFETY: our own child; it ends because its pipe did.
        unsafe { libc::waitpid(self.first, std::ptr::null_mut(), 0) };
        // Best effort: a leftover directory in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn close(fd: i32) {
    // SAFETY: closes a descriptor of ours; nothing else uses its number.
    unsafe { libc::close(fd) };
}
