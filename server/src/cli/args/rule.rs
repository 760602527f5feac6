//! Commands on rules.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::AdminArgs;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RuleCommand {
    /// The rules in force, in order, and those that wait for a confirmation with what they would withdraw.
    List(AdminArgs),
    /// Set a rule beside those of the configuration file, in place of the one that an admin has set by its name. Exits 1 where it waits for a
    /// confirmation.
    Set(SetRuleArgs),
    /// Take away a rule that an admin has set. Exits 1 where that waits for a confirmation.
    Delete(DeleteRuleArgs),
    /// What a pod gets by the rules in force, and what a rule would change. Changes nothing. Exits 1 where the pod would get nothing, and 2
    /// where there is no answer or it hangs on labels of a namespace that are not known.
    Test(TestRuleArgs),
    /// Put in force the rules that wait, though they withdraw more live identities than rules_confirm_above.
    Confirm(ConfirmRulesArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfirmRulesArgs {
    /// Their revision, from `rule list`: 16 hexadecimal digits. Others are not confirmed by it.
    pub(in crate::cli) revision: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetRuleArgs {
    /// The rule as the configuration would have it, YAML or JSON; - is standard input.
    pub(in crate::cli) file: PathBuf,
    /// The rule of the admins before which it comes: the first that matches gives the default identity. Without it the rule keeps its place,
    /// and a new one is the last.
    #[arg(long, value_name = "RULE")]
    pub(in crate::cli) before: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteRuleArgs {
    /// Its name, from `rule list`.
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(id = "tested", required = true, multiple = true, args = ["pod", "rule"])]
pub(in crate::cli) struct TestRuleArgs {
    /// The pod, as its cluster has it now.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(in crate::cli) pod: Option<String>,
    /// With --pod: the cluster, where there are several.
    #[arg(long, requires = "pod")]
    pub(in crate::cli) cluster: Option<String>,
    /// A rule that is tried as `rule set` would set it, YAML or JSON; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) rule: Option<PathBuf>,
    /// With --rule: the rule of the admins before which it would come.
    #[arg(long, value_name = "RULE", requires = "rule")]
    pub(in crate::cli) before: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}
