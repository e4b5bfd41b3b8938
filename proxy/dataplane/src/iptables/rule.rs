//! One rule, written exactly as `iptables-save` prints it, so that desired and existing rules compare as text.
//!
//! The order of matches is the tools' own: address, interface, protocol, then each `-m`, then the target.

use std::fmt::Write as _;
use std::net::IpAddr;

use portway_model::{Family, LocalDetector, Protocol};

/// Characters of a comment that the kernel keeps (`XT_MAX_COMMENT_LEN` less its end). What the API allows fits.
const MAX_COMMENT: usize = 255;

/// Builds a rule. Parts may be given in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    source: String,
    destination: String,
    input: String,
    output: String,
    protocol: Option<Protocol>,
    comment: String,
    destination_port: Option<u16>,
    matches: Vec<String>,
    target: String,
}

impl Rule {
    /// Starts with a rule without matches and target: it matches everything and does nothing.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Matches the source: `-s` with an address or a range, as its family prints it.
    pub(super) fn source(mut self, range: impl ToString) -> Self {
        self.source = format!(" -s {}", range.to_string());
        self
    }

    /// Matches one destination address: `-d` with its full prefix length.
    pub(super) fn destination(mut self, address: IpAddr) -> Self {
        self.destination = format!(" -d {}", single(address));
        self
    }

    /// Matches a destination range given as text: `-d`, or `! -d` with `not`.
    pub(super) fn destination_range(mut self, not: bool, range: &str) -> Self {
        self.destination = format!(" {}-d {range}", if not { "! " } else { "" });
        self
    }

    /// Matches sources outside a range given as text: `! -s`.
    pub(super) fn source_not(mut self, range: &str) -> Self {
        self.source = format!(" ! -s {range}");
        self
    }

    /// Matches packets from pods of this node by the local detector, or with `not` all others. A detector with several
    /// ranges takes one rule for each; `range` is the index of this rule's.
    pub(super) fn source_pods(mut self, detector: &LocalDetector, range: usize, not: bool) -> Self {
        let bang = if not { "! " } else { "" };
        match detector {
            LocalDetector::Cidrs(ranges) => self.source = format!(" {bang}-s {}", ranges[range]),
            LocalDetector::Bridge(name) => self.input = format!(" {bang}-i {name}"),
            LocalDetector::InterfacePrefix(prefix) => self.input = format!(" {bang}-i {prefix}+"),
        }
        self
    }

    /// Matches packets that leave through this interface: `-o`.
    pub(super) fn output(mut self, interface: &str) -> Self {
        self.output = format!(" -o {interface}");
        self
    }

    /// Matches the protocol: `-p`, with the protocol's own match module (`-m tcp`).
    pub(super) fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Matches the destination port: `--dport`.
    pub(super) fn destination_port(mut self, port: u16) -> Self {
        self.destination_port = Some(port);
        self
    }

    /// Adds a comment; an empty one adds nothing. Names that the API allows need no escape, and characters that would
    /// need one are replaced by `?`.
    pub(super) fn comment(mut self, text: &str) -> Self {
        let harmless = |c: char| if c == '"' || c == '\\' || !(' '..='~').contains(&c) { '?' } else { c };
        self.comment = text.chars().map(harmless).take(MAX_COMMENT).collect();
        self
    }

    /// Adds another match, with its `-m`, behind the comment and the port.
    pub(super) fn matching(mut self, text: impl Into<String>) -> Self {
        self.matches.push(text.into());
        self
    }

