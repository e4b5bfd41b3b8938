//! The nft program, in the network namespace of the thread that calls it.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs nft in this thread's network namespace and returns what it prints.
///
/// # Panics
/// If nft fails.
pub(crate) fn nft(arguments: &[&str], input: &str) -> String {
    match try_nft(arguments, input) {
        Ok(output) => output,
        Err(error) => panic!("nft {}: {error}\n--- input:\n{input}", arguments.join(" ")),
    }
}

/// Runs nft and returns what it prints, or what it complains of.
pub(crate) fn try_nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the nft program (Debian package nftables) is needed");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("nft runs");
    writer.join().expect("the writer does not panic");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// What `nft list ruleset` prints, elements sorted: the kernel lists them in the order of its hash table, which is
/// seeded anew for each set.
pub(crate) fn nft_list() -> String {
    sorted(&nft(&["list", "ruleset"], ""))
}

/// Sorts the elements of each set in a print of nft's.
pub(crate) fn sorted(print: &str) -> String {
    let mut out = String::new();
    let mut rest = print;
    while let Some((before, elements)) = rest.split_once("elements = {") {
        let (elements, after) = elements.split_once('}').expect("elements end");
        let mut elements: Vec<String> =
            elements.split(',').map(|element| element.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        elements.sort();
        out.push_str(before);
        out.push_str("elements = { ");
        out.push_str(&elements.join(", "));
        out.push_str(" }");
        rest = after;
    }
    out.push_str(rest);
    out
}
