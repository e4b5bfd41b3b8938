//! Warns of other programs' chains that drop forwarded packets by default, as Docker and ufw set them up.
//!
//! A verdict of one table does not bind another: what portway's table lets pass, a base chain of another table at the
//! same hook still drops. No rule of portway's can change that; only a rule in that chain can.

use portway_kernel::nftables::{DroppingChain, HookPoint, NfTables};
use portway_model::Family;

use super::layout::TABLE;

/// What was found at the last look in one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Forwarding {
    dropping: Vec<DroppingChain>,
}

impl Forwarding {
    /// Looks again, and logs what has changed since the last look.
    pub(super) fn look(&mut self, family: Family, kernel: &mut dyn NfTables) {
        let now = match kernel.dropping_chains(family, HookPoint::Forward) {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(%family, %error, "cannot list other programs' chains");
                return;
            }
        };
        if let Some(message) = self.news(family, now) {
            if self.dropping.is_empty() {
                tracing::info!(%family, "{message}");
            } else {
                tracing::warn!(%family, "{message}");
            }
        }
    }

    /// The sentence about these chains; `None` if they are the same as at the last look.
    fn news(&mut self, family: Family, mut now: Vec<DroppingChain>) -> Option<String> {
        // One family speaks for the chains that see packets of both. A policy in portway's own table is drift.
        now.retain(|chain| &*chain.table != TABLE && (family == Family::V4 || chain.family != "inet"));
        if self.dropping == now {
            return None;
        }
        self.dropping = now;
        if self.dropping.is_empty() {
            return Some("no chain of another program drops forwarded packets by default any more".to_owned());
        }
        let named = |chain: &DroppingChain| format!("{} of table {} {}", chain.chain, chain.family, chain.table);
        let chains: Vec<String> = self.dropping.iter().map(named).collect();
        let commands: Vec<String> = self.dropping.iter().map(accept).collect();
        Some(format!(
            "NodePorts and load balancers may time out: {} {} forwarded packets that no rule there accepts, and portway's \
             table cannot overrule that. Accept the connections of Services there with: {}",
            chains.join(" and "),
            if chains.len() == 1 { "drops" } else { "drop" },
            commands.join("; ")
        ))
    }
}

/// The command that adds a rule for translated connections, in both directions.
fn accept(chain: &DroppingChain) -> String {
    let DroppingChain { family, table, chain } = chain;
    let tool = match *family {
        "ip" => "iptables",
        "ip6" => "ip6tables",
        _ => "",
    };
    if (&**table, &**chain) == ("filter", "FORWARD") && !tool.is_empty() {
        return format!("{tool} -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT");
    }
    format!("nft insert rule {family} {table} {chain} ct status dnat accept")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: &'static str, table: &str, chain: &str) -> DroppingChain {
        DroppingChain { family, table: table.into(), chain: chain.into() }
    }

    #[test]
    fn each_change_is_one_sentence_that_names_the_chains_and_what_to_do() {
        let mut forwarding = Forwarding::default();
        assert_eq!(forwarding.news(Family::V4, Vec::new()), None);
        let docker = chain("ip", "filter", "FORWARD");
        let first = forwarding.news(Family::V4, vec![docker.clone()]).expect("news");
        assert!(first.contains("FORWARD of table ip filter drops"), "{first}");
        assert!(first.ends_with("with: iptables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"), "{first}");
        assert_eq!(forwarding.news(Family::V4, vec![docker.clone()]), None, "said once");
        let both = forwarding.news(Family::V4, vec![docker, chain("inet", "fw", "fwd")]).expect("news");
        assert!(both.contains("FORWARD of table ip filter and fwd of table inet fw drop "), "{both}");
        assert!(both.ends_with("; nft insert rule inet fw fwd ct status dnat accept"), "{both}");
        let gone = forwarding.news(Family::V4, Vec::new()).expect("news");
        assert!(gone.contains("any more"), "{gone}");
    }

    #[test]
    fn a_chain_that_sees_both_families_is_named_once() {
        let inet = vec![chain("inet", "fw", "fwd"), chain("ip6", "filter", "FORWARD")];
        let v6 = Forwarding::default().news(Family::V6, inet).expect("news");
        assert!(!v6.contains("inet") && v6.contains("ip6tables -I FORWARD"), "{v6}");
    }
}
