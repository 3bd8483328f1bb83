#![no_main]
#![allow(missing_docs, reason = "see the module of the same name")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vellum_fuzz::elf::run(data));
