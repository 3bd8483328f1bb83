//! The parser and the runner, on an executor that answers from a list.

use vellum_testkit::{Call, Ending, Executor, Op, Reply, Scenario, Shortage, abi, record, run};

/// Answers in order and keeps what it was asked.
struct Script {
    replies: Vec<Reply>,
    calls: Vec<(usize, Call)>,
}

impl Executor for Script {
    fn call(&mut self, proc: usize, call: &Call) -> Result<Reply, String> {
        let reply = self
            .replies
            .get(self.calls.len())
            .cloned()
            .unwrap_or(Reply::Done(0));
        self.calls.push((proc, *call));
        Ok(reply)
    }
}

fn play(text: &str, replies: &[Reply], shortage: Shortage) -> (Result<Ending, String>, Script) {
    let scenario = Scenario::parse(text).expect("a scenario");
    let mut script = Script {
        replies: replies.to_vec(),
        calls: Vec::new(),
    };
    let result = run(&scenario, &mut script, shortage).map_err(|m| m.message);
    (result, script)
}

#[test]
fn words_become_numbers() {
    let text = "proc a # the first\n\n a map p 16K rw private anon fixed 1M\n a fork b\n b write p+4K 0x55 2K";
    let replies = [Reply::Done(1 << 20), Reply::Done(77)];
    let (result, script) = play(text, &replies, Shortage::Forbidden);
    assert_eq!(result, Ok(Ending::Complete));
    let flags = abi::MAP_PRIVATE | abi::MAP_ANONYMOUS | abi::MAP_FIXED;
    let map = Call {
        op: Op::Map,
        args: [1 << 20, 16384, 3, flags, 0, 0],
    };
    let fork = Call {
        op: Op::Fork,
        args: [1, 0, 0, 0, 0, 0],
    };
    let write = Call {
        op: Op::Write,
        args: [(1 << 20) + 4096, 0x55, 2048, 0, 0, 0],
    };
    assert_eq!(script.calls, [(0, map), (0, fork), (1, write)]);
}

#[test]
fn bad_lines_name_their_number() {
    for (text, line, part) in [
        ("proc a\na fly p", 2, "no verb fly"),
        ("proc a\nb exit", 2, "no process b"),
        ("proc a\nproc b", 2, "only the first"),
        ("proc a\na map p 4K rq private anon", 2, "bad protection"),
        ("proc a\na map p 4K r private anon huge", 2, "no flag huge"),
        ("proc a\na map p 4K r private file f 0", 2, "no file f"),
        ("proc a\na unmap p", 2, "missing"),
        ("proc a\na exit now", 2, "too much"),
        ("proc a\na ! EWHAT exit", 2, "no error"),
        ("proc a\na ! EINVAL same 1 1", 2, "no system call"),
        ("proc a\na mincore p 4K 012", 2, "bad bits"),
        ("proc a\na segv jump p", 2, "no access"),
        ("proc a\na fork a", 2, "twice"),
        (
            "proc a\nfile create f 4K zero\nfile create f 4K zero",
            3,
            "twice",
        ),
    ] {
        let error = Scenario::parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

#[test]
fn every_kind_of_mismatch_is_noticed() {
    let signal = |code, addr| Reply::Signal {
        number: abi::SIGSEGV,
        code,
        addr,
    };
    for (line, reply, part) in [
        ("unmap 0 4K", Reply::Errno(22), "EINVAL"),
        ("! EINVAL unmap 0 4K", Reply::Done(0), "not EINVAL"),
        ("! EINVAL unmap 0 4K", Reply::Errno(12), "ENOMEM"),
        (
            "expect 16 1 1",
            Reply::Differs {
                at: 16,
                found: Some(2),
            },
            "found 0x02 at 0x10",
        ),
        ("read 16", signal(1, 16), "SIGSEGV/MAPERR"),
        ("segv read 16 maperr", Reply::Done(0), "not signal 11"),
        ("segv read 16 accerr", signal(1, 16), "SIGSEGV/MAPERR"),
        ("segv read 16 maperr", signal(1, 17), "address 0x11"),
        ("areas 0 4K 2", Reply::Done(3), "not 0x2"),
        ("read nobody", Reply::Done(0), "nobody is not set"),
        ("read 16", Reply::OutOfMemory, "lack of memory"),
        ("same 1 2", Reply::Done(0), "is not"),
    ] {
        let (result, _) = play(&format!("proc a\na {line}"), &[reply], Shortage::Forbidden);
        let message = result.expect_err(line);
        assert!(message.contains(part), "{line}: {message}");
    }
}

#[test]
fn a_dead_process_does_nothing() {
    let (result, script) = play("proc a\na exit\na read 16", &[], Shortage::Forbidden);
    assert!(result.is_err());
    assert_eq!(script.calls.len(), 1);
}

#[test]
fn a_shortage_ends_the_story_only_where_allowed() {
    for (line, reply) in [
        ("map p 4K rw private anon", Reply::Errno(12)),
        ("read 16", Reply::OutOfMemory),
        ("brk b 8K", Reply::Done(4096)),
        ("mincore 0 8K 11", Reply::Done(1)),
    ] {
        let text = format!("proc a\na {line}\na read 16");
        let (result, _) = play(&text, std::slice::from_ref(&reply), Shortage::Allowed);
        assert_eq!(result, Ok(Ending::OutOfMemory { line: 2 }), "{line}");
    }
    let wrong = Reply::Differs {
        at: 16,
        found: Some(2),
    };
    let (result, _) = play("proc a\na expect 16 1", &[wrong], Shortage::Allowed);
    assert!(result.is_err());
}

#[test]
fn what_is_recorded_can_be_played() {
    let text = "proc p0\nfile create f0 8192 count\n\
        p0 map v 8192 rw private file f0 4096 rdonly fixed 0x10000 populate\n\
        p0 fork p1\np1 ! EINVAL sync 0x10000 4096 async sync\n\
        p1 write 0x10000 7 4096\np1 segv write 0x11000 accerr\n\
        p1 expect 0x10010 9 1\np0 pwrite f0 0 64 0x10000 = 64\n\
        p0 remap v 0x10000 4096 4096 fixed 0x20000 dontunmap\np0 areas 0x10000 8192 2\n\
        p0 mincore 0x10000 8192 10\nfile size f0 8192\np1 exit\n";
    let signal = Reply::Signal {
        number: abi::SIGSEGV,
        code: abi::SEGV_ACCERR,
        addr: 0x11000,
    };
    let replies = [
        Reply::Done(0),
        Reply::Done(0x10000),
        Reply::Done(0),
        Reply::Errno(22),
        Reply::Done(0),
        signal,
        Reply::Done(0),
        Reply::Done(64),
        Reply::Done(0x20000),
        Reply::Done(2),
        Reply::Done(1),
        Reply::Done(8192),
        Reply::Done(0),
    ];
    let (result, script) = play(text, &replies, Shortage::Forbidden);
    assert_eq!(result, Ok(Ending::Complete));
    let mut again = String::from("proc p0\n");
    for ((proc, call), reply) in script.calls.iter().zip(&replies) {
        again += &record(*proc, call, reply).expect("a line");
        again.push('\n');
    }
    assert_eq!(again, text);
}