    /// Sets the target: `-j`, with the target's options.
    pub(super) fn jump(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    /// Renders the rule as a line of `iptables-save` in `chain`, without the line's end.
    pub(super) fn line(&self, chain: &str) -> String {
        let mut line = String::with_capacity(160);
        let _ = write!(line, "-A {chain}{}{}{}{}", self.source, self.destination, self.input, self.output);
        if let Some(protocol) = self.protocol {
            let _ = write!(line, " -p {protocol}");
        }
        if !self.comment.is_empty() {
            let _ = write!(line, " -m comment --comment \"{}\"", self.comment);
        }
        // The kernel keeps the order of matches, so each must come where kube-proxy puts it: address types first.
        for text in self.matches.iter().filter(|text| text.starts_with("-m addrtype")) {
            let _ = write!(line, " {text}");
        }
        if let Some(protocol) = self.protocol {
            let _ = write!(line, " -m {protocol}");
            if let Some(port) = self.destination_port {
                let _ = write!(line, " --dport {port}");
            }
        }
        for text in self.matches.iter().filter(|text| !text.starts_with("-m addrtype")) {
            let _ = write!(line, " {text}");
        }
        if !self.target.is_empty() {
            let _ = write!(line, " -j {}", self.target);
        }
        line
    }
}

/// Writes an address with its full prefix length, as the tools print it.
pub(super) fn single(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{v6}/128"),
    }
}

/// The target `REJECT` with the options that the tools print for its default.
pub(super) fn reject(family: Family) -> &'static str {
    match family {
        Family::V4 => "REJECT --reject-with icmp-port-unreachable",
        Family::V6 => "REJECT --reject-with icmp6-port-unreachable",
    }
}

/// The chain or target that a line of `iptables-save` leads to (`-j` or `-g`).
pub(super) fn target(line: &str) -> Option<&str> {
    let at = [" -j ", " -g "].iter().filter_map(|flag| line.rfind(flag)).max()?;
    line[at + 4..].split(' ').next()
}

/// The `-m statistic` match of rule `index` of `count`; `None` for the last rule, which takes the rest (contract
/// IPT-3).
pub(super) fn probability(index: usize, count: usize) -> Option<String> {
    let left = count - index;
    #[expect(clippy::cast_precision_loss, reason = "numbers of endpoints are far below 2^52")]
    (left > 1).then(|| format!("-m statistic --mode random --probability {:.10}", 1.0 / left as f64))
}

/// Rewrites a line's `--probability` as `iptables-save` prints it: the kernel keeps 31 bits.
pub(super) fn normalise(line: &str) -> String {
    const FLAG: &str = "--probability ";
    let Some(start) = line.find(FLAG).map(|at| at + FLAG.len()) else { return line.to_owned() };
    let end = line[start..].find(' ').map_or(line.len(), |length| start + length);
    let Ok(value) = line[start..end].parse::<f64>() else { return line.to_owned() };
    let kept = (value * f64::from(1_u32 << 31)).round() / f64::from(1_u32 << 31);
    format!("{}{kept:.11}{}", &line[..start], &line[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipt_3_probabilities_have_ten_digits_and_the_last_rule_has_none() {
        assert_eq!(probability(0, 3).as_deref(), Some("-m statistic --mode random --probability 0.3333333333"));
        assert_eq!(probability(1, 3).as_deref(), Some("-m statistic --mode random --probability 0.5000000000"));
        assert_eq!(probability(2, 3), None);
        assert_eq!(probability(0, 1), None);
        assert_eq!(
            probability(0, 100_000).as_deref(),
            Some("-m statistic --mode random --probability 0.0000100000"),
            "a hundred thousand endpoints still have a probability"
        );
    }

    #[test]
    fn a_comment_cannot_break_out_of_its_quotes() {
        let line = Rule::new().comment("a\" -j ACCEPT \\ \n ä").jump("X").line("C");
        assert_eq!(line, "-A C -m comment --comment \"a? -j ACCEPT ? ? ?\" -j X");
    }

    #[test]
    fn a_line_leads_to_its_last_target() {
        assert_eq!(target("-A X -m comment --comment \"a -j b\" -g Y"), Some("Y"));
        assert_eq!(target("-A X -j DNAT --to-destination 10.0.0.1:80"), Some("DNAT"));
        assert_eq!(target("-A X -p tcp"), None);
    }

    #[test]
    fn a_probability_is_compared_as_the_kernel_keeps_it() {
        assert_eq!(
            normalise("-A X -m statistic --mode random --probability 0.3333333333 -j Y"),
            "-A X -m statistic --mode random --probability 0.33333333349 -j Y"
        );
        assert_eq!(normalise("-A X -j Y"), "-A X -j Y");
    }
}
