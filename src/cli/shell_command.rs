//! `cutover completions` and `cutover man`: what the command line knows of itself, for shells and readers.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Failure;
use crate::stdout;

/// Where completions belong.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    cutover completions bash > /etc/bash_completion.d/cutover\n  \
    source <(cutover completions bash)              for this shell only\n  \
    cutover completions zsh > \"${fpath[1]}/_cutover\"\n  \
    cutover completions fish > ~/.config/fish/completions/cutover.fish";

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that they are for
    shell: Shell,
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write all pages into this folder, one for each command, instead of the main one to standard output
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// `cutover completions`
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command, "cutover", &mut out);
    stdout::raw(&String::from_utf8_lossy(&out));
}

/// `cutover man`
pub(super) fn man(args: &ManArgs, command: Command) -> Result<(), Failure> {
    // Its page would only repeat the others.
    let command = command.disable_help_subcommand(true);
    let Some(folder) = &args.out else {
        let mut out = Vec::new();
        Man::new(command)
            .render(&mut out)
            .map_err(|error| Failure::Failed(format!("no page: {error}")))?;
        stdout::raw(&String::from_utf8_lossy(&out));
        return Ok(());
    };
    write_all(folder, command).map_err(|error| {
        Failure::Unreachable(format!("cannot write to {}: {error}", folder.display()))
    })
}

fn write_all(folder: &Path, command: Command) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)?;
    stdout::line(&format!("man pages are in {}", folder.display()));
    Ok(())
}
