//! A table with every kind of object and expression in it.

use std::sync::Arc;
use std::time::Duration;

use portway_kernel::nftables::{
    AddressType, Bytes, Chain, ChainType, CmpOp, CtDirection, CtKey, Data, DynsetOp, Element, Expr, FibAddress, Field,
    Hook, HookPoint, MetaKey, NatKind, Op, PayloadBase, Reg, Reject, Rule, Set, SetFlags, Transaction, Verdict,
};
use portway_model::Family;

use Field::{DestinationAddress, DestinationPort, InputInterface, Mark, Numgen, Protocol, SourceAddress, SourcePort};

/// The fields of a frontend's key: address, protocol, port.
pub(crate) const FRONTEND: [Field; 3] = [DestinationAddress, Protocol, DestinationPort];

/// Writes objects of one family.
pub(crate) struct Sample {
    pub(crate) family: Family,
}

impl Sample {
    /// An address of this family that ends in these two bytes.
    pub(crate) fn address(&self, net: u8, host: u8) -> Vec<u8> {
        match self.family {
            Family::V4 => vec![10, net, 0, host],
            Family::V6 => vec![0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host],
        }
    }

    pub(crate) fn frontend(&self, host: u8, protocol: u8, port: u16) -> Bytes {
        Bytes::new().field(&self.address(96, host)).field(&[protocol]).field(&port.to_be_bytes())
    }

    pub(crate) fn slot(&self, host: u8, protocol: u8, port: u16, slot: u32) -> Bytes {
        self.frontend(host, protocol, port).field(&slot.to_ne_bytes())
    }

    pub(crate) fn backend(&self, host: u8, port: u16) -> Data {
        Data::Value(Bytes::new().field(&self.address(1, host)).field(&port.to_be_bytes()))
    }

    /// How many registers an address takes.
    pub(crate) fn width(&self) -> u8 {
        u8::try_from(DestinationAddress.len(self.family) / 4).expect("1 or 4")
    }

    /// Loads an address of the IP header.
    pub(crate) fn load_address(&self, source: bool, dreg: u8) -> Expr {
        let (offset, len) = match (self.family, source) {
            (Family::V4, true) => (12, 4),
            (Family::V4, false) => (16, 4),
            (Family::V6, true) => (8, 16),
            (Family::V6, false) => (24, 16),
        };
        Expr::Payload { base: PayloadBase::Network, offset, len, dreg: Reg::new(dreg) }
    }

