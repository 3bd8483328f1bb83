//! What `cargo xtask boot` is told.

/// The words after `boot`, read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// As QEMU takes it: `256M`.
    pub(crate) ram: String,
    pub(crate) cpus: u32,
    pub(crate) nodes: u32,
    /// `zram:SIZE`.
    pub(crate) swap: Option<String>,
    /// Which page goes when memory runs short; the kernel knows the names.
    pub(crate) policy: Option<String>,
    /// Count instructions: two runs are the same.
    pub(crate) icount: bool,
    /// Wait for a debugger on port 1234.
    pub(crate) gdb: bool,
    /// Seconds.
    pub(crate) timeout: u64,
    /// Files and folders for the initramfs, `PATH` or `NAME=PATH`.
    pub(crate) added: Vec<String>,
    /// `NAME=VALUE` for the program.
    pub(crate) environment: Vec<String>,
    /// Words for the kernel's command line.
    pub(crate) append: Vec<String>,
    /// QEMU's machine.
    pub(crate) machine: String,
    /// Install QEMU if it is missing.
    pub(crate) install: bool,
    /// The program and its arguments.
    pub(crate) program: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ram: "256M".to_string(),
            cpus: 1,
            nodes: 1,
            swap: None,
            policy: None,
            icount: false,
            gdb: false,
            timeout: 300,
            added: Vec::new(),
            environment: Vec::new(),
            append: Vec::new(),
            machine: "pc".to_string(),
            install: false,
            program: Vec::new(),
        }
    }
}

pub(crate) const USAGE: &str = "\
usage: cargo xtask boot [OPTIONS] -- PROGRAM ARGUMENTS…
  --ram SIZE           default 256M
  --smp N              CPUs, default 1
  --nodes N            memory nodes, default 1
  --swap zram:SIZE     swap to compressed memory
  --policy NAME        which page goes: two-list (the default), linux24, mglru, lru
  --icount             count instructions: two runs are the same
  --gdb                wait for gdb on port 1234
  --timeout S          seconds, default 300; then the exit status is 124
  --initrd-add PATH    put a file or folder into the initramfs, at the top or as NAME=PATH
  --env NAME=VALUE     for the program
  --append WORD        for the kernel's command line (docs/BARE.md lists the words)
  --machine NAME       QEMU's machine, default pc
  --install            install QEMU if it is missing (as root)
PROGRAM is a static program of the host, or a path in the initramfs.";

impl Options {
    pub(crate) fn read(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value"))?;
                Ok::<String, String>((*value).to_string())
            };
            match *word {
                "--" => {
                    options.program = words.map(|word| (*word).to_string()).collect();
                    break;
                }
                "--ram" => options.ram = value()?,
                "--smp" => options.cpus = number(word, &value()?, 16)?,
                "--nodes" => options.nodes = number(word, &value()?, 8)?,
                "--timeout" => options.timeout = u64::from(number(word, &value()?, u32::MAX)?),
                "--swap" => options.swap = Some(value()?),
                "--policy" => options.policy = Some(value()?),
                "--icount" => options.icount = true,
                "--gdb" => options.gdb = true,
                "--install" => options.install = true,
                "--initrd-add" => options.added.push(value()?),
                "--env" => options.environment.push(value()?),
                "--append" => options.append.push(value()?),
                "--machine" => options.machine = value()?,
                _ => return Err(format!("boot: unknown option {word}\n{USAGE}")),
            }
        }
        let own_test = options
            .append
            .iter()
            .any(|word| word.starts_with("selftest"));
        if options.program.is_empty() && !own_test {
            return Err(format!("boot: no program\n{USAGE}"));
        }
        options.ram_bytes()?;
        options.words_of_kernel()?;
        Ok(options)
    }

    /// `--ram` in bytes.
    pub(crate) fn ram_bytes(&self) -> Result<u64, String> {
        size("--ram", &self.ram)
    }

    /// The kernel's command line.
    pub(crate) fn words_of_kernel(&self) -> Result<Vec<String>, String> {
        let mut words = self.append.clone();
        if let Some(swap) = &self.swap {
            let Some(text) = swap.strip_prefix("zram:") else {
                return Err(format!("--swap {swap}: zram:SIZE is needed"));
            };
            words.push(format!("swap=zram:{}", size("--swap", text)?));
        }
        words.extend(self.policy.iter().map(|name| format!("policy={name}")));
        Ok(words)
    }
}

/// A size in bytes.
fn size(word: &str, text: &str) -> Result<u64, String> {
    let bad = || format!("{word} {text}: a number with K, M or G is needed");
    let shift = match text.as_bytes().last() {
        Some(b'K' | b'k') => 10,
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        _ => return Err(bad()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(bad)
}

fn number(word: &str, text: &str, most: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "{word} {text}: a number from 1 to {most} is needed"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        let words = [
            "--ram", "64M", "--smp", "2", "--icount", "--", "./a", "--ram",
        ];
        let options = Options::read(&words).unwrap();
        assert_eq!(
            (options.ram_bytes(), options.cpus, options.icount),
            (Ok(64 << 20), 2, true)
        );
        assert_eq!(options.program, ["./a", "--ram"]);
        let words = ["--swap", "zram:2M", "--policy", "lru", "--", "a"];
        let words = Options::read(&words).unwrap().words_of_kernel();
        assert_eq!(words.unwrap(), ["swap=zram:2097152", "policy=lru"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["--ram", "64"][..],
            &["--smp", "0", "--", "a"],
            &["--", ""][..1],
            &["--what"],
            &["--swap", "64M", "--", "a"],
            &["--swap", "zram:64", "--", "a"],
        ] {
            assert!(Options::read(words).is_err(), "{words:?}");
        }
    }
}
