//! Checks that no documentation is a mere word or two: it says something in a sentence, or the item is private.

use std::fs;

use anyhow::{Context, Result};

use crate::tool;

/// Documentation of a single line with this many words or fewer says nothing that the name does not.
const TOO_FEW: usize = 3;

/// Folders whose documentation is checked.
const FOLDERS: &[&str] = &["proxy", "testbed", "benches", "xtask"];

/// One complaint for each documentation comment that is too short.
pub(super) fn complaints() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        for file in tool::files(folder, "rs")? {
            let text = fs::read_to_string(tool::root().join(&file)).with_context(|| format!("cannot read {file}"))?;
            complaints.extend(short(&text).map(|(line, words)| format!("{file}:{line}: {words:?} says too little")));
        }
    }
    Ok(complaints)
}

/// Line numbers and text of documentation that stands alone on a line and is too short.
fn short(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<_> = text.lines().map(documentation).collect();
    (0..lines.len()).filter_map(move |index| {
        let alone = index.checked_sub(1).is_none_or(|before| lines[before].is_none())
            && lines.get(index + 1).is_none_or(Option::is_none);
        let words = lines[index]?;
        let count = words.split_whitespace().count();
        (alone && count > 0 && count <= TOO_FEW).then_some((index + 1, words))
    })
}

/// The text of a documentation comment.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
    if text.is_empty() { Some(text) } else { text.strip_prefix(' ') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_or_two_is_too_short() {
        let text = "/// Which.\nfn a() {}\n    /// The port.\n    b: u16,\n/// It opens the port.\nfn c() {}\n";
        assert_eq!(short(text).collect::<Vec<_>>(), [(1, "Which."), (3, "The port.")]);
    }

    #[test]
    fn a_short_last_line_of_a_longer_text_is_fine() {
        let text = "/// Opens the port, as long as\n/// it is free.\nfn a() {}\n// Why.\n//// A rule.\n";
        assert_eq!(short(text).count(), 0);
    }
}
