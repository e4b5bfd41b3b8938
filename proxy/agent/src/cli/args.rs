//! The flags of each command, under kube-proxy's names where it has them (contract CFG-4).

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::flags::{self, Commands, Given};

const RUN_EXAMPLES: &str = "\
Examples:
  In a pod on each node, with the pod's service account:
      portway run --master https://192.0.2.10:6443 --cluster-cidr 10.244.0.0/16
  On a node, with a kubeconfig:
      portway run --kubeconfig /etc/kubernetes/kube-proxy.conf --hostname-override node-1
  With kube-proxy's configuration file, which docs/configuration.md explains:
      portway run --config /var/lib/kube-proxy/config.conf
  Without a cluster, from a folder of YAML or JSON files that may change at any time:
      portway run --manifests /etc/portway/manifests

The rules stay in the kernel when portway ends; portway cleanup removes them.

One portway runs in each network namespace. A second one names the first and ends with status 1; for one that is ending \
it waits, up to 15 s.";

/// What help says under the name kube-proxy.
pub(super) const RUN_NOTES: &str = "\
The rules stay in the kernel when the program ends; --cleanup removes them.";

const RENDER_EXAMPLES: &str = "\
Examples:
      portway render -f service.yaml -f slices.yaml
      kubectl get services,endpointslices,nodes -A -o yaml | portway render --node node-1 -f - | nft -c -f -";

const MASKING: &str = "Masking (equal values stay equal within one file; the key is random and not stored)";

const RECORD_EXAMPLES: &str = "\
Examples:
      portway record --kubeconfig ~/.kube/config --hostname-override node-1 --out cluster.trace
      portway record --kubeconfig ~/.kube/config --mask --duration 1h --out cluster.trace.gz

The file holds JSON lines: a header, each object that exists at the start, then each change with its time. It contains \
Services, EndpointSlices, this node's Node and ServiceCIDRs, with only the fields that a service proxy reads: no labels, \
annotations, selectors or owners except those that decide where traffic goes.

Masking keeps which object belongs to which, how many there are of each, ports and all other numbers, times, policies \
and conditions. Of addresses it keeps the family and the length of the prefix that two of them share, so an address \
stays inside its range. Unspecified, loopback, link-local and multicast addresses are not changed, nor are the first two \
to six bits of any other address. Masking loses the order of names and of addresses.";

/// Flags of the configuration, as a command takes them from the table.
macro_rules! configuration {
    ($name:ident, $commands:expr, $of:literal) => {
        #[doc = concat!("The flags of the configuration that `", $of, "` takes.")]
        pub(crate) struct $name(pub(crate) Given);

        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(flags::given(matches, $commands)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = flags::given(matches, $commands);
                Ok(())
            }
        }

        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                flags::add(command, $commands)
            }

            fn augment_args_for_update(command: Command) -> Command {
                flags::add(command, $commands)
            }
        }
    };
}

configuration!(RunFlags, Commands::Run, "portway run");
configuration!(RenderFlags, Commands::RunAndRender, "portway render");
configuration!(RecordFlags, Commands::RunAndRecord, "portway record");

/// The flags of `portway run`.
#[derive(Args)]
#[command(after_help = RUN_EXAMPLES, after_long_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) configuration: RunFlags,
}

/// The flags of `portway render`.
#[derive(Args)]
#[command(after_help = RENDER_EXAMPLES, after_long_help = RENDER_EXAMPLES)]
pub(crate) struct RenderArgs {
    /// YAML or JSON file with Services, EndpointSlices, Nodes and Lists, a folder of such files, or - for standard
    /// input.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) configuration: RenderFlags,
}

/// The flags of `portway record`.
#[derive(Args)]
#[command(after_help = RECORD_EXAMPLES, after_long_help = RECORD_EXAMPLES)]
pub(crate) struct RecordArgs {
    /// File to write, compressed if its name ends in .gz; - for standard output. An earlier file of this name is
    /// replaced once all objects are listed, not before.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) out: PathBuf,
    /// How long to record after all objects are listed, such as 10m [default: until Ctrl-C or SIGTERM].
    #[arg(long, value_name = "DURATION")]
    pub(crate) duration: Option<String>,
    #[command(flatten)]
    pub(crate) configuration: RecordFlags,
    /// Mask both names and addresses.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask: bool,
    /// Replace each name of a namespace, object, port, zone and host with a meaningless one.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask_names: bool,
    /// Replace each address and range with another of the same family and length. Names such as ip-10-0-0-1 are kept
    /// unless --mask-names is given.
    #[arg(long, help_heading = MASKING)]
    pub(crate) mask_addresses: bool,
}

/// The flags of `portway cleanup`.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Remove only the rules of this mode [default: all modes].
    #[arg(long, alias = "proxy-mode", value_name = "MODE")]
    pub(crate) mode: Option<String>,
}