    pub(crate) fn load_protocol(&self, dreg: u8) -> Expr {
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg::new(dreg) }
    }

    pub(crate) fn load_port(&self, dreg: u8) -> Expr {
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg::new(dreg) }
    }

    /// Loads the frontend's key.
    pub(crate) fn load_frontend(&self) -> Vec<Expr> {
        let width = self.width();
        vec![self.load_address(false, 0), self.load_protocol(width), self.load_port(width + 1)]
    }

    /// Loads the key of the hairpin and affinity maps.
    pub(crate) fn load_pair(&self) -> Vec<Expr> {
        let width = self.width();
        vec![
            self.load_address(true, 0),
            self.load_address(false, width),
            self.load_protocol(2 * width),
            self.load_port(2 * width + 1),
        ]
    }

    /// `ip saddr 10.1.0.0/16`, `ip6 saddr fd00:0:1::/48`, or not in it.
    pub(crate) fn source_in_pods(&self, op: CmpOp) -> Vec<Expr> {
        let len = match self.family {
            Family::V4 => 2,
            Family::V6 => 6,
        };
        let mut load = self.load_address(true, 0);
        if let Expr::Payload { len: load, .. } = &mut load {
            *load = len;
        }
        let prefix = &self.pods()[..usize::try_from(len).expect("short")];
        vec![load, Expr::Cmp { sreg: Reg::R0, op, data: prefix.into() }]
    }

    fn pods(&self) -> Vec<u8> {
        match self.family {
            Family::V4 => vec![10, 1, 0, 0],
            Family::V6 => vec![0xfd, 0, 0, 0, 0, 1, 0, 0],
        }
    }

    pub(crate) fn flag(&self, key: CtKey, bit: u32) -> Vec<Expr> {
        vec![
            Expr::Ct { key, direction: None, dreg: Reg::R0 },
            self.mask(bit),
            Expr::Cmp { sreg: Reg::R0, op: CmpOp::Neq, data: [0; 4].into() },
        ]
    }

    fn mask(&self, bits: u32) -> Expr {
        Expr::Bitwise { sreg: Reg::R0, dreg: Reg::R0, mask: bits.to_ne_bytes().into(), xor: [0; 4].into() }
    }

    /// The sets and maps.
    pub(crate) fn sets(&self) -> Vec<Arc<Set>> {
        let affinity_key = [SourceAddress, DestinationAddress, Protocol, DestinationPort];
        let interval = SetFlags { interval: true, ..SetFlags::default() };
        [
            Set::verdict_map("services", FRONTEND),
            Set::map(
                "backends",
                [DestinationAddress, Protocol, DestinationPort, Numgen],
                [DestinationAddress, DestinationPort],
            ),
            Set {
                flags: interval,
                ..Set::new("allowed", [DestinationAddress, Protocol, DestinationPort, SourceAddress])
            },
            Set { comment: Some("addresses of Services".into()), ..Set::new("cluster-ips", [DestinationAddress]) },
            Set { flags: interval, ..Set::new("ranges", [SourceAddress]) },
            Set { size: Some(64), ..Set::new("hairpin", affinity_key) },
            Set {
                flags: SetFlags { dynamic: true, timeout: true, interval: false },
                timeout: Some(Duration::from_secs(10_800)),
                size: Some(262_144),
                ..Set::map("affinity", affinity_key, [DestinationAddress, DestinationPort])
            },
            Set::verdict_map("nodeports", [Protocol, DestinationPort]),
            Set::map("ids", [DestinationAddress], [Mark]),
            Set::new("others", [SourcePort, InputInterface]),
            Set::map("slots", [Numgen], [DestinationAddress]),
        ]
        .map(Arc::new)
        .to_vec()
    }

    pub(crate) fn chains(&self) -> Vec<Chain> {
        let plain = |name: &str| Chain { name: name.into(), hook: None };
        let base =
            |name: &str, kind, point, priority| Chain { name: name.into(), hook: Some(Hook { kind, point, priority }) };
        vec![
            plain("refuse"),
            plain("mark-masquerade"),
            plain("c2"),
            plain("stick-600"),
            plain("learn"),
            plain("services"),
            base("prerouting", ChainType::Nat, HookPoint::Prerouting, -100),
            base("output", ChainType::Nat, HookPoint::Output, -100),
            base("postrouting", ChainType::Nat, HookPoint::Postrouting, 100),
            base("forward", ChainType::Filter, HookPoint::Forward, 0),
            base("filter-output", ChainType::Filter, HookPoint::Output, -110),
            base("input", ChainType::Filter, HookPoint::Input, 5),
        ]
    }

    /// All rules but those that learn affinity, which nft 1.0.6 prints and cannot read back.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let rule = |chain: &str, parts: &[&[Expr]]| Rule { chain: chain.into(), exprs: parts.concat(), comment: None };
        let verdict = |verdict| [Expr::Verdict(verdict)];
        let jump = |chain: &str| [Expr::Verdict(Verdict::Jump(chain.into()))];
        let goto = |chain: &str| [Expr::Verdict(Verdict::Goto(chain.into()))];
        let eq = |sreg: u8, data: &[u8]| Expr::Cmp { sreg: Reg::new(sreg), op: CmpOp::Eq, data: data.into() };
        let lookup = |set: &str, invert| [Expr::Lookup { set: set.into(), sreg: Reg::R0, invert }];
        let vmap = |set: &str| [Expr::LookupVerdict { set: set.into(), sreg: Reg::R0 }];
        let width = self.width();
        let numgen = |modulus| Expr::Numgen { modulus, offset: 0, dreg: Reg::new(width + 2) };
        let dnat = |map: &str| {
            [
                Expr::LookupMap { set: map.into(), sreg: Reg::R0, dreg: Reg::R0 },
                Expr::Nat {
                    kind: NatKind::Destination,
                    address: Reg::R0,
                    port: Some(Reg::new(width)),
                    fully_random: false,
                },
            ]
        };
        let mark = Expr::Meta { key: MetaKey::Mark, dreg: Reg::R0 };
        let set_mark = Expr::SetMeta { key: MetaKey::Mark, sreg: Reg::R0 };
        let change = |mask: u32, xor: u32| Expr::Bitwise {
            sreg: Reg::R0,
            dreg: Reg::R0,
            mask: mask.to_ne_bytes().into(),
            xor: xor.to_ne_bytes().into(),
        };
        let interface = |name: &[u8], whole: bool| {
            let mut data = name.to_vec();
            if whole {
                data.resize(16, 0);
            }
            [Expr::Meta { key: MetaKey::InputInterface, dreg: Reg::R0 }, eq(0, &data)]
        };
        let local =
            |address| [Expr::FibType { address, dreg: Reg::R0 }, eq(0, &(AddressType::Local as u32).to_ne_bytes())];
        let new = self.flag(CtKey::State, CtKey::STATE_NEW);
        let translated = self.flag(CtKey::Status, CtKey::STATUS_DNAT);
        let tcp = [self.load_protocol(0), eq(0, &[6])];
        let original = [
            Expr::Ct { key: self.original_destination(), direction: Some(CtDirection::Original), dreg: Reg::R0 },
            self.load_protocol(width),
            Expr::Ct {
                key: CtKey::ProtoDestination,
                direction: Some(CtDirection::Original),
                dreg: Reg::new(width + 1),
            },
        ];
        let range = |from: u16, to: u16, invert| {
            [
                self.load_port(0),
                Expr::Range { sreg: Reg::R0, invert, from: from.to_be_bytes().into(), to: to.to_be_bytes().into() },
            ]
        };
        vec![
            rule("refuse", &[&tcp, &[Expr::Reject(Reject::TcpReset)]]),
            rule("refuse", &[&[Expr::Reject(Reject::PortUnreachable)]]),
            rule("mark-masquerade", &[&[mark.clone(), change(!0x4000, 0x4000), set_mark.clone()]]),
            rule("c2", &[&self.source_in_pods(CmpOp::Neq), &jump("mark-masquerade")]),
            rule("c2", &[&self.source_in_pods(CmpOp::Eq), &local(FibAddress::Source), &[Expr::Counter]]),
            rule("c2", &[&self.load_pair(), &dnat("affinity")]),
            rule("c2", &[&self.load_frontend(), &[numgen(2)], &dnat("backends")]),
            Rule {
                comment: Some("the slot went away".into()),
                ..rule("c2", &[&self.load_frontend(), &[numgen(1)], &dnat("backends")])
            },
            rule("services", &[&self.load_frontend(), &vmap("services")]),
            rule(
                "services",
                &[&local(FibAddress::Destination), &[self.load_protocol(0), self.load_port(1)], &vmap("nodeports")],
            ),
            rule("learn", &[&tcp, &translated, &original, &vmap("services")]),
            rule("prerouting", &[&jump("services")]),
            rule("output", &[&jump("services")]),
            rule(
                "postrouting",
                &[
                    std::slice::from_ref(&mark),
                    &[change(0x4000, 0), Expr::Cmp { sreg: Reg::R0, op: CmpOp::Neq, data: [0; 4].into() }],
                    &[mark.clone(), change(!0, 0x4000), set_mark.clone()],
                    &[Expr::Masquerade { fully_random: true }],
                ],
            ),
            rule(
                "postrouting",
                &[
                    &translated,
                    &self.load_pair(),
                    &lookup("hairpin", false),
                    &[Expr::Masquerade { fully_random: false }],
                ],
            ),
            rule(
                "postrouting",
                &[
                    std::slice::from_ref(&mark),
                    &[change(0x4000, 0), Expr::Cmp { sreg: Reg::R0, op: CmpOp::Eq, data: [0; 4].into() }],
                    &verdict(Verdict::Return),
                ],
            ),
            rule(
                "postrouting",
                &[
                    &[
                        Expr::Meta { key: MetaKey::OutputInterface, dreg: Reg::R0 },
                        eq(0, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"),
                    ],
                    &[self.load_address(false, 0), eq(0, &self.address(7, 7))],
                    &[
                        Expr::Immediate { dreg: Reg::R0, data: self.address(9, 9)[..].into() },
                        Expr::Nat { kind: NatKind::Source, address: Reg::R0, port: None, fully_random: true },
                    ],
                ],
            ),
            rule(
                "filter-output",
                &[
                    &new,
                    &self.load_frontend(),
                    &[self.load_address(true, width + 2)],
                    &lookup("allowed", true),
                    &verdict(Verdict::Drop),
                ],
            ),
            rule(
                "forward",
                &[
                    &[self.load_address(false, 0)],
                    &lookup("cluster-ips", false),
                    &[Expr::Reject(Reject::PortUnreachable)],
                ],
            ),
            rule("forward", &[&[self.load_address(true, 0)], &lookup("ranges", false), &verdict(Verdict::Accept)]),
            rule("forward", &[&interface(b"br0", true), &verdict(Verdict::Return)]),
            rule("forward", &[&interface(b"cali", false), &[Expr::Counter], &verdict(Verdict::Return)]),
            rule("forward", &[&range(30_000, 32_767, false), &goto("refuse")]),
            rule("forward", &[&range(1, 1023, true), &verdict(Verdict::Drop)]),
            rule(
                "forward",
                &[
                    &[Expr::Ct { key: CtKey::Direction, direction: None, dreg: Reg::R0 }, eq(0, &[0])],
                    &[self.load_port(0), eq(0, &80u16.to_be_bytes())],
                    &verdict(Verdict::Drop),
                ],
            ),
            rule("forward", &[&[self.load_address(true, 0), eq(0, &self.address(7, 7))], &verdict(Verdict::Drop)]),
            rule(
                "forward",
                &[&[
                    self.load_address(false, 0),
                    Expr::LookupMap { set: "ids".into(), sreg: Reg::R0, dreg: Reg::R0 },
                    set_mark.clone(),
                ]],
            ),
            rule("forward", &[&[Expr::Immediate { dreg: Reg::R0, data: 7u32.to_ne_bytes().into() }, set_mark]]),
        ]
    }

    fn original_destination(&self) -> CtKey {
        match self.family {
            Family::V4 => CtKey::DestinationIp,
            Family::V6 => CtKey::DestinationIp6,
        }
    }

    /// The rule that learns affinity.
    pub(crate) fn learning(&self) -> Rule {
        let (source, destination) = match self.family {
            Family::V4 => (CtKey::SourceIp, CtKey::DestinationIp),
            Family::V6 => (CtKey::SourceIp6, CtKey::DestinationIp6),
        };
        let width = self.width();
        let ct = |key, dreg| Expr::Ct { key, direction: Some(CtDirection::Original), dreg: Reg::new(dreg) };
        let data = 2 * width + 2;
        Rule {
            chain: "stick-600".into(),
            exprs: vec![
                ct(source, 0),
                ct(destination, width),
                self.load_protocol(2 * width),
                ct(CtKey::ProtoDestination, 2 * width + 1),
                self.load_address(false, data),
                self.load_port(data + width),
                Expr::Dynset {
                    set: "affinity".into(),
                    op: DynsetOp::Update,
                    key: Reg::R0,
                    data: Some(Reg::new(data)),
                    timeout: Some(Duration::from_secs(600)),
                },
            ],
            comment: None,
        }
    }

    /// Elements of one set.
    pub(crate) fn elements(&self, set: &str) -> Vec<Element> {
        let goto = |chain: &str| Data::Verdict(Verdict::Goto(chain.into()));
        let allowed = |first: u8, last: u8| {
            let key = |host| self.frontend(1, 6, 80).field(&self.address(2, host));
            Element::range(key(first), key(last))
        };
        let pair = |host| {
            Bytes::new().field(&self.address(1, host)).field(&self.address(1, host)).field(&[6]).field(&[0x1f, 0x90])
        };
        let address = |host| Bytes::from(self.address(96, host).as_slice());
        match set {
            "services" => vec![
                Element::new(self.frontend(1, 6, 80)).with(goto("c2")),
                Element::new(self.frontend(2, 17, 53)).with(goto("c2")),
                Element::new(self.frontend(3, 132, 9)).with(goto("refuse")),
                Element::new(self.frontend(4, 6, 80)).with(Data::Verdict(Verdict::Drop)),
            ],
            "backends" => (1..3u8)
                .flat_map(|host| (0..3u32).map(move |slot| (host, slot)))
                .map(|(host, slot)| Element::new(self.slot(host, 6, 80, slot)).with(self.backend(host, 8080)))
                .collect(),
            "allowed" => vec![allowed(0, 255)],
            "cluster-ips" => (1..5).map(|host| Element::new(address(host))).collect(),
            "ranges" => vec![
                Element::range(self.address(5, 0).as_slice(), self.address(5, 127).as_slice()),
                Element::range(self.address(5, 128).as_slice(), self.address(5, 128).as_slice()),
                Element::range(self.address(6, 3).as_slice(), self.address(6, 9).as_slice()),
            ],
            "hairpin" => vec![Element::new(pair(1)), Element::new(pair(2))],
            "nodeports" => {
                vec![Element::new(Bytes::new().field(&[6]).field(&30_080u16.to_be_bytes())).with(goto("c2"))]
            }
            "ids" => vec![Element::new(address(1)).with(Data::Value(7u32.to_ne_bytes().into()))],
            _ => Vec::new(),
        }
    }

    /// Everything but the elements of dynamic sets and what only netlink can write.
    pub(crate) fn transaction(&self) -> Transaction {
        let mut all = Transaction::new(self.family, "portway");
        all.push(Op::AddTable);
        for set in self.sets() {
            all.push(Op::AddSet(set));
        }
        for chain in self.chains() {
            all.push(Op::AddChain(chain));
        }
        for rule in self.rules() {
            all.push(Op::AddRule(rule));
        }
        for set in self.sets() {
            let elements = self.elements(&set.name);
            if !elements.is_empty() {
                all.push(Op::AddElements { set, elements });
            }
        }
        all
    }
}
