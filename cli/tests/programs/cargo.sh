# Build and run a package of two crates, then test it.
set -e
mkdir -p hello/src part/src
cat > hello/Cargo.toml <<'T'
[package]
name = "hello"
version = "0.1.0"
edition = "2021"
[dependencies]
part = { path = "../part" }
[workspace]
T
cat > part/Cargo.toml <<'T'
[package]
name = "part"
version = "0.1.0"
edition = "2021"
T
echo 'pub fn greet(n: &str) -> String { format!("hello, {n}") }' > part/src/lib.rs
echo 'fn main() { println!("{}", part::greet("world")); std::process::exit(5) }' > hello/src/main.rs
echo '#[test] fn greets() { assert_eq!(part::greet("x"), "hello, x"); }' >> hello/src/main.rs
cd hello
cargo build --offline --quiet
status=0; ./target/debug/hello || status=$?
echo "status $status"
