//! The flags: kube-proxy 1.36's and portway's own (contract CFG-4). One table is the command line, the help pages and the
//! reference in docs/configuration.md.

mod given;
mod parse;
mod table;

use clap::{Arg, ArgAction, ArgMatches, Command};

pub(crate) use given::{Given, Version};
pub(crate) use table::FLAGS;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `--name`, `--name=true` or `--name=false`.
    Switch,
    /// One text; of several the last counts. The name stands for it in help.
    One(&'static str),
    /// Texts separated by commas, which add up.
    List(&'static str),
}

/// The commands that take a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commands {
    /// Only `run`, and the program under the name kube-proxy.
    Run,
    /// `portway run` takes it, and `portway render` too.
    RunAndRender,
    /// `portway run` takes it, and `portway record` too.
    RunAndRecord,
    /// `render` and `record` too.
    All,
}

/// What becomes of a flag beside `--config` (contract CFG-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BesideConfig {
    /// The file counts, and a warning names the flag.
    Overridden,
    /// The flag counts beside a configuration file.
    Counts,
}

/// A flag of the command line and what becomes of its value.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    /// The name, without dashes.
    pub(crate) name: &'static str,
    /// What its value is.
    pub(crate) value: Value,
    /// The default, as text; empty if there is none to name.
    pub(crate) default: &'static str,
    /// What the flag does, as help prints it.
    pub(crate) help: &'static str,
    /// The heading of its group in help.
    pub(crate) heading: &'static str,
    /// The fields that it sets.
    pub(crate) fields: &'static [&'static str],
    /// Whether kube-proxy has the flag too.
    #[cfg_attr(not(test), expect(dead_code, reason = "docs/configuration.md, which a test writes, tells it"))]
    pub(crate) kube_proxy: bool,
    /// The commands that take it.
    pub(crate) commands: Commands,
    /// What becomes of it beside `--config`.
    pub(crate) beside_config: BesideConfig,
    /// What replaces it, if it is deprecated.
    pub(crate) deprecated: Option<&'static str>,
    /// Parses a value and stores it; the error is a sentence without the flag's name.
    pub(crate) set: fn(&mut Given, &str) -> Result<(), String>,
}

impl Flag {
    /// The flag as users write it.
    pub(crate) fn dashed(&self) -> String {
        if self.name == "v" { "-v".to_owned() } else { format!("--{}", self.name) }
    }

    fn is_of(&self, command: Commands) -> bool {
        match command {
            Commands::Run => true,
            Commands::RunAndRender => matches!(self.commands, Commands::RunAndRender | Commands::All),
            Commands::RunAndRecord => matches!(self.commands, Commands::RunAndRecord | Commands::All),
            Commands::All => self.commands == Commands::All,
        }
    }

    /// The flag for the parser of the command line. Every occurrence is kept, with its place.
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).action(ArgAction::Append).help(self.help_text());
        let arg = arg.help_heading(self.heading).hide(self.deprecated.is_some());
        let arg = match self.value {
            Value::Switch => arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true"),
            Value::One(name) | Value::List(name) => arg.value_name(name).allow_hyphen_values(true),
        };
        match self.name {
            "v" => arg.short('v'),
            "hostname-override" => arg.alias("node"),
            "manifests" => arg.conflicts_with_all(["kubeconfig", "master"]),
            _ => arg,
        }
    }

    fn help_text(&self) -> String {
        if self.default.is_empty() {
            return self.help.to_owned();
        }
        format!("{} [default: {}]", self.help, self.default)
    }
}

/// Adds a command's flags to its parser.
pub(crate) fn add(command: Command, to: Commands) -> Command {
    command.args(FLAGS.iter().filter(|flag| flag.is_of(to)).map(Flag::arg))
}

/// The flags that were given, in their order.
pub(crate) fn given(matches: &ArgMatches, to: Commands) -> Given {
    let mut occurrences: Vec<(usize, &'static Flag, String)> = Vec::new();
    for flag in FLAGS.iter().filter(|flag| flag.is_of(to)) {
        let indices = matches.indices_of(flag.name).into_iter().flatten();
        let values = matches.get_many::<String>(flag.name).into_iter().flatten();
        occurrences.extend(indices.zip(values).map(|(index, value)| (index, flag, value.clone())));
    }
    occurrences.sort_by_key(|(index, _, _)| *index);
    let mut given = Given::default();
    for (_, flag, value) in occurrences {
        given.take(flag, &value);
    }
    given
}
