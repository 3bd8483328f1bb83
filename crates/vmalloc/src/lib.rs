//! Kernel mappings: vmalloc, vmap, kmap and fixmap.
#![no_std]
#![warn(missing_docs)]
